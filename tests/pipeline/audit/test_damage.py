"""The audit itself is proved: whatever is done to a finished output is found, and the clip or file is named."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import pytest

from pipeline.store import Store
from pipeline.types import JsonDict
from tests.outputs import Output, key_of, read_values

SHA = r"sha256 [0-9a-f]{64}"


def file_of(output: Output, clip_id: str, kind: str) -> str:
    return str(read_values(output.store, clip_id)["files"][kind]["name"])


def flip(store: Store, key: str, *, at: float = 0.5) -> None:
    content = bytearray(store.get(key))
    content[int(at * (len(content) - 1))] ^= 1
    store.put(key, bytes(content))


def swap(store: Store, one: str, other: str) -> None:
    content = store.get(one)
    store.put(one, store.get(other))
    store.put(other, content)


def edit(output: Output, clip_id: str, change: Callable[[JsonDict], object], *, key: str | None = None) -> None:
    """Changes a record behind the ledger's back, or writes what it is changed to elsewhere."""
    values = read_values(output.store, clip_id)
    change(values)
    output.store.put(key or key_of(output.store, clip_id), json.dumps(values).encode())


def remux(video: Path, audio: Path, target: Path) -> Path:
    """The pictures of one file with the sound of another, not a bit encoded anew."""
    with av.open(str(video)) as first, av.open(str(audio)) as second, av.open(str(target), "w") as out:
        sources = (first.streams.video[0], second.streams.audio[0])
        streams = [out.add_stream_from_template(each) for each in sources]
        for container, source, stream in zip((first, second), sources, streams, strict=True):
            for packet in container.demux(source):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    return target


def swap_tracks(output: Output) -> None:
    a, b = (output.media[clip_id]["mp4"] for clip_id in "ab")
    for clip_id, video, audio in (("a", a, b), ("b", b, a)):
        mixed = remux(video, audio, output.folder / f"{clip_id}.mixed.mp4")
        output.store.put(file_of(output, clip_id, "mp4"), mixed.read_bytes())


def put_consistently(output: Output, clip_id: str, kind: str, content: bytes) -> None:
    """Other content, with the record changed to fit it: only whoever looks inside can see it."""
    output.store.put(file_of(output, clip_id, kind), content)
    facts = {"size_bytes": len(content), "sha256": sha256(content).hexdigest()}
    edit(output, clip_id, lambda values: values["files"][kind].update(facts))


def wav_of(output: Output, seconds: int) -> bytes:
    path = output.folder / "other.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=24000)
        for number in range(seconds):
            frame = av.AudioFrame(format="s16", layout="mono", samples=24000)
            frame.sample_rate, frame.pts, frame.time_base = 24000, number * 24000, Fraction(1, 24000)
            frame.planes[0].update(bytes(48000))
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path.read_bytes()


def point_elsewhere(output: Output) -> None:
    """At b's sound, of which size and digest are right."""
    theirs = read_values(output.store, "b")["files"]["wav"]
    edit(output, "a", lambda values: values["files"].update(wav=theirs))


def copy_record(output: Output, clip_id: str, key: str) -> None:
    output.store.put(key, output.store.get(key_of(output.store, clip_id)))


def under_another_hash(output: Output) -> None:
    edit(output, "a", lambda values: values.update(settings_hash="f" * 16), key=f"records/a.{'f' * 16}.json")


def other_attempt(output: Output) -> None:
    """A record that came in the place of the one that results were written by, with files of its own."""
    values = read_values(output.store, "a")
    for kind, file in values["files"].items():
        name = f"clips/a.99999999.{kind}"
        output.store.put(name, output.store.get(file["name"]))
        file["name"] = name
    output.store.put(key_of(output.store, "a"), json.dumps(values | {"attempt": "99999999"}).encode())


def lose_results(output: Output) -> None:
    output.store.delete(key_of(output.store, "a"))
    output.store.delete("results.parquet")


