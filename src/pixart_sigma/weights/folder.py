"""Where a model's parts are: in the package, in a folder, in a file, or on the Hub.

Knows nothing of tensors, so that a wrong path is found before anything heavy is imported.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.weights.catalogue import Family, Release, find_release, releases
from pixart_sigma.weights.hub import MODEL_INDEX, cached, fetch, is_hub_id

POCKET = "pocket"
TEXT_PARTS = ("text_encoder", "tokenizer")
COMPONENTS = ("transformer", "text_encoder", "tokenizer", "vae", "scheduler")
# A vocabulary and the encoder that was trained on it: never from two models.
INSEPARABLE = (("transformer",), TEXT_PARTS, ("vae",), ("scheduler",))
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")
PIPELINE_CLASSES: Mapping[str, Family] = {"PixArtAlphaPipeline": "alpha", "PixArtSigmaPipeline": "sigma"}
CAPTION_LENGTH_KEY = "_caption_length"
"""Ours in model_index.json, where captions have another length than the family's; diffusers skips what begins so."""
# peft's names.
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True)
class PipelineFolders:
    """Which folder in diffusers' pipeline layout holds each part.

    name: "pocket", "sigma-512", a Hub id, or the folder's or file's own name. folders: a part → the pipeline folder
    that contains folder/part. release: what the catalogue says of the model, or None. bare_transformer: the
    transformer where it is in no pipeline folder, but a file or a folder of its own. components: the name of whoever
    lent parts, and revision: the one that was asked for, or None.
    """

    name: str
    folders: Mapping[str, Path]
    release: Release | None = None
    bare_transformer: Path | None = None
    components: str | None = None
    revision: str | None = None

    def __getitem__(self, part: str) -> Path:
        """The pipeline folder with that part. Raises WeightsError if none has it."""
        if part in self.folders:
            return self.folders[part]
        if part == "transformer" and self.bare_transformer is not None:
            raise WeightsError(
                f"{self.bare_transformer} is in no pipeline folder; convert it with --to diffusers"
            )
        raise WeightsError(f"model {self.name} has no {part}; {_REMEDY}")

    @property
    def transformer(self) -> Path:
        """The transformer's own folder or file, for `load_transformer`."""
        return self.bare_transformer or self["transformer"] / "transformer"

    @property
    def parts(self) -> frozenset[str]:
        """What is there."""
        bare = ("transformer",) if self.bare_transformer is not None else ()
        return frozenset((*self.folders, *bare))


_REMEDY = (
    f"give a folder in the diffusers pipeline layout ({', '.join(COMPONENTS)}), "
    "or name one that has them as components"
)


def find_pipeline(
    model: str | Path,
    components: str | Path | None = None,
    revision: str | None = None,
    parts: Collection[str] = COMPONENTS,
) -> PipelineFolders:
    """A model → the folders of its parts; those wanted are there, fetched if need be.

    model: "pocket", a name of the catalogue, a Hub id, a pipeline's folder, a transformer's folder, or a file
    (official .pth, or .safetensors). components: the same kinds; it supplies the parts that the model lacks. Without
    it a released model borrows them where its catalogue entry says. revision: of the model's Hub repository. parts:
    those wanted; others are in the result if they happen to be there.

    Raises InvalidInput for an unknown model, and for components where the model lacks nothing; WeightsError for parts
    that are nowhere.
    """
    own = _locate(model, revision, parts)
    sources = [own]
    missing = [part for part in COMPONENTS if part in parts and part not in own.parts]
    if components is not None and own.parts.issuperset(COMPONENTS):
        raise InvalidInput(f"model {model} has all its parts; leave out its components {components}")
    lender = components
    if lender is None and missing and own.release is not None:
        lender = own.release.components
    if lender is not None:
        sources.append(_locate(lender, None, _with_fellows(missing)))
    folders, bare = _choose(sources, parts)
    chosen = {*folders, *(("transformer",) if bare is not None else ())}
    lacking = [part for part in parts if part not in chosen]
    if lacking:
        # Of a pair that nobody has whole, name the one to look for.
        nowhere = [part for part in lacking if part in missing] or lacking
        source = f"{model} and its components {lender}" if lender is not None else f"{model}"
        kind = "model folder" if Path(model).is_dir() else "model"
        raise WeightsError(f"{kind} {source} lacks {', '.join(nowhere)}; {_REMEDY}")
    lent = sources[-1].name if lender is not None else None
    return PipelineFolders(own.name, MappingProxyType(folders), own.release, bare, lent, revision)


def _with_fellows(parts: Collection[str]) -> list[str]:
    """The parts, and those that come from the same place."""
    return [part for unit in INSEPARABLE if set(unit) & set(parts) for part in unit]


def _choose(sources: list[PipelineFolders], parts: Collection[str]) -> tuple[dict[str, Path], Path | None]:
    """Each unit from the first source that has what is wanted of it → (part → folder, bare transformer or None)."""
    folders: dict[str, Path] = {}
    bare: Path | None = None
    for unit in INSEPARABLE:
        needed = {part for part in unit if part in parts} or set(unit)
        source = next((source for source in sources if needed <= source.parts), None)
        if source is None:
            continue
        folders |= {part: source.folders[part] for part in unit if part in source.folders}
        if "transformer" in unit:
            bare = source.bare_transformer
    return folders, bare


