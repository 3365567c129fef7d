"""The colours that things have, and the few that only parts of them have, in three tones each.

Knows nothing of shapes or styles.
"""

from __future__ import annotations

from dataclasses import dataclass

INK = "#2b2430"
"""Outlines, eyes, and lettering on light ground."""
CREAM = "#fff6e0"
"""Eyes and lettering on dark ground."""
ROSE = "#ff8fa0"
"""Cheeks."""
CORD = "#8a8494"
"""Strings, on any ground."""


@dataclass(frozen=True)
class Paint:
    """Three tones of one colour, and the colour that shows on it: INK or CREAM."""

    name: str
    light: str
    base: str
    dark: str
    mark: str = INK


PAINTS = {
    paint.name: paint
    for paint in (
        Paint("red", "#ff8070", "#e5352d", "#b01c22", CREAM),
        Paint("orange", "#ffbd66", "#f98a1b", "#d9650a"),
        Paint("yellow", "#fff296", "#fbd422", "#dba60c"),
        Paint("green", "#86dc70", "#3aa845", "#22783a"),
        Paint("blue", "#7ab8ff", "#2b6fe0", "#1d4fb5", CREAM),
        Paint("purple", "#c494f5", "#8a3fd0", "#672aad", CREAM),
        Paint("pink", "#ffc2df", "#fc7dbb", "#d64d93"),
        Paint("brown", "#bb885a", "#8a5830", "#654020", CREAM),
        Paint("white", "#ffffff", "#f4f4f8", "#c6c9d8"),
        Paint("black", "#6b6779", "#36323e", "#1c1a22", CREAM),
    )
}
"""The colours that things have."""

RIMS = {"white": "#8f96b0", "black": "#aaa5bf"}
"""Colours that would vanish on snow or at night, and the rim that keeps them visible."""

WOOD = Paint("wood", "#b98350", "#8a5a33", "#643e20", CREAM)
STEM = Paint("stem", "#fffaf0", "#f7ead2", "#d9c3a0")
LEAF = Paint("leaf", "#6fb565", "#3c8747", "#25602f")
GOLD = Paint("gold", "#ffdf80", "#f7b733", "#cf8512")
GLASS = Paint("glass", "#eefaff", "#bfe4fb", "#86bde0")
TYRE = Paint("tyre", "#6a6a78", "#41414d", "#26262f", CREAM)
