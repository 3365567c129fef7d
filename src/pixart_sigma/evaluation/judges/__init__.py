"""Two small networks that read drawn pictures: the checker, and the image-text model.

They are trained on renderings alone and know nothing of what made the picture before them.
"""

from pixart_sigma.evaluation.judges.checker import Checker, Reading, ReadThing, load_checker, read
from pixart_sigma.evaluation.judges.image_text import ImageText, load_image_text

__all__ = ["Checker", "ImageText", "ReadThing", "Reading", "load_checker", "load_image_text", "read"]
