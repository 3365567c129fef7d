"""Capital letters as bold strokes with round ends, so that words need no font.

Knows nothing of what words are written on.
"""

from __future__ import annotations

from pixart_sigma.errors import InvalidInput

STROKE = 0.17
"""Width of a stroke, in units of a letter's height between the middles of its strokes."""
GAP = 0.31
"""Distance between the middles of the strokes of neighbouring letters, in the same units."""
SPACE = 0.5

# Each letter: how wide it is, and its strokes as relative SVG path data from its upper left corner, y down to 1.
LETTERS = {
    "A": (0.8, "m0 1l.4-1 .4 1m-.66-.34h.52"),
    "B": (0.64, "v1h.36a.28.28 0 0 0 0-.56h-.36m.34 0a.22.22 0 0 0 0-.44h-.34"),
    "C": (0.72, "m.72.2a.42.5 0 1 0 0 .6"),
    "D": (0.72, "v1h.26a.46.5 0 0 0 0-1z"),
    "E": (0.56, "m.56 0h-.56v1h.56m-.56-.5h.46"),
    "F": (0.56, "m.56 0h-.56v1m0-.5h.46"),
    "G": (0.76, "m.72.2a.42.5 0 1 0 .04.55v-.22h-.32"),
    "H": (0.68, "v1m.68-1v1m-.68-.5h.68"),
    "I": (0.0, "v1"),
    "J": (0.52, "m.52 0v.72a.26.28 0 0 1-.52 0"),
    "K": (0.66, "v1m.62-1l-.62.62m.22-.22l.44.6"),
    "L": (0.54, "v1h.54"),
    "M": (0.9, "m0 1v-1l.45.72.45-.72v1"),
    "N": (0.72, "m0 1v-1l.72 1v-1"),
    "O": (0.84, "m0 .5a.42.5 0 1 1 .84 0a.42.5 0 1 1-.84 0z"),
    "P": (0.62, "m0 1v-1h.34a.28.28 0 0 1 0 .56h-.34"),
    "Q": (0.84, "m0 .5a.42.5 0 1 1 .84 0a.42.5 0 1 1-.84 0zm.54.2l.32.34"),
    "R": (0.66, "m0 1v-1h.34a.28.28 0 0 1 0 .56h-.34m.34 0l.3.44"),
    "S": (
        0.6,
        "m.57.17q-.1-.17-.28-.17c-.16 0-.27.1-.27.24 0 .36.58.16.58.52 0 .14-.12.24-.3.24q-.2 0-.3-.18",
    ),
    "T": (0.7, "h.7m-.35 0v1"),
    "U": (0.7, "v.64a.35.36 0 0 0 .7 0v-.64"),
    "V": (0.76, "l.38 1 .38-1"),
    "W": (1.04, "l.26 1 .26-.84 .26.84 .26-1"),
    "X": (0.7, "l.7 1m0-1l-.7 1"),
    "Y": (0.72, "l.36.52 .36-.52m-.36.52v.48"),
    "Z": (0.64, "h.64l-.64 1h.64"),
    " ": (SPACE, ""),
}


def word_svg(text: str, width: float, height: float, fill: str) -> str:
    """One SVG element: `text` centred on the origin, as large as fits into `width` x `height`, in the colour `fill`.

    Raises InvalidInput for anything but the capitals A to Z and spaces, and for no text at all.
    """
    if not text or not set(text) <= LETTERS.keys():
        raise InvalidInput(
            f"lettering has only the capitals A to Z and spaces, not {text!r}; write it in capitals"
        )
    path, x = "", 0.0
    for letter in text:
        advance, strokes = LETTERS[letter]
        path += f"M{x:.3g} 0{strokes}"
        x += advance + GAP
    length = x - GAP
    scale = min(width / (length + STROKE), height / (1 + STROKE))
    place = f"translate({-scale * length / 2:.4f} {-scale / 2:.4f}) scale({scale:.4f})"
    return (
        f'<path d="{path}" transform="{place}" fill="none" stroke="{fill}" stroke-width="{STROKE}" '
        'stroke-linecap="round" stroke-linejoin="round"/>'
    )
