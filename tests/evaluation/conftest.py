from fake_judges import fake_judges  # noqa: F401
from tiny_pipeline import tiny_folder  # noqa: F401
