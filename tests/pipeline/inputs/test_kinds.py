"""What an image is, by its bytes and without decoding them: every kind, every way to be no picture."""

import io
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image, ImageOps

from model.images import prepare_image
from pipeline.inputs.check import check_image
from pipeline.inputs.header import BadInput, Whole

WIDTH, HEIGHT = 400, 300
NOISE = random.Random(0).randbytes(WIDTH * HEIGHT * 3)


@dataclass
class Ranged:
    """An image of which only asked ranges are seen, as in object storage."""

    data: bytes
    num_read: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int, /) -> bytes:
        assert start >= 0
        piece = self.data[start:stop]
        self.num_read += len(piece)
        return piece


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.frombytes("RGB", (WIDTH, HEIGHT), NOISE)
    image = (
        Image.frombytes("I;16", (WIDTH, HEIGHT), NOISE[: WIDTH * HEIGHT * 2]) if mode == "I;16" else image.convert(mode)
    )
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    first = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + first + b"".join(chunks) + chunk(b"IEND", b"")


def refusals(data: bytes) -> list[str]:
    """Whole, and by ranges; "" where it is not refused."""
    said = []
    for source in (Whole(data), Ranged(data)):
        try:
            check_image(source)
            said.append("")
        except BadInput as error:
            said.append(str(error))
    return said


PICTURES: list[tuple[str, str, dict[str, Any]]] = [
    *[("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")],
    *[("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")],
    *[("WEBP", mode, options) for mode in ("RGB", "RGBA") for options in ({}, {"lossless": True})],
    *[("BMP", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1")],
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"restart_marker_rows": 1, "icc_profile": bytes(300_000), "comment": b"<script>"}),
    ("PNG", "RGB", {"icc_profile": bytes(3000)}),
    ("WEBP", "RGB", {"icc_profile": bytes(3000)}),
    *[(kind, "RGB", {"exif": exif(number)}) for kind in ("JPEG", "PNG", "WEBP") for number in (1, 3, 6, 8)],
]


@pytest.mark.parametrize(("kind", "mode", "options"), PICTURES)
def test_pictures_of_every_kind_are_seen_as_pillow_shows_them(kind: str, mode: str, options: dict[str, Any]) -> None:
    data = saved(kind, mode, **options)
    with Image.open(io.BytesIO(data)) as image:
        width, height = ImageOps.exif_transpose(image).size
    assert check_image(Whole(data)) == check_image(Ranged(data)) == (height, width)
    assert prepare_image(data, height=48, width=64).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_only_header_and_end_are_read_where_reading_costs(kind: str) -> None:
    source = Ranged(saved(kind, lossless=True) if kind == "WEBP" else saved(kind))
    check_image(source)
    assert source.num_read < 4096 < source.size_bytes / 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("left", [0.01, 0.5, 0.9, 0.9999], ids=str)
def test_what_is_cut_off_is_refused(kind: str, left: float) -> None:
    data = saved(kind)
    for said in refusals(data[: int(len(data) * left)]):
        assert "cut off or damaged" in said


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "hidden")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize(
    "tail", [archive(), b"<html><script>alert(1)</script>", b"%PDF-1.7", b"\n"], ids=lambda t: t[:4]
)
def test_what_follows_a_picture_is_refused(kind: str, tail: bytes) -> None:
    """Polyglots: a picture to one program, an archive or a page to another."""
    whole, ranged = refusals(saved(kind) + tail)
    assert f"with {len(tail)} bytes after its end" in whole
    assert "its end" in ranged


@pytest.mark.parametrize(("kind", "end"), [("JPEG", b"\xff\xd9"), ("PNG", chunk(b"IEND", b""))])
def test_an_archive_with_a_pictures_end_behind_it_is_found_when_all_of_it_is_seen(kind: str, end: bytes) -> None:
    whole, _ = refusals(saved(kind) + archive() + end)
    assert f"a {kind} with {len(archive()) + len(end)} bytes after its end" in whole


def test_the_pictures_and_zeros_that_cameras_add_are_allowed() -> None:
    """Telephones put previews and brightness maps behind a JPEG, as JPEGs of their own."""
    photo = saved("JPEG")
    assert refusals(photo + bytes(20)) == ["", ""]
    assert refusals(photo + saved("JPEG", "L") + bytes(7) + photo) == ["", ""]


OTHERS = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="400" height="300"/>',
    "pdf": b"%PDF-1.7\n1 0 obj\n",
    "zip": archive(),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 400 300\n",
    "html": b"<!doctype html><img src=x onerror=alert(1)>",
    "gif": saved("GIF", "P"),
    "tiff": saved("TIFF"),
    "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "avi": b"RIFF\x24\0\0\0AVI LIST",
    "elf": b"\x7fELF\x02\x01\x01",
    "ffmpeg's list": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "empty": b"",
    "half a magic": b"\x89PN",
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_what_is_no_picture_is_refused_whatever_its_name(name: str) -> None:
    for said in refusals(OTHERS[name]):
        assert said.endswith("bytes of no known kind, expected a JPEG, PNG, WebP or BMP")


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 0)) for shade in (0, 128, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_moving_pictures_are_refused(kind: str) -> None:
    for said in refusals(animation(kind)):
        assert said == f"got a moving {'PNG' if kind == 'PNG' else 'WebP'}, expected a still picture"


def test_a_jpeg_that_would_keep_a_decoder_busy_for_hours() -> None:
    """A progressive picture whose last scan stands there again, two hundred times."""
    data = saved("JPEG", "L", progressive=True)
    last = data.rindex(b"\xff\xda")
    (whole, _) = refusals(data[:last] + data[last:-2] * 200 + data[-2:])
    assert "a JPEG of more than 100 scans" in whole


def bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 1, 1, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(head), 0, 0, 54) + head


