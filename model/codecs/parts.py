"""What the parts around the Transformers are called below the weights root, and whether those a model needs are there.

turbo_vae/     one .json and one .ckpt, as released with the model
wan_vae/       config.json, diffusion_pytorch_model.safetensors, as in Wan2.2-TI2V-5B-Diffusers/vae
audio_vae/     files of the same names, as in stable-audio-open-1.0/vae
text_encoder/  config.json, model.safetensors or its shards, tokenizer.json, as in t5gemma-9b-9b-ul2

Looks at names, headers and small files; imports none of the libraries.
"""

import json
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, TypeVar

from model.config import Codecs, ModelConfig
from model.weights import WeightReader, WeightsMismatch, read_index

Built = TypeVar("Built")
TURBO, WAN, AUDIO, TEXT = "turbo_vae", "wan_vae", "audio_vae", "text_encoder"
EXTRA = "released"  # of pyproject.toml
_CONFIG = ("config.json", r"config\.json")
_VAE = (_CONFIG, ("diffusion_pytorch_model.safetensors", r"diffusion_pytorch_model\.safetensors(\.index\.json)?"))
REFUSALS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)
NEEDED: Mapping[str, tuple[tuple[str, str], ...]] = {  # part -> (what it is called in a message, pattern of its name)
    TURBO: (("a .json", r"[^/]+\.json"), ("a .ckpt", r"[^/]+\.ckpt")),
    WAN: _VAE,
    AUDIO: _VAE,
    TEXT: (
        _CONFIG,
        ("model.safetensors", r"model\.safetensors(\.index\.json)?"),
        ("tokenizer.json", r"tokenizer\.json"),
    ),
}


class MissingPackages(Exception):
    """The model's codecs or text encoder need libraries that are not installed; the message says how to get them."""


def needed_parts(codecs: Codecs) -> tuple[str, ...]:
    """The foal's are not among them: they are checked where they are read."""
    parts = {"turbo": (TURBO, WAN), "wan": (WAN,), "foal": ()}[codecs.video]
    return (*parts, *((AUDIO,) if codecs.audio == "oobleck" else ()), *((TEXT,) if codecs.text == "t5gemma" else ()))


def check_packages(model: ModelConfig) -> None:
    """Raises MissingPackages. Nothing is imported: that would take seconds."""
    parts = needed_parts(model.codecs)
    wanted = [*(["diffusers"] if {WAN, AUDIO} & {*parts} else []), *(["transformers"] if TEXT in parts else [])]
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise MissingPackages(
            f"model {model.name} needs {' and '.join(missing)}, not installed here: pip install 'happyhorse[{EXTRA}]'"
        )


def check_part(reader: WeightReader, *, part: str) -> None:
    """Raises WeightsMismatch that names all missing files at once, or a damaged one. Reads headers alone."""
    names = reader.names()
    missing = [what for what, pattern in NEEDED[part] if not _named(names, part, pattern)]
    if missing:
        raise WeightsMismatch(f"{part}/ lacks {', '.join(missing)}")
    if part != TURBO:
        read_index(reader, part)


def only_file(reader: WeightReader, part: str, suffix: str) -> str:
    """The one file of a part that ends so, whatever it is called. WeightsMismatch if there are none or several."""
    found = _named(reader.names(), part, r"[^/]+" + re.escape(suffix))
    if len(found) != 1:
        raise WeightsMismatch(f"{part}/ holds {', '.join(found) or f'no {suffix}'}, expected one {suffix}")
    return found[0]


def read_json(reader: WeightReader, name: str) -> dict[str, Any]:
    try:
        values = json.loads(reader.read(name, 0, reader.size_bytes(name)))
    except (ValueError, RecursionError) as error:
        raise WeightsMismatch(f"{name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise WeightsMismatch(f"{name} holds no table")
    return values


def built_from(name: str, make: Callable[[], Built], *, refusals: tuple[type[Exception], ...] = ()) -> Built:
    """What `make` builds from the config `name`. WeightsMismatch for values that it cannot be built from.

    `refusals`: what a library raises besides Python's and torch's own.
    """
    try:
        return make()
    except WeightsMismatch:
        raise
    except (*REFUSALS, *refusals) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsMismatch(f"{name}: nothing can be built from it: {reason}") from error


def _named(names: list[str], part: str, pattern: str) -> list[str]:
    return [name for name in names if re.fullmatch(f"{part}/{pattern}", name)]
