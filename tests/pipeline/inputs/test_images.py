"""First frames: found below the manifest's folder, judged before anything starts, unchanged when they are used."""

import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.errors import ClipError
from pipeline.inputs.access import InputAccess
from pipeline.inputs.images import BadInput, ImageReader, load_image
from pipeline.store import open_store
from pipeline.types import ImageRef
from tests.image_server import body, in_turn, serve
from tests.manifests import STORAGE, findings, only, picture, read, write


def test_an_image_is_found_beside_the_manifest_and_decides_the_ratio(tmp_path: Path) -> None:
    (tmp_path / "first frames").mkdir()
    (tmp_path / "first frames" / "图 1#.png").write_bytes(picture(300, 500))
    columns = {"prompt": ["a"], "image": ["first frames/图 1#.png"], "ratio": ["no such ratio"]}
    clip = only(read(write(tmp_path, columns)))
    assert clip.ratio == "9:16"
    assert clip.image is not None
    assert (clip.image.height, clip.image.width, clip.image.data) == (500, 300, None)
    assert clip.image.uri == f"{tmp_path}/first frames/图 1#.png"
    assert load_image(clip.image, storage=STORAGE, access=InputAccess(roots=(str(tmp_path),))) == picture(300, 500)


@pytest.mark.parametrize("kind", ["path only", "bytes only", "bytes and path"])
def test_an_image_of_the_manifest_itself(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    cell = {
        "path only": {"bytes": None, "path": "./a.png"},
        "bytes only": {"bytes": picture(), "path": None},
        "bytes and path": {"bytes": picture(), "path": "was/somewhere/else.png"},
    }[kind]
    type_of = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    clip = only(read(write(tmp_path, {"prompt": ["a"], "image": pa.array([cell], type_of)})))
    assert clip.image is not None
    assert (clip.image.data is None) == (kind == "path only")
    assert load_image(clip.image, storage=STORAGE, access=InputAccess(roots=(str(tmp_path),))) == picture()


def test_an_image_struct_of_two_nulls_is_no_image(tmp_path: Path) -> None:
    type_of = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cell = pa.array([{"bytes": None, "path": None}], type_of)
    clip = only(read(write(tmp_path, {"prompt": ["a"], "image": cell, "ratio": ["9:16"]})))
    assert (clip.image, clip.ratio) == (None, "9:16")


def test_an_image_lying_on_its_side_is_taken_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(picture(500, 300, kind="JPEG", exif=exif))
    clip = only(read(write(tmp_path, {"prompt": ["a"], "image": ["a.jpg"]})))
    assert clip.image is not None
    assert (clip.image.height, clip.image.width, clip.ratio) == (500, 300, "9:16")


IMAGES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "GOT 0 bytes of no known kind, expected a JPEG, PNG, WebP or BMP"),
    ("text", b"not a picture", "GOT 13 bytes of no known kind"),
    ("truncated png", picture()[:-60], "GOT a PNG that is cut off or damaged (it ends after"),
    ("truncated jpeg", picture(kind="JPEG")[:-400], "GOT a JPEG that is cut off or damaged (it has no end)"),
    ("gif", picture(kind="GIF"), "bytes of no known kind, expected a JPEG, PNG, WebP or BMP"),
    ("small", picture(299, 400), "GOT 299x400 pixels, expected at least 300 pixels a side"),
    ("wide", picture(751, 300), "GOT 751x300 pixels, expected a ratio of width to height from 1:2.5 to 2.5:1"),
    ("high", picture(300, 751), "GOT 300x751 pixels, expected a ratio of width to height from 1:2.5 to 2.5:1"),
    ("huge", picture(8001, 8000, kind="PNG"), "GOT 8001x8000 pixels, expected at most 64 megapixels"),
    ("heavy", picture() + bytes(20_000_001), "GOT 20.0 MB, expected at most 20 MB"),
]