def webp(width: int, height: int, inner: bytes = b"") -> bytes:
    canvas = (
        b"VP8X" + struct.pack("<II", 10, 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(inner)) + b"WEBP" + canvas + inner


def frame_of(width: int, height: int) -> bytes:
    return (
        b"VP8L" + struct.pack("<I", 10) + b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(5)
    )


SMALL_FILES_OF_HUGE_PICTURES = {
    "png": png(12_000, 12_000, chunk(b"IDAT", zlib.compress(bytes(1000)))),
    "largest png": png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"")),
    "jpeg": saved("JPEG").replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 65_500, 65_500)),
    "webp": webp(16_384, 16_384, frame_of(16_384, 16_384)),
    "bmp": bmp(30_000, 30_000),
}


@pytest.mark.parametrize("name", list(SMALL_FILES_OF_HUGE_PICTURES))
def test_a_small_file_of_a_huge_picture_is_refused_by_its_header(name: str) -> None:
    for said in refusals(SMALL_FILES_OF_HUGE_PICTURES[name]):
        assert said.endswith("expected at most 64 megapixels")


def test_a_canvas_of_another_size_than_its_picture() -> None:
    """Decoders make room for the canvas: a small picture in it does not make it small."""
    for said in refusals(webp(16_383, 16_383, frame_of(WIDTH, HEIGHT))):
        assert "one of another size than it says" in said


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


METADATA_BOMBS = {
    "profile": chunk(b"iCCP", b"icc\0\0" + packed(100_000_000)),
    "text": chunk(b"zTXt", b"note\0\0" + packed(100_000_000)),
    "international text": chunk(b"iTXt", b"note\0\x01\0de\0Notiz\0" + packed(100_000_000)),
    "one too large to be looked at": chunk(b"iCCP", b"icc\0\0" + bytes(1_100_000)),
}


@pytest.mark.parametrize("name", list(METADATA_BOMBS))
def test_metadata_that_unpack_to_a_hundred_megabytes(name: str) -> None:
    data = png(WIDTH, HEIGHT, METADATA_BOMBS[name], chunk(b"IDAT", zlib.compress(bytes(HEIGHT * (1 + WIDTH * 3)))))
    tracemalloc.start()
    said = refusals(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all("metadata" in each for each in said), said
    assert peak < 10_000_000


def test_long_metadata_before_a_jpegs_size_are_walked_over() -> None:
    """Depth maps of telephones lie there: megabytes in segments of 64 KB."""
    photo = saved("JPEG", exif=exif(6))
    start = photo.index(b"\xff\xdb")
    depth = b"\xff\xe1\xff\xff" + b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_533 - 35)
    data = photo[:start] + depth * 100 + photo[start:]
    assert refusals(data) == ["", ""]
    assert check_image(Ranged(data)) == (WIDTH, HEIGHT)
    for said in refusals(photo[:start] + b"\xff\xe1\0\2" * 3000 + photo[start:]):
        assert "more than 2000 segments" in said


def test_damage_within_a_png_is_found_by_its_checksums() -> None:
    data = bytearray(saved("PNG"))
    data[len(data) // 2] ^= 1
    whole, ranged = refusals(bytes(data))
    assert "a wrong checksum" in whole
    assert ranged == ""  # seen when the clip is made


def test_rare_kinds_of_jpeg_are_refused() -> None:
    data = saved("JPEG")
    for kind in (0xC3, 0xC9):
        for said in refusals(data.replace(b"\xff\xc0", bytes((0xFF, kind)))):
            assert "of a rare kind" in said


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_raise_anything_but_a_refusal(seed: int) -> None:
    """Thousands of damaged headers; what still passes, Pillow opens or refuses in words that are caught."""
    dice = random.Random(seed)
    whole = [
        saved("JPEG", progressive=True, exif=exif(6)),
        saved("PNG", exif=exif(6)),
        saved("WEBP", exif=exif(8)),
        saved("BMP"),
    ]
    short = [data[:2000] + data[-300:] for data in whole]
    began = time.monotonic()
    for _ in range(1500):
        data = bytearray(dice.choice(short + whole[seed : seed + 1]))
        for _ in range(dice.choice((1, 3, 20))):
            data[dice.randrange(min(len(data), 400))] = dice.randrange(256)
        refusals(bytes(data[: dice.randrange(len(data))] if dice.random() < 0.3 else data))
    assert time.monotonic() - began < 30
