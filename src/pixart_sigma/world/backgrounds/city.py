"""The city street: grey towers with windows, a pavement, a road with a dashed line."""

from __future__ import annotations

from dataclasses import dataclass

from pixart_sigma.world.backgrounds.canvas import GROUND, MARGIN, Canvas, lines, mix, patch
from pixart_sigma.world.backgrounds.land import strewn
from pixart_sigma.world.backgrounds.scatter import scatter
from pixart_sigma.world.backgrounds.sky import sky
from pixart_sigma.world.paths import box

_KERB = 0.83


def city(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    street = (GROUND + 0.08) * canvas.height
    return "".join((sky(canvas), _skyline(canvas, street), _row(canvas, street), _street(canvas, street)))


def _skyline(canvas: Canvas, street: float) -> str:
    colour = canvas.tone("#aab6c8", "#b77f95", "#2f3b70")
    rng = canvas.stream("skyline")
    x, d = -MARGIN, f"M{-MARGIN} {street:.4g}"
    while x < canvas.width + MARGIN:
        x += 0.09 + 0.08 * rng.random()
        d += f"V{street - canvas.height * (0.3 + 0.2 * rng.random()):.4g}H{x:.4g}"
    return canvas.shape(f"{d}V{street:.4g}z", colour)


def _row(canvas: Canvas, street: float) -> str:
    walls = (
        canvas.tone("#8b93a5", "#8c7089", "#3b4368"),
        canvas.tone("#747c90", "#755c7c", "#2e3558"),
        canvas.tone("#9da3b0", "#9c7f92", "#474f74"),
    )
    dark = canvas.tone("#56617a", "#5b4468", "#1c2240")
    lit = canvas.tone("#d6ebf7", "#ffd98c", "#ffd766")
    rng = canvas.stream("row")
    x, last, parts = -0.12 * rng.random(), 0, []
    while x < canvas.width:
        last = (last + 1 + int(2 * rng.random())) % 3
        tower = _Tower(x, street, 0.17 + 0.09 * rng.random(), canvas.height * (0.22 + 0.26 * rng.random()))
        parts.append(canvas.shape(tower.outline(stepped=rng.random() < 0.5), walls[last]))
        if canvas.detail:
            parts.append(_masonry(canvas, tower, walls[last]))
        panes: tuple[list[str], list[str]] = [], []
        for left, top in tower.windows():
            panes[rng.random() < 0.35].append(box(left, top, 0.042, 0.052))
        parts += [patch("".join(panes[0]), lit), patch("".join(panes[1]), dark)]
        if canvas.detail:
            parts.append(_sashes(canvas, tower, walls[last]))
        x += tower.width + (0.05 * rng.random() if rng.random() < 0.3 else 0)
    return "".join(parts)


@dataclass(frozen=True)
class _Tower:
    """Its left edge, the street it stands on, its width and its height."""

    x: float
    street: float
    width: float
    height: float

    @property
    def top(self) -> float:
        return self.street - self.height

    def outline(self, *, stepped: bool) -> str:
        """A box, or one with a narrower storey on its roof."""
        if not stepped:
            return box(self.x, self.top, self.width, self.height)
        side, tall = 0.25 * self.width, self.height
        storey = f"h{side:.4g}v-.04h{self.width - 2 * side:.4g}v.04h{side:.4g}"
        return f"M{self.x:.4g} {self.street:.4g}v{-tall:.4g}{storey}v{tall:.4g}z"

    def floors(self) -> list[float]:
        """Where each floor ends, from the roof down."""
        count = max(1, round((self.height - 0.06) / 0.095))
        return [self.top + 0.02 + i * (self.height - 0.05) / count for i in range(count)]

    def windows(self) -> list[tuple[float, float]]:
        """The upper left corners."""
        columns = max(2, round(self.width / 0.085))
        lefts = [self.x + self.width * (column + 0.5) / columns - 0.021 for column in range(columns)]
        return [(left, floor + 0.015) for floor in self.floors() for left in lefts]


def _masonry(canvas: Canvas, tower: _Tower, wall: str) -> str:
    """Cornices between the floors, an aerial on a broad roof, and bricks in the finest drawing."""
    colour = mix(wall, "#1a1c30", 0.22)
    d = "".join(f"M{tower.x:.4g} {floor:.4g}h{tower.width:.4g}" for floor in tower.floors())
    if tower.width > 0.21:
        d += f"M{tower.x + 0.85 * tower.width:.4g} {tower.top:.4g}v-.07m-.02.02h.04m-.01.016h-.02"
    masonry = lines(d, colour, 0.005)
    if canvas.detail > 1:
        points = scatter(canvas.stream(f"bricks {tower.x:.4f}"), round(900 * tower.width * tower.height))
        inset, lift = tower.width - 0.028, tower.height - 0.02
        bricks = "".join(
            f"M{tower.x + 0.005 + inset * u:.4g} {tower.top + 0.01 + lift * v:.4g}h.018" for u, v in points
        )
        masonry += lines(bricks, colour, 0.0035)
    return masonry


def _sashes(canvas: Canvas, tower: _Tower, wall: str) -> str:
    """Sills under the windows, and bars across them in the finest drawing."""
    sills = "".join(f"M{left - 0.004:.4g} {top + 0.055:.4g}h.05" for left, top in tower.windows())
    sashes = lines(sills, mix(wall, "#ffffff", 0.35), 0.008)
    if canvas.detail > 1:
        bars = "".join(
            f"M{left + 0.021:.4g} {top:.4g}v.052M{left:.4g} {top + 0.02:.4g}h.042"
            for left, top in tower.windows()
        )
        sashes += lines(bars, mix(wall, "#ffffff", 0.2), 0.004)
    return sashes


def _street(canvas: Canvas, street: float) -> str:
    pavement = canvas.tone("#c3c6cd", "#c79f9a", "#59607f")
    road = canvas.tone("#5f6572", "#6a5068", "#2b3050")
    paint = canvas.tone("#f4f1e6", "#ffdca8", "#a9adc4")
    kerb, width = _KERB * canvas.height, canvas.width + 2 * MARGIN
    start = -0.2 * canvas.stream("dashes").random()
    middle = 0.93 * canvas.height
    dashes = "".join(box(start + 0.26 * i, middle, 0.14, 0.026) for i in range(int(canvas.width / 0.26) + 2))
    parts = [
        canvas.shape(box(-MARGIN, street, width, canvas.height), pavement),
        canvas.shape(box(-MARGIN, kerb, width, canvas.height), road),
    ]
    if canvas.detail:
        slabs = "".join(
            f"M{0.11 * i:.4g} {street:.4g}L{0.11 * i - 0.03:.4g} {kerb:.4g}"
            for i in range(int(canvas.width / 0.11) + 2)
        )
        parts.append(lines(slabs, mix(pavement, "#30344a", 0.25), 0.004))
    if canvas.detail > 1:
        grit = strewn(canvas, "grit", _KERB + 0.02, 1, 350, lambda x, y, scale, rng: f"M{x:.4g} {y:.4g}h.003")
        parts.append(lines(grit, mix(road, "#ffffff", 0.2), 0.0028))
    parts.append(patch(box(-MARGIN, kerb, width, 0.018), mix(pavement, "#ffffff", 0.35)))
    parts.append(patch(dashes, paint))
    return "".join(parts)
