"""From a name or a file and `a.b=c` overrides to a checked recipe, and back to TOML.

Knows nothing of what the keys mean.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, TypeAdapter, ValidationError

from pixart_sigma.errors import RecipeError
from pixart_sigma.training.recipe.kinds import Recipe

_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])
_KINDS = ("autoencoder", "text-encoder", "caption-reader", "checker", "image-text", "transformer")


def packaged_recipes() -> list[str]:
    """Names of the recipes in the package, without the ending."""
    folder = resources.files("pixart_sigma.training") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def read_recipe_text(recipe: str) -> str:
    """The TOML of a packaged recipe (by name) or of a file (by path). Raises RecipeError."""
    if recipe in packaged_recipes():
        return (resources.files("pixart_sigma.training") / "recipes" / f"{recipe}.toml").read_text("utf-8")
    try:
        return Path(recipe).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"recipe {recipe!r} is neither a readable TOML file nor one of: {', '.join(packaged_recipes())}"
        ) from error


def load_recipe(recipe: str, overrides: list[str] | None = None) -> Recipe:
    """A checked recipe; `overrides` are `a.b=c`, c in TOML syntax (bare words are taken as strings).

    A number in a path is a place in a list: `data.sources.0.folder=photos`. Raises RecipeError with one line for an
    unknown recipe, malformed TOML, or a value that breaks a rule.
    """
    return parse_recipe(read_recipe_text(recipe), recipe, overrides)


def parse_recipe(text: str, name: str, overrides: list[str] | None = None) -> Recipe:
    """As `load_recipe`, for the text of a recipe; `name` stands in messages."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name!r} is not TOML: {_one_line(str(error))}") from error
    for override in overrides or []:
        _apply(table, override)
    try:
        return _ADAPTER.validate_python(table)
    except ValidationError as error:
        raise RecipeError(f"recipe {name!r}: " + "; ".join(_problems(error))) from error


def dump_recipe(recipe: Recipe) -> str:
    """TOML from which `load_recipe` makes the same recipe again, every default written out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}


def recipe_changes(old: Recipe, new: Recipe) -> list[str]:
    """What differs, a line each: `run.steps: 100 → 200`."""
    before, after = (dict(_leaves(recipe.model_dump(mode="json"), ())) for recipe in (old, new))
    return [
        f"{name}: {before.get(name, 'absent')} → {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, part in value.items() for leaf in _leaves(part, (*path, key))]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [leaf for index, part in enumerate(value) for leaf in _leaves(part, (*path, str(index)))]
    return [] if value is None else [(".".join(path), value)]


def _apply(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {override!r} is not of the form a.b=value (--set run.steps=100)")
    place: Any = table
    for key in keys[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else _entry(place, key, override)
        if not isinstance(place, dict | list):
            raise RecipeError(f"override {override!r}: {key!r} is a value, not a table")
    if isinstance(place, dict):
        place[keys[-1]] = _toml_value(text.strip())
    else:
        _entry(place, keys[-1], override)
        place[int(keys[-1])] = _toml_value(text.strip())


def _entry(entries: list[Any], key: str, override: str) -> Any:
    if not key.isdigit() or int(key) >= len(entries):
        raise RecipeError(
            f"override {override!r}: {key!r} is no place in a list of {len(entries)}; they count from 0"
        )
    return entries[int(key)]


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors():
        # The discriminator's value, which the user never wrote as a table, comes first.
        parts = [str(part) for part in problem["loc"]]
        place = ".".join(parts[1:] if parts[:1] and parts[0] in _KINDS else parts) or "recipe"
        message = _one_line(problem["msg"].removeprefix("Value error, "))
        problems.append(f"{place}: " + ("unknown key" if problem["type"] == "extra_forbidden" else message))
    return problems


def _one_line(text: str) -> str:
    return " ".join(text.split())
