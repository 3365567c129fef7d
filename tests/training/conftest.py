from tiny_pipeline import tiny_folder

__all__ = ["tiny_folder"]
