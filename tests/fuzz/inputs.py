"""Files for the fuzzer: small valid ones, and what random damage makes of them. A case is a function of its number."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.sounds import CODECS, sound_file, tone

EXTREMES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00" * 8, b"\x80" * 9)
PIECES = ['"', ",", "\n", "\r", "{", "}", "[", "]", ":", "\\u0000", "\\ud800", "\0", "\ufeff", "1e999", "-0", "NaN"]
PIECES += [
    "9" * 400,
    "[" * 3000,
    '{"a":' * 3000,
    "null",
    "true",
    '"prompt"',
    '"image":',
    "data:;base64,",
    "💃",
    "=cmd()",
]
FOOTER_BYTES = 2000  # where most of a Parquet file's rules are


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    return SEEDS[target]()


def make_case(target: str, seed: int, number: int) -> bytes:
    random = Random(f"{target} {seed} {number}")
    valid = seeds(target)
    data = random.choice(valid)
    if random.random() < 0.03:
        return random.randbytes(random.choice((0, 1, 7, 100, 5000)))
    for _ in range(random.choice((0, 1, 1, 2, 3, 8, 30))):
        damage = random.choice(TEXT_DAMAGES if target in ("csv", "jsonl", "json") else DAMAGES)
        data = damage(data, random, valid)
    return data


def _flip(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if data else data


def _write(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    at, piece = _place(data, random), random.choice(EXTREMES)
    return data[:at] + piece + data[at + len(piece) :]


def _insert(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    return data[:at] + random.randbytes(random.choice((1, 4, 50))) + data[at:]


def _insert_text(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    return data[:at] + random.choice(PIECES).encode() + data[at:]


def _truncate(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _cut(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice((1, 2, 8, 100)) :]


def _double(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    at, end = sorted((_place(data, random), _place(data, random)))
    return data[:end] + data[at : at + 2000] * random.choice((1, 3)) + data[end:]


def _splice(data: bytes, random: Random, valid: Sequence[bytes]) -> bytes:
    other = random.choice(valid)
    return data[: _place(data, random)] + other[_place(other, random) :]


def _place(data: bytes, random: Random) -> int:
    """Half of the time near the end, where Parquet files keep what they are."""
    start = max(0, len(data) - FOOTER_BYTES) if random.random() < 0.5 else 0
    return random.randrange(start, len(data)) if len(data) > start else 0


DAMAGES = (_flip, _flip, _flip, _write, _insert, _truncate, _cut, _double, _splice)
TEXT_DAMAGES = (_insert_text, _insert_text, _flip, _insert, _truncate, _cut, _double, _splice)


def _rows() -> list[dict[str, object]]:
    return [
        {"prompt": f"a cat, number {n} 丹凤眼", "seed": n, "audio": n % 2 == 0, "ratio": "1:1", "guidance": n / 2}
        | {"note": "x" * n, "tags": ["a", "b"][: n % 3], "deep": {"k": n}}
        for n in range(12)
    ]


def _parquets() -> tuple[bytes, ...]:
    plain = pa.Table.from_pylist(_rows())
    image = {"bytes": _picture("PNG", 300), "path": None}
    pictured = pa.table({"prompt": ["x", "y"], "image": [image, None]})
    coded = pa.table({"prompt": plain["prompt"].dictionary_encode(), "duration": pa.array([3, None] * 6, pa.int8())})
    moments = pa.table(
        {
            "prompt": pa.array(["x"] * 3, pa.large_string()),
            "at": pa.array([1, None, 2**62], pa.timestamp("ns", "UTC")),
            "price": pa.array([1, 2, None], pa.decimal128(20, 3)),
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        }
    )
    made = [_parquet(plain), _parquet(plain, compression="zstd", data_page_version="2.0", row_group_size=5)]
    made += [_parquet(pictured, compression="none"), _parquet(coded, compression="gzip"), _parquet(moments)]
    return tuple(made)


def _parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _csvs() -> tuple[bytes, ...]:
    return (
        b"prompt,seed,audio,guidance,note\n" + b'a cat,7,true,,"x, ""y"""\n"two\nlines",,NO,2.5,\n' * 2,
        b"prompt;seed\r\nx;1\r\n",
        "\ufeffprompt,image\nx,data:image/png;base64,".encode() + base64.b64encode(_picture("PNG", 300)) + b"\n",
    )


def _requests() -> list[object]:
    media = [{"type": "first_frame", "url": "data:image/png;base64," + base64.b64encode(_picture("PNG", 300)).decode()}]
    body = {"model": "happyhorse-1.0-i2v", "input": {"prompt": "x", "media": media}, "parameters": {"duration": 5}}
    return [*_rows(), body, {"input": {"prompt": "y"}, "parameters": {"size": "64*64", "seed": 3}}]


def _json_lines() -> tuple[bytes, ...]:
    texts = [json.dumps(row, ensure_ascii=False) for row in _requests()]
    return ("\n".join(texts).encode(), "\n".join(texts[:3]).encode(), texts[-1].encode())


def _jsons() -> tuple[bytes, ...]:
    return (json.dumps(_requests()).encode(), json.dumps(_rows()[:2], indent=1).encode(), b'{"prompt": "x"}')


def _images() -> tuple[bytes, ...]:
    kinds: list[tuple[str, dict[str, object]]] = [
        ("PNG", {}),
        ("PNG", {"optimize": True}),
        ("JPEG", {"quality": 60}),
        (
            "JPEG",
            {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
        ),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 50}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
    ]
    return tuple(_picture(kind, 320, **options) for kind, options in kinds)


def _picture(kind: str, width: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, 300)).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def _sounds() -> tuple[bytes, ...]:
    return tuple(sound_file(kind, tone(0.5, rate_hz=48_000)) for kind in CODECS)


SEEDS: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "parquet": _parquets,
    "csv": _csvs,
    "jsonl": _json_lines,
    "json": _jsons,
    "image": _images,
    "sound": _sounds,
}