def _locate(model: str | Path, revision: str | None, parts: Collection[str]) -> PipelineFolders:
    """What one place has of the parts; from the Hub only the parts that are asked for."""
    text = str(model)
    release = find_release(text)
    if text == POCKET:
        folder = Path(str(files("pixart_sigma").joinpath(POCKET)))
        if not folder.is_dir():
            raise WeightsError(
                f"the pocket model is not in this installation ({folder}); reinstall pixart-sigma"
            )
        found = PipelineFolders(POCKET, _parts_in(folder))
    elif text in releases() and release is not None:
        return _on_the_hub(release.repository, release.name, release, revision, parts)
    elif Path(model).is_dir():
        found = _in_folder(Path(model), release)
    elif Path(model).is_file():
        found = _in_file(Path(model), release)
    elif is_hub_id(text):
        # A copy of a released repository is taken for the release, but goes by its own name.
        name = release.name if release is not None and text == release.repository else text
        return _on_the_hub(text, name, release, revision, parts)
    else:
        raise InvalidInput(
            f"unknown model {text!r}: neither 'pocket', nor a folder or file, nor a released model "
            f"({', '.join(releases())}), nor a Hub id (owner/name); give one of these"
        )
    if revision is not None:
        raise InvalidInput(f"revision {revision!r} belongs to Hub repositories; {text} is none: leave it out")
    return found


def _parts_in(folder: Path) -> Mapping[str, Path]:
    return MappingProxyType({part: folder for part in COMPONENTS if (folder / part).is_dir()})


def _in_folder(folder: Path, release: Release | None) -> PipelineFolders:
    name = folder.resolve().name
    held = _parts_in(folder)
    if not held and ((folder / "config.json").exists() or any(folder.glob("*.safetensors"))):
        return PipelineFolders(name, held, release, bare_transformer=folder)
    return PipelineFolders(name, held, release)


def _in_file(file: Path, release: Release | None) -> PipelineFolders:
    if file.suffix not in WEIGHT_SUFFIXES:
        raise InvalidInput(
            f"model file {file} is none of {', '.join(WEIGHT_SUFFIXES)}; give one of these, or a folder"
        )
    return PipelineFolders(file.stem, MappingProxyType({}), release, bare_transformer=file)


def _on_the_hub(
    repository: str, name: str, release: Release | None, revision: str | None, parts: Collection[str]
) -> PipelineFolders:
    """Nothing is asked of the Hub if no part is."""
    folder = fetch(repository, parts, revision) if parts else cached(repository, revision)
    return PipelineFolders(name, _parts_in(folder) if folder is not None else MappingProxyType({}), release)


def caption_length(folders: PipelineFolders) -> int:
    """Caption tokens that the model was trained with: its release's, else what its pipeline's folder says, else 120
    for an α pipeline's folder and 300 for any other. Raises WeightsError for what is no length.
    """
    if folders.release is not None:
        return folders.release.caption_length
    for part in ("transformer", "text_encoder"):
        index = folders.folders[part] / MODEL_INDEX if part in folders.folders else None
        if index is not None and index.is_file():
            content = read_json(index)
            if CAPTION_LENGTH_KEY in content:
                return _positive(content, CAPTION_LENGTH_KEY, index)
            return family_caption_length(PIPELINE_CLASSES.get(str(content.get("_class_name")), "sigma"))
    return family_caption_length("sigma")


def caption_entries(caption_length: int, *, micro_conditioning: bool) -> dict[str, Any]:
    """What model_index.json says of captions, for `caption_length` to read back: the class, and the length if it is
    not the class's. Micro-conditioning is what diffusers' α class alone computes.
    """
    alpha = micro_conditioning or caption_length == family_caption_length("alpha")
    family: Family = "alpha" if alpha else "sigma"
    name = next(name for name, of in PIPELINE_CLASSES.items() if of == family)
    if caption_length == family_caption_length(family):
        return {"_class_name": name}
    return {"_class_name": name, CAPTION_LENGTH_KEY: caption_length}


def family_caption_length(family: Family) -> int:
    """Caption tokens of the released models of a family."""
    return next(release.caption_length for release in releases().values() if release.family == family)


def find_lora(path: str | Path) -> Path:
    """A LoRA's .safetensors file, or peft's folder → the file. Raises InvalidInput if there is none."""
    path = Path(path)
    file = path / ADAPTER_FILE if path.is_dir() else path
    if not file.is_file():
        raise InvalidInput(
            f"LoRA {file} does not exist; give a .safetensors file, or a folder with {ADAPTER_FILE}"
        )
    if file.suffix != ".safetensors":
        raise InvalidInput(
            f"LoRA {file} is not a .safetensors file (pickled weights are never read); convert it"
        )
    return file


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises WeightsError if there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); fetch or export it again") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error}); fetch or export it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object; fetch or export it again")
    return content


def base_resolution(folders: PipelineFolders) -> int:
    """The side in pixels of the square that the pipeline's transformer was trained on."""
    if folders.transformer.is_file():
        from pixart_sigma.weights.checkpoint import read_config  # opens the file: torch is needed

        return read_config(folders.transformer).sample_size * LATENT_SCALE
    path = folders.transformer / "config.json"
    return _positive(read_json(path), "sample_size", path) * LATENT_SCALE


def text_encoder_width(folders: PipelineFolders) -> int:
    """Channels of the text encoder's embeddings, as its config.json says."""
    path = folders["text_encoder"] / "text_encoder" / "config.json"
    return _positive(read_json(path), "d_model", path)


def scheduler_config(folders: PipelineFolders) -> dict[str, Any]:
    """What its scheduler_config.json says. Raises WeightsError if there is none."""
    return read_json(folders["scheduler"] / "scheduler" / "scheduler_config.json")


def _positive(content: Mapping[str, Any], key: str, path: Path) -> int:
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WeightsError(f"{path} has {key} {value!r}, not a positive integer; fetch or export it again")
    return value
