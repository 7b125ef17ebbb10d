"""Writing to a local folder so that a file appears whole or not at all, and survives a power cut once the call returns.

Temporary names end in `#` and digits, which obstore's listing leaves out: no reader ever sees a half-written file.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"#\d+$")
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
OURS = re.compile(r"#\d{16}$")  # of all these, what this file makes


def write_file(target: Path, write: Callable[[BinaryIO], object], *, create: bool) -> bool:
    """Writes `target` through `write(file)`. False, and nothing changed, if `create` and it is there already."""
    _make_folder(target.parent)
    temporary = target.with_name(f"{target.name}#{secrets.randbelow(10**16):016d}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        created = _publish(temporary, target, create=create)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return created


def write_bytes(target: Path, data: bytes, *, create: bool) -> bool:
    return write_file(target, lambda file: file.write(data), create=create)


def copy_file(source: Path, target: Path) -> None:
    """Copies `source` to `target`, replacing it."""
    with source.open("rb") as read:
        write_file(target, lambda file: shutil.copyfileobj(read, file, 1 << 20), create=False)


def half_written(folder: Path) -> Iterator[Path]:
    """What is being written below a folder, or was when its writer was killed."""
    return (path for path in folder.rglob("*#*") if OURS.search(path.name))


def _publish(temporary: Path, target: Path, *, create: bool) -> bool:
    if not create:
        os.replace(temporary, target)
        return True
    try:
        os.link(temporary, target)  # the only call that both creates and refuses to replace
    except FileExistsError:
        return os.path.samefile(temporary, target)  # our own link, whose answer a network's file system lost
    except OSError as error:  # of FAT, and of most buckets that are mounted as folders
        if error.errno in NO_LINKS:
            raise OSError(error.errno, "no hard links there") from error
        raise
    return True


def _make_folder(folder: Path) -> None:
    """Like `mkdir -p`, each new folder made durable in its parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
