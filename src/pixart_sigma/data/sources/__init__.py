"""Where records come from: folders, the official layout, Parquet files, the drawn world."""

from pixart_sigma.data.sources.drawn_world import drawn_world
from pixart_sigma.data.sources.folder import image_folder
from pixart_sigma.data.sources.official import official_layout
from pixart_sigma.data.sources.origin import Candidate, Origin, Skipped, records
from pixart_sigma.data.sources.parquet import parquet_files

__all__ = [
    "Candidate",
    "Origin",
    "Skipped",
    "drawn_world",
    "image_folder",
    "official_layout",
    "parquet_files",
    "records",
]
