"""What is done: one record per finished clip, named by the hash of everything that decides its pixels and samples.

Records are written last, once, and never changed; readers trust nothing else. Failures may be replaced.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from model.config import Codecs, ModelConfig
from pipeline.errors import StoreError
from pipeline.keyset import KeySet
from pipeline.manifest.ids import SAFE_ID, SAFE_ID_WORDS
from pipeline.side_by_side import side_by_side
from pipeline.store import Store, key_problem
from pipeline.types import Clip, ClipFailure, Finished, JsonDict, MediaFile, MediaSettings, Probe

RECORDS = "records"
FAILED = "failed"
SAID_BY_ROWS = (  # fields of a model's config that decide a clip only through the clip's own values
    "sizes",
    "default_resolution",
    "default_ratio",
    "default_duration_s",
    "durations_s",
    "text_max_tokens",
)
HASH_DIGITS = 16
NAMES = ("clip_id", "settings_hash", "attempt")  # parts of keys
KINDS_OF_VALUES: dict[str, type] = {
    **dict.fromkeys((*NAMES, "model", "model_hash"), str),
    **dict.fromkeys(("seed", "num_attempts"), int),
    **dict.fromkeys(("seconds", "settings", "row", "files", "probe"), dict),
}
KINDS_OF_FILE_VALUES: dict[str, type] = {"name": str, "size_bytes": int, "sha256": str}
NUM_READERS = 16  # records are small: reading them is waiting


class NotARecord(StoreError):
    """Something lies where a record should, and is none."""


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Everything a reader may want to know about one finished clip, without opening its files."""

    clip_id: str
    settings_hash: str
    seed: int
    model: str
    model_hash: str
    finished: Finished
    num_attempts: int  # 1: the first one succeeded
    seconds: Mapping[str, float]  # by stage
    settings: JsonDict  # what the hash was made of: `deciding_values`
    row: JsonDict  # of the manifest, complete, JSON-safe
    truncated: tuple[str, ...] = ()  # texts that were cut to what the model can read (text.truncate=true)

    @property
    def key(self) -> str:
        return record_key(self.clip_id, self.settings_hash)


def deciding_values(clip: Clip, *, model_hash: str, media: MediaSettings) -> JsonDict:
    """All that decides a clip's files. Not priority, position, parallel layout, retry or storage settings."""
    given = {} if clip.audio_in is None else {"audio_in_sha256": clip.audio_in.identity}
    return {
        "format": 1,
        "prompt": clip.prompt,
        "negative_prompt": clip.negative_prompt,
        "image_sha256": clip.image.identity if clip.image else None,  # in object storage not its digest
        "audio": clip.audio,
        **given,  # a clip without one is named as before there were any
        "resolution": clip.resolution,
        "ratio": clip.ratio,
        "duration_s": clip.duration_s,
        "shape": {name: value for name, value in _plain(clip.shape).items() if value is not None},
        "seed": clip.seed,
        "steps": clip.steps,
        "guidance": clip.guidance,
        "model_hash": model_hash,
        "media": asdict(media),
    }


def settings_hash(clip: Clip, *, model_hash: str, media: MediaSettings) -> str:
    return values_hash(deciding_values(clip, model_hash=model_hash, media=media))


def values_hash(values: JsonDict) -> str:
    """Of what `deciding_values` gives; of a record's `settings` it is the record's own hash."""
    return _digest(values)


def model_hash(model: ModelConfig, weights_digest: str) -> str:
    """Of all that a row cannot say itself: defaults, limits and the size table reach a clip as values of its own."""
    config = {name: value for name, value in _plain(model).items() if name not in SAID_BY_ROWS}
    # These came later: what was done before them stays done.
    if model.codecs.band_rows == Codecs.band_rows:
        del config["codecs"]["band_rows"]
    for name in ("compiled", "fp8"):
        if not config[name]:
            del config[name]
    config["sampling"] = {k: v for k, v in config["sampling"].items() if k not in ("steps", "negative_prompt")}
    return _digest({"config": config, "weights": weights_digest})


def record_key(clip_id: str, settings_hash: str) -> str:
    return f"{RECORDS}/{clip_id}.{settings_hash}.json"


def failed_key(clip_id: str, settings_hash: str) -> str:
    return f"{FAILED}/{clip_id}.{settings_hash}.json"


