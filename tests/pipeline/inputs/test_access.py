"""What images may be read from: a manifest's own folder, listed roots and hosts; driver and worker hold to it alike."""

import os
from pathlib import Path

import pytest

from pipeline.errors import ClipError, ConfigError
from pipeline.inputs.access import InputAccess, LocalFile, StoredObject, absolute, locate
from pipeline.inputs.images import BadInput, ImageReader, load_image
from pipeline.types import ImageRef
from tests.manifests import STORAGE, findings, only, picture, read, write

ROOTS = InputAccess(roots=("/data/in", "/other/", "s3://bucket/in", "gs://bucket"), hosts=("cdn.example.com",))


def where(address: str) -> LocalFile | StoredObject | str:
    """Read from a manifest in /data/in."""
    place = locate(absolute(address, "/data/in"), ROOTS)
    return place if isinstance(place, LocalFile | StoredObject) else place.shown


PLACES = {
    "a/b.png": LocalFile(path="/data/in/a/b.png", real="/data/in/a/b.png"),
    "./a/../b.png": LocalFile(path="/data/in/b.png", real="/data/in/b.png"),
    "../in/b.png": LocalFile(path="/data/in/b.png", real="/data/in/b.png"),
    "../../other/b.png": LocalFile(path="/other/b.png", real="/other/b.png"),
    "/other/b.png": LocalFile(path="/other/b.png", real="/other/b.png"),
    "file:///data/in/b.png": LocalFile(path="/data/in/b.png", real="/data/in/b.png"),
    "%2e%2e/b.png": LocalFile(path="/data/in/%2e%2e/b.png", real="/data/in/%2e%2e/b.png"),
    "s3://bucket/in/a@b.png": StoredObject(root="s3://bucket/in", key="a@b.png"),
    "s3://bucket/x/../in/b.png": StoredObject(root="s3://bucket/in", key="b.png"),
    "gs://bucket/any/b.png": StoredObject(root="gs://bucket", key="any/b.png"),
    "https://CDN.example.com/a.png?x=1": "https://cdn.example.com/a.png?...",
    "HTTPS://cdn.example.com:443/a.png": "https://cdn.example.com/a.png",
}


@pytest.mark.parametrize("address", list(PLACES))
def test_addresses_below_the_roots(address: str) -> None:
    assert where(address) == PLACES[address]


@pytest.mark.parametrize(
    "address",
    [
        *("../b.png", "a/../../b.png", "/data/b.png", "/data/inside/b.png", "/data/in/../b.png", "/data/in", "/", "."),
        *(
            "file:///etc/passwd",
            "file://etc/passwd",
            "file://localhost/etc/passwd",
            "//etc/passwd",
            "/proc/self/environ",
        ),
        *("s3://bucket/b.png", "s3://bucket/in/../b.png", "s3://bucket/inside/b.png", "s3://other/in/b.png"),
        *("s3://bucket/in", "s3://bucket/in/", "az://bucket/in/b.png", "s3://bucket//in/b.png", "S3://bucket/in/b.png"),
        *("ftp://cdn.example.com/a.png", "data:///a", "smb://host/a", "\\\\host\\a", "a\0b.png", "a\nb.png"),
        *("https://cdn.example.com.evil.org/a", "https://evil.org/cdn.example.com", "https://cdn.example.com:444/a"),
        *("http://cdn.example.com:443/a#b", "https://cdn.example.com\\@evil.org/", "https://cdn.example.com@evil.org/"),
        *("https://me:word@cdn.example.com/a", "https://evil.org\\.cdn.example.com/", "https:/cdn.example.com/a"),
        *("https://cdn.example.com./a", "https://cdn.example.com:99999/a", "https://[::1/a", "https:///a", "https://"),
        *("https://cdn.example.com /a", "https://cdn.\texample.com/a", "https://cdn.example.com/\r\nHost: evil.org"),
    ],
)
def test_addresses_that_are_refused(address: str) -> None:
    if address in ("data:///a", "https:/cdn.example.com/a", "\\\\host\\a"):  # odd names of files below the folder
        place = locate(absolute(address, "/data/in"), ROOTS) if "://" not in address else None
        assert place is None or (isinstance(place, LocalFile) and place.real.startswith("/data/in/"))
        return
    with pytest.raises(BadInput):
        where(address)


