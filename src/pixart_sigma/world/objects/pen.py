"""The pen that draws shapes in one of four styles.

Knows nothing of what they mean. Lengths are in units of a thing's box.
"""

from __future__ import annotations

from pixart_sigma.world.objects.paint import INK, RIMS, ROSE, Paint
from pixart_sigma.world.paths import ovals

OUTLINE = 0.028
"""Width of the ink outline."""
CELL = 0.045
"""The least width that survives in pixel art."""

_TONES = {
    "light": ("light", "light", "base"),
    "base": ("light", "base", "dark"),
    "round": ("light", "base", "dark"),
    "dark": ("base", "dark", "dark"),
}


class Pen:
    """Collects the elements of one drawing in a paint and a style.

    `detail` is 0 (coarse) to 2 (fine); pixel art never has more than 0, for its cells would blur finer strokes.
    """

    def __init__(self, paint: Paint, style: str, detail: int) -> None:
        self.paint = paint
        self.detail = 0 if style == "pixel" else detail
        self._style = style
        self._elements: list[str] = []
        self._edges: list[str] = []
        self._gradients: dict[str, str] = {}

    def shape(self, d: str, paint: Paint | None = None, tone: str = "base") -> None:
        """A part of the silhouette: has an outline in ink."""
        element = f'<path d="{d}" fill="{self._fill(paint or self.paint, tone)}"/>'
        self._elements.append(element)
        self._edges.append(element)

    def outline(self, d: str) -> None:
        """The ink outline of a shape once more, over what was painted inside; nothing in other styles."""
        if self._style == "ink":
            self._elements.append(f'<path d="{d}" fill="none"/>')

    def limb(self, d: str, width: float, tone: str = "base") -> None:
        """A thick stroke as a part of the silhouette."""
        colour = getattr(self.paint, tone)
        grown = f'<path d="{d}" fill="none" stroke-width="{width + OUTLINE:.3g}"/>'
        if self._style == "ink":
            self._elements.append(grown)
        self._edges.append(grown)
        self.line(d, colour, width - OUTLINE if self._style == "ink" else width)

    def patch(self, d: str, colour: str, opacity: float = 1.0) -> None:
        """A plain area without an outline."""
        bare = ' stroke="none"' if self._style == "ink" else ""
        clear = f' fill-opacity="{opacity:.2g}"' if opacity < 1 else ""
        self._elements.append(f'<path d="{d}" fill="{colour}"{bare}{clear}/>')

    def line(self, d: str, colour: str, width: float, opacity: float = 1.0) -> None:
        """A stroke."""
        width = max(width, CELL) if self._style == "pixel" else width
        clear = f' stroke-opacity="{opacity:.2g}"' if opacity < 1 else ""
        self._elements.append(
            f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width:.3g}"{clear}/>'
        )

    def shade(self, d: str) -> None:
        """An area that gets less light."""
        if self._style == "gradient":
            self.patch(d, INK, 0.14)
        else:
            self.patch(d, self.paint.dark)

    def shine(self, d: str) -> None:
        """A reflection; flat drawings have none."""
        if self._style == "gradient":
            self.patch(d, "#ffffff", 0.4)
        elif self._style != "flat":
            self.patch(d, self.paint.light)

    def face(self, x: float, y: float, scale: float) -> None:
        """Two eyes, rosy cheeks and a smile."""
        wide = 0.04 if self._style == "pixel" else 0.03
        eye, low = 0.095 * scale, y + 0.06 * scale
        cheeks = [(x + side * 0.165 * scale, low, 0.038 * scale, 0.026 * scale) for side in (-1, 1)]
        self.patch(ovals(*cheeks), ROSE)
        self.patch(ovals(*((x + s * eye, y, wide * scale, 0.045 * scale) for s in (-1, 1))), self.paint.mark)
        smile = (
            f"M{x - 0.06 * scale:.3f} {low:.3f}q{0.06 * scale:.3f} {0.08 * scale:.3f} {0.12 * scale:.3f} 0"
        )
        self.line(smile, self.paint.mark, 0.028 * scale)
        if self.detail:
            glints = [
                (x + s * eye - 0.008 * scale, y - 0.016 * scale, 0.01 * scale, 0.012 * scale) for s in (-1, 1)
            ]
            self.patch(ovals(*glints), "#ffffff" if self.paint.mark == INK else INK)

    def svg(self) -> str:
        """All that was drawn, as one group, with the gradients that it needs."""
        ink = self._style == "ink"
        rim = RIMS.get(self.paint.name) if self.paint.name == "black" or not ink else None
        under = ""
        if rim:
            width = 0.1 if self._style == "pixel" else 0.06
            width += OUTLINE if ink else 0.0
            under = f'<g stroke="{rim}" stroke-width="{width:.3g}">{"".join(self._edges)}</g>'
        defs = f"<defs>{''.join(self._gradients.values())}</defs>" if self._gradients else ""
        stroke = f' stroke="{INK}" stroke-width="{OUTLINE}"' if ink else ""
        return (
            f'{defs}<g stroke-linejoin="round" stroke-linecap="round">{under}'
            f"<g{stroke}>{''.join(self._elements)}</g></g>"
        )

    def _fill(self, paint: Paint, tone: str) -> str:
        if self._style != "gradient":
            return str(getattr(paint, "base" if tone == "round" else tone))
        name = f"{paint.name}-{tone}"
        stops = "".join(
            f'<stop offset="{offset}" stop-color="{getattr(paint, step)}"/>'
            for offset, step in zip((0, 0.5, 1), _TONES[tone], strict=True)
        )
        self._gradients[name] = (
            f'<radialGradient id="{name}" cx=".35" cy=".3" r=".8">{stops}</radialGradient>'
            if tone == "round"
            else f'<linearGradient id="{name}" x1=".2" y1="0" x2=".7" y2="1">{stops}</linearGradient>'
        )
        return f"url(#{name})"
