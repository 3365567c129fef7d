"""The room: a papered wall, a wooden floor with a rug, and a window with curtains that shows the hour."""

from __future__ import annotations

from pixart_sigma.world.backgrounds.canvas import GROUND, MARGIN, Canvas, fade, lines, mix, patch
from pixart_sigma.world.backgrounds.scatter import scatter
from pixart_sigma.world.backgrounds.sky import sky_colours
from pixart_sigma.world.paths import box, oval, speck

_FLOOR = GROUND + 0.03


def room(canvas: Canvas) -> str:
    """SVG that fills the canvas."""
    floor = _FLOOR * canvas.height
    wide = canvas.width + 2 * MARGIN
    wall = canvas.tone("#f6e6c4", "#f3c096", "#6a6590")
    wood = canvas.tone("#c98d58", "#bb7048", "#584666")
    skirting = canvas.tone("#fffaf0", "#ffe2c4", "#9791b8")
    rug = canvas.tone("#6fb3a8", "#6f9a94", "#46608a")
    parts = [
        canvas.shape(box(-MARGIN, -MARGIN, wide, canvas.height), wall),
        _paper(canvas, wall, floor),
        canvas.shape(box(-MARGIN, floor, wide, canvas.height), wood),
        _planks(canvas, wood, floor),
        canvas.shape(box(-MARGIN, floor - 0.035, wide, 0.045), skirting),
    ]
    rng = canvas.stream("furniture")
    centre = canvas.width * (0.35 + 0.3 * rng.random())
    half, middle = 0.4 * canvas.width**0.7, (_FLOOR + 1.02) / 2 * canvas.height
    parts.append(canvas.shape(oval(centre, middle, half, 0.105), rug))
    parts.append(patch(oval(centre, middle, 0.82 * half, 0.078), mix(rug, "#fff4dc", 0.4)))
    parts.append(patch(oval(centre, middle, 0.7 * half, 0.06), rug))
    windows = max(1, round(canvas.width / 1.3))
    for i in range(windows):
        x = canvas.width * (i + 0.3 + 0.4 * rng.random()) / windows
        parts.append(_window(canvas, x, floor))
    return "".join(parts)


def _paper(canvas: Canvas, wall: str, floor: float) -> str:
    """Broad stripes; in finer drawings with a pattern between them."""
    pale = mix(wall, "#ffffff", 0.3)
    d = "".join(box(0.2 * i, 0, 0.1, floor) for i in range(int(canvas.width / 0.2) + 1))
    paper = patch(d, pale)
    if canvas.detail:
        rows, columns = int(floor / 0.08) + 1, int(canvas.width / 0.1) + 1
        dots = "".join(
            speck(0.05 + 0.1 * i, 0.08 * j + 0.04 * (i % 2)) for i in range(columns) for j in range(rows)
        )
        paper += lines(dots, mix(wall, "#b86a4a", 0.22), 0.012)
    return paper


def _planks(canvas: Canvas, wood: str, floor: float) -> str:
    """Boards that grow towards the viewer."""
    deep = canvas.height - floor
    edges = [floor + deep * share for share in (0.14, 0.36, 0.65)]
    d = "".join(f"M0 {y:.4g}h{canvas.width:.4g}" for y in edges)
    planks = lines(d, mix(wood, "#3a1d2a", 0.25), 0.014 if canvas.detail == 0 else 0.006)
    if canvas.detail:
        rng = canvas.stream("grain")
        grain = "".join(
            f"M{canvas.width * x:.4g} {floor + deep * y:.4g}q.05 {0.012 * (rng.random() - 0.5):.4g} .1 0"
            for x, y in scatter(rng, round(30 * canvas.detail**2 * canvas.width))
        )
        planks += lines(grain, mix(wood, "#3a1d2a", 0.3), 0.004 / canvas.detail)
    return planks


def _window(canvas: Canvas, x: float, floor: float) -> str:
    """A window onto the sky of the hour, with curtains at both sides."""
    frame = canvas.tone("#ffffff", "#fff0dc", "#b4aed0")
    wide, tall = 0.36, 0.4 * canvas.height**0.6
    left, top = x - wide / 2, floor - 0.17 - tall
    bars = f"M{x:.4g} {top:.4g}v{tall:.4g}M{left:.4g} {top + tall / 2:.4g}h{wide:.4g}"
    rod = f"M{left - 0.1:.4g} {top - 0.045:.4g}h{wide + 0.2:.4g}"
    return "".join(
        (
            canvas.shape(box(left - 0.025, top - 0.025, wide + 0.05, tall + 0.05), frame),
            _view(canvas, left, top, wide, tall),
            lines(bars, frame, 0.018),
            canvas.shape(box(left - 0.05, top + tall + 0.01, wide + 0.1, 0.032), frame),
            _curtain(canvas, left, top, tall, -1),
            _curtain(canvas, left + wide, top, tall, 1),
            canvas.strokes(rod, canvas.tone("#a87850", "#a06a50", "#5e4a6e"), 0.022),
        )
    )


def _view(canvas: Canvas, left: float, top: float, wide: float, tall: float) -> str:
    """The sky behind the panes."""
    assert canvas.time is not None
    high, middle, low = sky_colours(canvas.time, None)
    if canvas.style == "gradient":
        definition, fill = fade(high, low)
        view = definition + patch(box(left, top, wide, tall), fill)
    else:
        view = (
            patch(box(left, top, wide, tall), high)
            + patch(box(left, top + 0.4 * tall, wide, 0.6 * tall), middle)
            + patch(box(left, top + 0.72 * tall, wide, 0.28 * tall), low)
        )
    if canvas.time != "night":
        return view
    points = scatter(canvas.stream("lights"), 8 + 10 * canvas.detail)
    dots = "".join(speck(left + wide * (0.06 + 0.88 * u), top + tall * (0.05 + 0.65 * v)) for u, v in points)
    return view + lines(dots, "#fff6d8", 0.012 if canvas.detail == 0 else 0.008)


def _curtain(canvas: Canvas, edge: float, top: float, tall: float, side: int) -> str:
    """A curtain tied back at one edge of the window; `side` is −1 at its left edge, 1 at its right."""
    cloth = canvas.tone("#e8796a", "#c9554f", "#6b4a86")
    outer, inner, tie = edge + 0.07 * side, edge - 0.09 * side, edge + 0.01 * side
    d = (
        f"M{outer:.4g} {top - 0.04:.4g}H{inner:.4g}Q{inner:.4g} {top + 0.4 * tall:.4g} {tie:.4g} {top + 0.6 * tall:.4g}"
        f"L{tie - 0.035 * side:.4g} {top + tall + 0.03:.4g}H{outer:.4g}z"
    )
    folds = ""
    for u in ((), (0.035, 0.105), (0.035, 0.07, 0.105, 0.135))[canvas.detail]:
        fold, hem = outer - u * side, outer - (0.015 + 0.4 * u) * side
        folds += f"M{fold:.4g} {top:.4g}Q{fold:.4g} {top + 0.45 * tall:.4g} {hem:.4g} {top + tall:.4g}"
    return canvas.shape(d, cloth) + (lines(folds, mix(cloth, "#3a1230", 0.25), 0.007) if folds else "")
