"""What a checker that is never wrong would read off a scene's picture."""

from pixart_sigma.evaluation.judges.checker import Reading, ReadThing
from pixart_sigma.world import Scene


def true_reading(scene: Scene) -> Reading:
    return Reading(
        scene.background,
        scene.time,
        scene.weather,
        scene.style,
        {thing.kind: ReadThing(thing.count, thing.colour, thing.size, thing.place) for thing in scene.things},
        scene.sign and scene.sign.kind,
        scene.sign and scene.sign.colour,
    )
