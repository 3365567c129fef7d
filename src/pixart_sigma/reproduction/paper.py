"""The paper's own numbers: PixArt-Σ (Chen et al., 2024, arXiv 2403.04692), Tables 1, 2 and 3a to 3c.

Cells that cannot be read with certainty in the text at hand are None. Its 256, 512 and 1024 pixels are stood for by
the low, the middle and the high resolution of the pocket world.
"""

from __future__ import annotations

from dataclasses import dataclass

Value = float | str | None


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper; `rows` have a value a column. A figure has no rows, its `says` tells it."""

    source: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    says: str = ""


TABLE_1 = PaperTable(
    "Table 1 and Fig. 6",
    ("dataset", "volume", "captions", "VN/DN", "nouns", "average length", "nouns an image"),
    (
        ("Internal-α", "14M", "raw", "187K/931K", "175M", None, 11.7),
        ("Internal-α", "14M", "LLaVA", "28K/215K", "536M", None, 29.3),
        ("Internal-α", "14M", "Share-Captioner", "51K/420K", "815M", 184, 54.4),
        ("Internal-Σ", "33M", "raw", None, "485M", None, 14.4),
        ("Internal-Σ", "33M", "Share-Captioner", None, "1804M", 180, 53.6),
        ("4K-Σ", None, "Share-Captioner", None, "115M", None, 49.5),
    ),
    "VN: distinct nouns that appear more than 10 times; DN: all distinct nouns.",
)

TABLE_2 = PaperTable(
    "Table 2",
    ("resolution", "iterations", "FID ↓", "CLIP ↑"),
    (("256", "20K", 16.56, 0.270), ("256 → 512", "1K", 9.75, 0.272), ("256 → 512", "100K", 8.91, 0.276)),
    "High resolution is learnt within few steps from low resolution, and hardly improves after that.",
)

TABLE_3A = PaperTable(
    "Table 3a",
    ("layers", "FID ↓", "CLIP ↑"),
    (
        ("none", 8.244, 0.276),
        ("shallow (1-14)", 9.278, 0.275),
        ("middle (7-20)", 9.063, 0.276),
        ("deep (14-27)", 8.532, 0.275),
    ),
    "Compression costs least in the deep layers.",
)

TABLE_3B = PaperTable(
    "Table 3b",
    ("operator", "FID ↓", "CLIP ↑"),
    (
        ("none", 8.244, 0.276),
        ("token discarding", 8.918, 0.275),
        ("token pooling", 9.415, 0.275),
        ("conv 2×2", 8.505, 0.274),
    ),
    "The convolution costs least.",
)

TABLE_3C = PaperTable(
    "Table 3c",
    ("resolution", "ratio", "FID ↓", "CLIP ↑", "seconds an iteration of 384 ↓"),
    (
        ("512", 1, 8.244, 0.276, 2.3),
        ("512", 2, 9.063, 0.276, 2.2),
        ("512", 4, 9.606, 0.276, 2.1),
        ("1024", 1, 5.685, 0.277, 27.5),
        ("1024", 2, 5.512, 0.273, 22.5),
        ("1024", 4, 5.644, 0.276, 20.0),
        ("1024", 9, 5.712, 0.275, 17.8),
    ),
    "Compression leaves the CLIP score as it is, costs a little FID, and saves time: more with more tokens.",
)

FIGURE_8 = PaperTable(
    "Fig. 8",
    says="(a) After its autoencoder is exchanged the model converges within 2K steps. (b) Interpolated positions give "
    "good pictures after 100 steps. (c) So does compression whose convolution begins as an average.",
)

CAPTIONS = PaperTable(
    "Section 3.1",
    says="Dense captions without hallucinations, read up to 300 tokens and not 120, align pictures with texts; dense "
    "and short ones are mixed 60 to 40. The paper gives no numbers for this.",
)