@pytest.mark.parametrize(("content", "message"), [image[1:] for image in IMAGES], ids=[image[0] for image in IMAGES])
@pytest.mark.parametrize("inline", [False, True], ids=["file", "inline"])
def test_pictures_that_cannot_be_used(tmp_path: Path, content: bytes, message: str, inline: bool) -> None:
    (tmp_path / "a.png").write_bytes(content)
    cell: Any = {"bytes": content, "path": "a.png"} if inline else "a.png"
    (line,) = findings(write(tmp_path, {"prompt": ["a"], "image": [cell]}))
    assert line.startswith("row 0, column image: ")
    assert message.replace("GOT", "got" if inline else "got 'a.png',") in line


@pytest.mark.parametrize("size", [(300, 300), (750, 300), (300, 750)])
def test_pictures_at_the_limits_can_be_used(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(picture(*size))
    assert only(read(write(tmp_path, {"prompt": ["a"], "image": ["a.png"]}))).image is not None


def test_links_are_followed_below_the_manifests_folder_and_not_out_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture())
    (folder / "own.png").write_bytes(picture())
    (folder / "deep" / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    (folder / "deep" / "within.png").symlink_to(folder / "own.png")
    (tmp_path / "other name").symlink_to(folder)
    write(folder, {"prompt": ["a"] * 3, "image": ["deep/out.png", "deep/within.png", "up/secret.png"]})
    for name in ("in", "other name"):
        assert findings(tmp_path / name / "m.parquet") == [
            f"row {row}, column image: got {image!r}, a link out of it, "
            f"expected a file below the manifest's own folder {tmp_path}/{name}/ (images.roots=[...] allows more)"
            for row, image in ((0, "deep/out.png"), (2, "up/secret.png"))
        ]


def test_a_bad_image_is_said_for_every_row_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": ["a", "b", "c"], "image": ["x.png", None, "x.png"]})
    assert [line.split(",")[0] for line in findings(path)] == ["row 0", "row 2"]


def test_an_image_that_changed_after_the_manifest_was_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    clip = only(read(write(tmp_path, {"prompt": ["a"], "image": ["a.png"]})))
    assert clip.image is not None
    (tmp_path / "a.png").write_bytes(picture(compress_level=0))  # of the same size in pixels
    with pytest.raises(ClipError, match=r"a\.png has changed since the manifest was read"):
        load_image(clip.image, storage=STORAGE, access=InputAccess(roots=(str(tmp_path),)))


def test_an_images_content_is_part_of_identity_and_its_name_is_not(tmp_path: Path) -> None:
    for name, content in (("a.png", picture()), ("copy.png", picture()), ("other.png", picture(401, 300))):
        (tmp_path / name).write_bytes(content)
    columns = {"prompt": ["p"] * 3, "image": ["a.png", "copy.png", "other.png"]}
    first, second, third = (clip.clip_id for clip in read(write(tmp_path, columns)).clips)
    assert second == f"{first}-2"
    assert not third.startswith(first)


@pytest.fixture(params=["moto", pytest.param("swift", marks=pytest.mark.s3)])
def bucket(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_s3")
    return found


def noise(kind: str = "PNG") -> bytes:
    """A picture of more than the 64 KB that are read of it at first."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (400, 300), os.urandom(360_000)).save(
        buffer, kind, **({"quality": 100} if kind == "JPEG" else {})
    )
    return buffer.getvalue()


def test_images_in_a_bucket_are_looked_at_by_ranges(bucket: str) -> None:
    store = open_store(f"{bucket}/in", STORAGE)
    contents = {
        "small.png": picture(),
        "large.png": noise(),
        "large.jpg": noise("JPEG"),
        "cut.png": noise()[:-20],
        "trailing.jpg": noise("JPEG") + b"PK and more",
        "empty.png": b"",
        "heavy.png": noise() + bytes(20_000_000),
        "text.png": b"no picture",
    }
    for name, content in contents.items():
        store.put(name, content)
    reader = ImageReader([f"{bucket}/in"], storage=STORAGE)
    found = reader.read_all([*contents, "gone.png", "../in/large.png", "../secret.png", f"{bucket}/in/small.png"])
    good = {name for name, each in found.items() if isinstance(each, ImageRef)}
    assert good == {"small.png", "large.png", "large.jpg", "../in/large.png", f"{bucket}/in/small.png"}
    said = {name: str(each) for name, each in found.items() if isinstance(each, BadInput)}
    assert said["cut.png"].startswith("got 'cut.png', a PNG that is cut off or damaged")
    assert said["trailing.jpg"].startswith(
        "got 'trailing.jpg', a JPEG that is cut off or damaged (or something follows"
    )
    assert said["empty.png"].startswith("got 'empty.png', 0 bytes of no known kind")
    assert said["heavy.png"].startswith("got 'heavy.png', 20.4 MB")
    assert said["gone.png"] == f"got 'gone.png', expected a file that is there ({bucket}/in/gone.png is not)"
    for name in sorted(map(str, good)):
        ref = found[name]
        assert isinstance(ref, ImageRef)
        access = InputAccess(roots=(f"{bucket}/in",))
        assert load_image(ref, storage=STORAGE, access=access) == contents[name.rpartition("/")[2]]
        assert ref.identity.startswith("etag ")


def test_an_image_in_a_bucket_that_is_replaced(bucket: str) -> None:
    store = open_store(f"{bucket}/in", STORAGE)
    store.put("a.png", picture())
    reader = ImageReader([f"{bucket}/in"], storage=STORAGE)
    ref = reader.read_all(["a.png"])["a.png"]
    assert isinstance(ref, ImageRef)
    for change in (lambda: store.put("a.png", picture(301, 300)), lambda: store.delete("a.png")):
        change()
        with pytest.raises(ClipError, match=r"in/a\.png has changed since the manifest was read"):
            load_image(ref, storage=STORAGE, access=InputAccess(roots=(bucket,)))


def test_an_archive_in_disguise_is_found_by_the_worker(bucket: str) -> None:
    """Behind a second end only the whole object shows it: the clip fails, alone."""
    end = picture()[-12:]
    open_store(f"{bucket}/in", STORAGE).put("a.png", noise() + b"PK and more" + end)
    ref = ImageReader([f"{bucket}/in"], storage=STORAGE).read_all(["a.png"])["a.png"]
    assert isinstance(ref, ImageRef)
    with pytest.raises(ClipError, match="a PNG with 23 bytes after its end"):
        load_image(ref, storage=STORAGE, access=InputAccess(roots=(bucket,)))


def test_an_image_from_the_web(tmp_path: Path) -> None:
    with serve() as server:
        server.answers["/a.png"] = in_turn(body(picture()), body(picture()), body(picture(500, 300)))
        url = server.url("/a.png?X-Amz-Signature=5ec2e7")
        path = write(tmp_path, {"prompt": ["a"], "image": [url]})
        assert "5ec2e7" not in findings(path)[0]
        access = InputAccess(hosts=(server.host,), allow_private=True)
        clip = only(read(path, access=access))
        assert clip.image is not None
        assert (clip.image.uri, clip.image.data) == (url, None)
        assert load_image(clip.image, storage=STORAGE, access=access) == picture()
        with pytest.raises(ClipError, match=r"has changed since the manifest was read") as caught:
            load_image(clip.image, storage=STORAGE, access=access)
        assert "5ec2e7" not in str(caught.value)
        with pytest.raises(ClipError, match=r"or a host that images\.hosts lists"):
            load_image(clip.image, storage=STORAGE, access=InputAccess())


def test_what_decodes_to_no_picture_is_the_clips_own_failure(tmp_path: Path) -> None:
    """A header and an end are all that is looked at in object storage; a worker sees the rest."""
    broken = bytearray(noise("BMP"))
    broken[28] = 3  # bits a pixel
    ref = ImageRef(uri=None, data=bytes(broken), identity="", height=300, width=400)
    with pytest.raises(ClipError, match="the image cannot be used"):
        load_image(ref, storage=STORAGE, access=InputAccess())


def test_whole_images_are_held_a_few_at_a_time(tmp_path: Path) -> None:
    """64 readers, but not 64 times 20 MB."""
    for number in range(24):
        (tmp_path / f"{number}.bmp").write_bytes(picture(2580, 2580, kind="BMP")[:-1])  # 20 MB each, cut off
    reader = ImageReader([str(tmp_path)], storage=STORAGE)
    tracemalloc.start()
    found = reader.read_all([f"{number}.bmp" for number in range(24)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(isinstance(each, BadInput) and "cut off" in str(each) for each in found.values())
    assert peak < 200_000_000
