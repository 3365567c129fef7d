"""The drawn world: small scenes whose truth is known, drawn as vectors, described in words.

Scenes are values, drawing is a pure function of a scene and a size, and captions are pure functions of a scene.
Knows nothing of tensors, models or files.
"""

from pixart_sigma.world.captions import dense_caption, hallucinated_caption, prompt_caption, short_caption
from pixart_sigma.world.render import render, scene_svg
from pixart_sigma.world.scene import Scene, Sign, Thing, is_held_out, sample_scene

__all__ = [
    "Scene",
    "Sign",
    "Thing",
    "dense_caption",
    "hallucinated_caption",
    "is_held_out",
    "prompt_caption",
    "render",
    "sample_scene",
    "scene_svg",
    "short_caption",
]
