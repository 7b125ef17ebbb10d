"""Outputs as runs leave them, made without Ray: real files, the real upload, the real recorder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.audit.auditing import AuditReport, audit_output
from pipeline.audit.rows import RowSettings, read_rows
from pipeline.inputs.access import InputAccess
from pipeline.ledger import Ledger, record_key
from pipeline.manifest.reading import Manifest
from pipeline.media import probe_mp4
from pipeline.plan import make_plan
from pipeline.publication import upload
from pipeline.recording import RunRecorder
from pipeline.results import RunFacts
from pipeline.store import Store
from pipeline.types import Clip, Finished, JsonDict
from tests.clips import MEDIA
from tests.frames import encode, flat, tone
from tests.leases import lease_of
from tests.manifests import read, write
from tests.models import small_model

ROWS: dict[str, list[Any]] = {
    "clip_id": ["a", "b", "c", "d"],
    "prompt": ["a red ball", "a blue ball", "a white ball", "a black ball"],
    "audio": [True, True, False, True],
    "seed": [1, 2, 3, 4],
}
MODEL_HASH = "m" * 16
SECONDS = {"render": 1.0}
Media = Mapping[str, Mapping[str, Path]]  # clip id -> kind -> a file


def make_media(folder: Path) -> Media:
    """Of each clip of ROWS: a colour and a tone of its own."""
    return {
        clip_id: make_files(folder, clip_id, number=number, audio=audio)
        for number, (clip_id, audio) in enumerate(zip(ROWS["clip_id"], ROWS["audio"], strict=True))
    }


def make_files(folder: Path, stem: str, *, number: int, audio: bool = True) -> dict[str, Path]:
    (clip,) = read(write(folder, {"prompt": ["any"]})).clips
    frames = flat(clip.shape, (60 * number, 200 - 40 * number, 90))
    sound = tone(clip.shape, hz=300.0 + 100 * number) if audio else None
    return encode(folder, frames, stem=stem, shape=clip.shape, waveform=sound)


class Run:
    """One over an output; nobody else is at work there."""

    def __init__(self, store: Store, manifest: Path, *, run_id: str = "run", media: Media, folder: Path) -> None:
        self.store, self.media, self.folder = store, media, folder
        self.manifest: Manifest = read(manifest)
        ledger = Ledger(store)
        self.lease = lease_of(store)
        self.recorder = RunRecorder(
            store,
            manifest=self.manifest,
            plan=make_plan(self.manifest.index, ledger.done_keys()),
            facts=facts(store, manifest, run_id=run_id),
            media=MEDIA,
            lease=self.lease,
        )
        self.recorder.begin()

    def upload(self, clip: Clip, *, attempt: str | None = None) -> Finished:
        attempt = attempt or f"{clip.row:08x}"
        named = {}
        for kind, path in self.media[clip.clip_id].items():
            named[kind] = self.folder / f"{clip.clip_id}.{attempt}.{kind}"
            named[kind].write_bytes(path.read_bytes())
        files = upload(self.store, named)
        return Finished(attempt=attempt, files=files, probe=probe_mp4(named["mp4"]), seconds=SECONDS)

    def record(self, clip: Clip, finished: Finished) -> None:
        self.recorder.record(clip, finished=finished, num_attempts=1, seconds=SECONDS)

    def finish(self, clips: Sequence[Clip]) -> None:
        for clip in clips:
            self.record(clip, self.upload(clip))

    def close(self) -> None:
        self.recorder.close()
        self.lease.release()


@dataclass(frozen=True)
class Output:
    store: Store
    manifest: Path
    media: Media
    folder: Path  # for scratch files

    def audit(self, *, rows: bool = True) -> AuditReport:
        read = read_rows(row_settings(self.manifest), self.store.settings) if rows else None
        return audit_output(self.store, rows=read)

    def findings(self) -> list[str]:
        return [str(finding) for finding in self.audit().findings.kept]


def finish_output(store: Store, media: Media, folder: Path) -> Path:
    """A whole run; its manifest and its scratch files are in `folder`."""
    manifest = write(folder, ROWS)
    run = Run(store, manifest, media=media, folder=folder)
    run.finish(run.recorder.manifest.load(run.recorder.plan.to_render))
    run.close()
    return manifest


def facts(store: Store, manifest: Path, *, run_id: str) -> RunFacts:
    """As `render` writes them: what decides a row's record is among the settings."""
    settings = {
        "manifest": str(manifest),
        "weights": "builtin",
        "model": asdict(small_model()),
        "media": asdict(MEDIA),
        "images": asdict(InputAccess()),
        "truncate_text": False,
        "cluster": {"address": None},
    }
    return RunFacts(
        run_id=run_id,
        manifest=str(manifest),
        output=store.uri,
        model="small",
        model_hash=MODEL_HASH,
        started_at=datetime.now(UTC),
        ended_at=None,
        settings=settings,
        versions={},
    )


def row_settings(manifest: Path) -> RowSettings:
    return RowSettings(
        manifest=str(manifest),
        weights="builtin",
        model=small_model(),
        model_hash=MODEL_HASH,
        media=MEDIA,
        truncate_text=False,
    )


def key_of(store: Store, clip_id: str) -> str:
    """Of a clip's only record."""
    (key,) = [
        key for key in Ledger(store).record_keys() if key.startswith(record_key(clip_id, "").removesuffix(".json"))
    ]
    return key


def read_values(store: Store, clip_id: str) -> JsonDict:
    values: JsonDict = json.loads(store.get(key_of(store, clip_id)))
    return values