A, B = r"records/a\.[0-9a-f]{16}\.json", r"records/b\.[0-9a-f]{16}\.json"
MP4, WAV, JPG = (rf"clips/a\.00000000\.{kind}" for kind in ("mp4", "wav", "jpg"))
B_MP4, B_WAV = (rf"clips/b\.00000001\.{kind}" for kind in ("mp4", "wav"))
DONE = r"the one by which results\.parquet says that clip a is done"

# What is done -> what is found, all of it.
DAMAGE: dict[str, tuple[Callable[[Output], object], list[str]]] = {
    "a bit of the video differs": (
        lambda o: flip(o.store, file_of(o, "a", "mp4")),
        [rf"{A}: {MP4}: got {SHA}, expected {SHA}"],
    ),
    "the last bit of the sound differs": (
        lambda o: flip(o.store, file_of(o, "a", "wav"), at=1),
        [rf"{A}: {WAV}: got {SHA}, expected {SHA}"],
    ),
    "a file is cut short": (
        lambda o: o.store.put(file_of(o, "a", "mp4"), o.store.get(file_of(o, "a", "mp4"))[:-1]),
        [rf"{A}: {MP4}: got \d+ bytes, expected \d+ bytes"],
    ),
    "a file is empty": (
        lambda o: o.store.put(file_of(o, "a", "jpg"), b""),
        [rf"{A}: {JPG}: got 0 bytes, expected \d+ bytes"],
    ),
    "a file is gone": (
        lambda o: o.store.delete(file_of(o, "a", "wav")),
        [rf"{A}: {WAV}: got no such file, expected \d+ bytes"],
    ),
    "a record is gone": (
        lambda o: o.store.delete(key_of(o.store, "a")),
        [rf"{A}: got no such record, expected {DONE}"],
    ),
    "results and a record are gone": (
        lose_results,
        [r"results\.parquet: got no such file, expected one, because _SUCCESS\.json is there"],
    ),
    "results are damaged": (
        lambda o: o.store.put("results.parquet", o.store.get("results.parquet")[:-100]),
        [r"results\.parquet: got .*, expected a Parquet file.*"],
    ),
    "a record lies there twice": (
        lambda o: copy_record(o, "a", "records/a.copy.json"),
        [rf"records/a\.copy\.json: got the record of {A}, expected its own name"],
    ),
    "a record lies there twice, under another hash": (
        under_another_hash,
        [r"records/a\.f{16}\.json: got settings that hash to [0-9a-f]{16}, expected f{16}"],
    ),
    "a record lies there in the place of another clip's": (
        lambda o: copy_record(o, "a", key_of(o.store, "b")),
        [rf"{B}: got the record of {A}, expected its own name"],
    ),
    "a record is damaged": (
        lambda o: o.store.put(key_of(o.store, "a"), b'{"attempt"'),
        [rf"{A}: got .* is not a record: .*, expected a record that can be read"],
    ),
    "a record is of another attempt than results say": (
        other_attempt,
        [rf"{A}: got another one, expected {DONE}, of attempt 00000000"],
    ),
    "the sound files of two clips are swapped": (
        lambda o: swap(o.store, file_of(o, "a", "wav"), file_of(o, "b", "wav")),
        [rf"{A}: {WAV}: got {SHA}, expected {SHA}", rf"{B}: {B_WAV}: got {SHA}, expected {SHA}"],
    ),
    "the sound tracks of two videos are swapped": (
        swap_tracks,
        [rf"{A}: {MP4}: got .*, expected .*", rf"{B}: {B_MP4}: got .*, expected .*"],
    ),
    "a record names another clip's sound": (
        point_elsewhere,
        [rf"{A}: {B_WAV}: got a file that is not its own, expected {WAV}"],
    ),
    "a record names no mp4": (
        lambda o: edit(o, "a", lambda values: values["files"].pop("mp4")),
        [rf"{A}: got no mp4, expected one"],
    ),
    "a record has sound but names no wav": (
        lambda o: edit(o, "a", lambda values: values["files"].pop("wav")),
        [rf"{A}: got no wav, expected one"],
    ),
    "a record says another seed than its settings": (
        lambda o: edit(o, "a", lambda values: values.update(seed=99)),
        [rf"{A}: got seed 99, expected 1 as in its settings"],
    ),
    "a record's settings are changed": (
        lambda o: edit(o, "a", lambda values: values["settings"].update(prompt="a green ball")),
        [
            rf"{A}: got settings that hash to [0-9a-f]{{16}}, expected [0-9a-f]{{16}}",
            rf"{A}: got a row whose prompt is 'a red ball', expected 'a green ball'",
        ],
    ),
    "a record has another clip's row": (
        lambda o: edit(o, "a", lambda values: values.update(row=read_values(o.store, "b")["row"])),
        [
            rf"{A}: got a row whose clip_id is 'b', expected 'a'",
            rf"{A}: got a row whose prompt is 'a blue ball', expected 'a red ball'",
        ],
    ),
    "a record's settings hold what is no number": (
        lambda o: edit(o, "a", lambda values: values["settings"].update(guidance=float("nan"))),
        [rf"{A}: got settings that hash to nothing \(.*\), expected [0-9a-f]{{16}}"],
    ),
    "a record's clip is named as a folder": (
        lambda o: edit(o, "a", lambda values: values.update(clip_id="../a")),
        [rf"{A}: got .* is not a record: ValueError clip_id is '\.\./a', .*, expected a record that can be read"],
    ),
    "a video cannot be read, and its digest is right": (
        lambda o: put_consistently(o, "a", "mp4", b"no video " * 99),
        [rf"{A}: {MP4}: got a\.mp4 cannot be read back: .*, expected a whole mp4 of its clip"],
    ),
    "a video is another than was probed, and its digest is right": (
        lambda o: put_consistently(o, "a", "mp4", o.media["c"]["mp4"].read_bytes()),  # without sound
        [
            rf"{A}: {MP4}: got Probe\(.*audio_duration_s=None.*\), expected what was seen before it was uploaded, .*",
            rf"{A}: {MP4}: got the encoded file is not what was asked for: sample rate None.*, expected a whole mp4.*",
        ],
    ),
    "a sound is too short, and its digest is right": (
        lambda o: put_consistently(o, "a", "wav", wav_of(o, 2)),
        [rf"{A}: {WAV}: got 48000 samples at 24000 Hz, expected 72000 at 24000 Hz"],
    ),
    "a poster is half there, and its digest is right": (
        lambda o: put_consistently(o, "a", "jpg", o.media["a"]["jpg"].read_bytes()[:40]),
        [rf"{A}: {JPG}: got .*, expected a whole jpg of its clip"],
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_and_named(output: Output, damage: Callable[[Output], object], expected: list[str]) -> None:
    damage(output)
    found = output.findings()
    assert len(found) == len(expected), found
    for finding, pattern in zip(found, sorted(expected), strict=True):
        assert re.fullmatch(pattern, finding), finding


def test_a_finished_output_has_no_findings_and_all_its_damage_is_found_by_record(anywhere: Output) -> None:
    report = anywhere.audit()
    assert anywhere.findings() == []
    assert report.states == {"SUCCEEDED": 4, "FAILED": 0, "PENDING": 0, "INVALID": 0}
    assert (report.num_records, report.num_superseded, report.files.count) == (4, 0, 11)
    sizes = [path.stat().st_size for files in anywhere.media.values() for path in files.values()]
    assert report.files.size_bytes == sum(sizes)
    assert (report.orphans.count, report.num_failures, report.lease.holder, report.lease.num_stale) == (0, 0, None, 0)

    store = anywhere.store
    swap(store, file_of(anywhere, "a", "wav"), file_of(anywhere, "b", "wav"))
    flip(store, file_of(anywhere, "a", "jpg"))
    store.delete(file_of(anywhere, "c", "mp4"))
    store.delete(key_of(store, "d"))
    found = [re.sub(r"\.[0-9a-f]{16}\.json|got sha256 .*", "", each) for each in anywhere.findings()]
    assert [each.split(", expected")[0].rstrip() for each in found] == [
        "records/a: clips/a.00000000.jpg:",
        "records/a: clips/a.00000000.wav:",
        "records/b: clips/b.00000001.wav:",
        "records/c: clips/c.00000002.mp4: got no such file",
        "records/d: got no such record",
    ]
