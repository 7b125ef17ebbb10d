"""Where a run's weights are: in the package, in a folder or in object storage, behind one `WeightReader`."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from model.weights import LocalWeights, WeightReader, WeightsMismatch
from pipeline.errors import WeightsError
from pipeline.store import StorageSettings, StoreWeights, open_store

BUILTIN = "builtin"


def open_weights(weights: str, storage: StorageSettings) -> WeightReader:
    """`builtin`, a folder or an address. WeightsError if a folder is not there; an address is not looked at yet."""
    if weights != BUILTIN and "://" in weights:
        return StoreWeights(open_store(weights, storage))
    folder = Path(str(files("model.foal") / "weights")) if weights == BUILTIN else Path(weights).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"weights: {folder} is not there, expected a folder with base/, codec/ and text/")
    return LocalWeights(folder)


@contextmanager
def weights_errors(weights: str) -> Iterator[None]:
    """What a loader raises for files that do not fit, as a WeightsError."""
    try:
        yield
    except WeightsMismatch as error:
        raise WeightsError(f"weights {weights}: {error}") from error