class Ledger:
    """The records and failures below one output. One committer at a time is assumed; a second one is noticed."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def record_keys(self) -> Iterator[str]:
        """Of all records, from one listing, in no order."""
        return _json_keys(self.store, RECORDS)

    def done_keys(self) -> KeySet:
        """The same, to compare with `record_key`: little memory, whatever their number."""
        return KeySet(self.record_keys())

    def failure_keys(self) -> Iterator[str]:
        """Of all clips that gave up in some run, from one listing, in no order."""
        return _json_keys(self.store, FAILED)

    def failed_keys(self) -> KeySet:
        """The same, to compare with `failed_key`."""
        return KeySet(self.failure_keys())

    def record(self, record: ClipRecord) -> bool:
        """Makes the clip done. False: another attempt's record stands already, and this attempt's files are orphans.

        "Already there" may be our own write whose answer was lost, so the standing record's attempt decides.
        """
        written = self.store.put(record.key, _to_json(_record_values(record)), create=True)
        if written or self.read_record(record.key).finished.attempt == record.finished.attempt:
            self.store.delete(failed_key(record.clip_id, record.settings_hash))
            return True
        return False

    def fail(self, clip_id: str, *, settings_hash: str, failures: Sequence[ClipFailure], row: JsonDict) -> None:
        """Writes down why a clip was given up; the next run tries again unless it is told not to."""
        reasons = [asdict(failure) for failure in failures]
        values = {"clip_id": clip_id, "settings_hash": settings_hash, "row": row, "failures": reasons}
        self.store.put(failed_key(clip_id, settings_hash), _to_json(values))

    def read_record(self, key: str) -> ClipRecord:
        """StoreError if it is not there; NotARecord, which is one, if it is not one of ours."""
        data = self.store.get(key)
        try:
            values = json.loads(data)
            if b"\\ud" in data.lower():  # half a sign, perhaps, which nobody could print
                json.dumps(values, ensure_ascii=False).encode()
            return _parse_record(values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{self.store.where(key)} is not a record: {type(error).__name__} {error}"
            raise NotARecord(f"{reason}. Delete it and run again: its clip is then rendered again") from error

    def read_records(self, keys: Iterable[str]) -> Iterator[ClipRecord]:
        """Many records in the order of their keys, read side by side; few are held at once."""
        return side_by_side(self.read_record, keys, threads=NUM_READERS)


def _json_keys(store: Store, folder: str) -> Iterator[str]:
    return (each.key for each in store.list(folder) if each.key.endswith(".json"))


def _record_values(record: ClipRecord) -> JsonDict:
    values = {name: value for name, value in _plain(record).items() if name != "finished"}
    finished = _plain(record.finished)
    return {**values, "attempt": finished["attempt"], "files": finished["files"], "probe": finished["probe"]}


def _parse_record(values: JsonDict) -> ClipRecord:
    """ValueError, KeyError or TypeError for what nobody who reads records could do with."""
    for name, kind in KINDS_OF_VALUES.items():
        _check_kind(name, values[name], kind)
    finished = Finished(
        attempt=values["attempt"],
        files={kind: MediaFile(**file) for kind, file in values["files"].items()},
        probe=Probe(**values["probe"]),
        seconds=values["seconds"],
    )
    for file in finished.files.values():
        for name, kind in KINDS_OF_FILE_VALUES.items():
            _check_kind(name, getattr(file, name), kind)
        if key_problem(file.name):
            raise ValueError(f"{file.name!r} is no name of a file: {key_problem(file.name)}")
    own = {each.name: values[each.name] for each in fields(ClipRecord) if each.name not in ("finished", "truncated")}
    return ClipRecord(finished=finished, truncated=tuple(values.get("truncated", ())), **own)


def _check_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected {kind.__name__}")
    if name in NAMES and not SAFE_ID.fullmatch(str(value)):
        raise ValueError(f"{name} is {value!r}, expected {SAFE_ID_WORDS}")


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as JSON's own types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _whole(value: Any) -> Any:
    """The same tree with 5.0 as 5, so that a setting's spelling does not change a hash."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def canonical_json(values: Any) -> str:
    """The text that hashes are made of: equal settings are equal texts."""
    return json.dumps(_whole(_plain(values)), sort_keys=True, ensure_ascii=True, allow_nan=False)


def _digest(values: Any) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:HASH_DIGITS]


def _to_json(values: JsonDict) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