def test_a_secret_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    addresses = ["https://me:5ec2e7@cdn.example.com/a.png", "s3://AKIA:5ec2e7@bucket/a.png"]
    said = findings(write(tmp_path, {"prompt": ["a", "b"], "image": addresses}))
    assert [line.partition("expected ")[2] for line in said] == ["one without: secrets do not belong there"] * 2
    assert not any("5ec2e7" in line for line in said)


@pytest.mark.parametrize("host", ["*", "*.example.com", "http://a", "a/b", "a b", "", "a:b", "user@a", "a:123456"])
def test_hosts_that_are_no_hosts(host: str) -> None:
    with pytest.raises(ConfigError, match=r"images\.hosts"):
        InputAccess(hosts=(host,))


def test_times_are_above_zero() -> None:
    with pytest.raises(ConfigError, match=r"images\.connect_timeout_s is 0, expected more than 0"):
        InputAccess(connect_timeout_s=0)
    with pytest.raises(ConfigError, match=r"images\.timeout_s is -1, expected more than 0"):
        InputAccess(timeout_s=-1)


def test_a_listed_folder_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.png").write_bytes(picture())
    path = write(
        tmp_path / "in", {"prompt": ["a"] * 3, "image": ["../shared/a.png", f"{tmp_path}/shared/a.png"] * 1 + [None]}
    )
    assert len(findings(path)) == 2
    access = InputAccess(roots=(str(tmp_path / "shared"),))
    manifest = read(path, access=access)
    assert {clip.image.uri for clip in manifest.clips if clip.image} == {f"{tmp_path}/shared/a.png"}


def worker_says(ref: ImageRef, *roots: Path | str) -> str:
    with pytest.raises(ClipError) as caught:
        load_image(ref, storage=STORAGE, access=InputAccess(roots=tuple(map(str, roots))))
    return str(caught.value)


def test_a_worker_holds_to_the_rules_itself(tmp_path: Path) -> None:
    """Whatever it is told of an image: the driver may have been deceived, or be another program."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture())
    clip = only(read(write(tmp_path / "in", {"prompt": ["a"], "image": ["a.png"]})))
    assert clip.image is not None
    ref = clip.image
    assert load_image(ref, storage=STORAGE, access=InputAccess(roots=(str(tmp_path / "in"),))) == picture()
    for roots in ((), (tmp_path / "other",), ("s3://bucket/in",)):
        assert "expected a file below" in worker_says(ref, *roots)
    for uri in ("/etc/passwd", "file:///etc/passwd", f"{tmp_path}/in/../a.png", "http://127.0.0.1:1/a", "s3://b/a.png"):
        moved = ImageRef(uri=uri, data=None, identity=ref.identity, height=300, width=400)
        assert "cannot be used" in worker_says(moved, tmp_path / "in")


def test_a_link_put_there_between_check_and_use(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "in" / "a.png").write_bytes(picture())
    clip = only(read(write(tmp_path / "in", {"prompt": ["a"], "image": ["a.png"]})))
    assert clip.image is not None
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "secret.png")
    assert "a link out of it" in worker_says(clip.image, tmp_path / "in")


def test_a_link_to_a_folder_whose_name_begins_like_the_roots(tmp_path: Path) -> None:
    for name in ("in", "inside"):
        (tmp_path / name).mkdir()
    (tmp_path / "inside" / "secret.png").write_bytes(picture())
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "inside" / "secret.png")
    (line,) = findings(write(tmp_path / "in", {"prompt": ["a"], "image": ["a.png"]}))
    assert "a link out of it" in line


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes to would be waited for; a device would be read for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    names = ["pipe.png", "folder.png", "circle.png", "zero.png", "folder.png/x.png"]
    said = findings(write(tmp_path, {"prompt": ["a"] * 5, "image": names}))
    assert [line.partition("got ")[2].partition(", expected")[0] for line in said] == [
        "'pipe.png', which is no file",
        "'folder.png', which cannot be read (Is a directory)",
        "'circle.png', which cannot be read (Too many levels of symbolic links)",
        "'zero.png', a link out of it",
        "'folder.png/x.png'",
    ]


def test_images_of_several_folders(tmp_path: Path) -> None:
    """Relative addresses are below the first; full ones below any."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture())
    reader = ImageReader([str(tmp_path / "one"), str(tmp_path / "two")], storage=STORAGE)
    found = reader.read_all(["a.png", f"{tmp_path}/two/a.png", "../three/a.png"])
    assert [each.uri for each in found.values() if isinstance(each, ImageRef)] == [
        f"{tmp_path}/{n}/a.png" for n in ("one", "two")
    ]
    assert isinstance(found["../three/a.png"], BadInput)
