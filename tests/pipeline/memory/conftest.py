from tiny_pipeline import tiny_folder  # noqa: F401
