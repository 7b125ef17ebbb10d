"""`happyhorse manifest SOURCE TARGET`: between Parquet and CSV, JSON Lines or JSON. Exit 0 written, 2 not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.typed import build
from model.config import ModelConfig
from model.text import build_token_counter
from pipeline.convert.conversion import Conversion, Format, convert
from pipeline.counting import counted
from pipeline.inputs.access import InputAccess
from pipeline.store import StorageSettings
from pipeline.weights.opening import BUILTIN, open_weights, weights_errors

UNCOUNTED = "none"


@dataclass(frozen=True, kw_only=True)
class ManifestSettings:
    source: str
    target: str
    source_format: Format | None
    target_format: Format | None
    model: ModelConfig
    storage: StorageSettings
    weights: str
    images: InputAccess
    check: bool
    findings: str | None


def manifest(values: Mapping[str, Any]) -> int:
    settings = build(ManifestSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    conversion = Conversion(
        source=settings.source,
        target=settings.target,
        source_format=settings.source_format,
        target_format=settings.target_format,
        storage=settings.storage,
        model=settings.model,
        access=settings.images,
        findings=settings.findings,
        count_tokens=_token_counter(settings) if settings.check else None,
    )
    num_rows = convert(conversion)
    print(
        f"{settings.target}: {counted(num_rows, 'row')}"
        + (f", checked for model {settings.model.name}" * settings.check)
    )
    if settings.check and _is_uncounted(settings):
        print(f"tokens were not counted: weights=PLACE with {settings.model.name}'s tokenizer counts them")
    return 0


def _is_uncounted(settings: ManifestSettings) -> bool:
    """Whether there is no tokenizer: none is wanted, or those in the package are another model's."""
    return settings.weights == UNCOUNTED or (settings.weights == BUILTIN and settings.model.codecs.text != "foal")


def _token_counter(settings: ManifestSettings) -> Callable[[str], int]:
    if _is_uncounted(settings):
        return lambda text: 0
    with weights_errors(settings.weights):
        return build_token_counter(settings.model, open_weights(settings.weights, settings.storage))
