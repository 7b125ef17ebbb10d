"""One file of a clip under its new name: linked or copied, compared with its record by size and digest on the way."""

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pipeline.errors import StoreError
from pipeline.scratch import temporary_folder
from pipeline.store import Store
from pipeline.types import MediaFile

How = Literal["auto", "link", "copy"]
Check = Literal["digest", "size"]
Delivered = Literal["linked", "copied", "there"]


class Damaged(StoreError):
    """A file of the output, or one under its new name, is not what the record says."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How the files of one output get to another place."""

    source: Store
    target: Store
    how: How  # auto: by hard link where both are on one disk
    check: Check  # of what is there already: by its content, or by its size alone
    replace: bool  # whether what is there with other content gives way

    def deliver(self, file: MediaFile, name: str) -> Delivered:
        """Damaged where the file is missing or other than recorded, or the name is taken; then nothing is written."""
        if self._is_there(file, name):
            return "there"
        self._check_source(file)
        source, target = _local(self.source, file.name), _local(self.target, name)
        if self.how != "copy" and source and target and self._link(file, source, target):
            return "linked"
        if self.how == "link":
            raise Damaged(f"{name}: cannot be linked from {file.name}, expected one disk (how=auto copies then)")
        self._copy(file, source, name)
        return "copied"

    def _is_there(self, file: MediaFile, name: str) -> bool:
        size_bytes = self.target.head(name)
        if size_bytes is None:
            return False
        same = size_bytes == file.size_bytes
        if same and self.check == "digest":
            same = self.target.digest(name) == file.sha256
        if not same and not self.replace:
            raise Damaged(f"{name}: is there with other content ({size_bytes} bytes); replace=true replaces it")
        return same

    def _check_source(self, file: MediaFile) -> None:
        size_bytes = self.source.head(file.name)
        if size_bytes is None:
            raise Damaged(f"{file.name}: got no such file, expected {file.size_bytes} bytes")
        if size_bytes != file.size_bytes:
            raise Damaged(f"{file.name}: got {size_bytes} bytes, expected {file.size_bytes} bytes")

    def _link(self, file: MediaFile, source: Path, target: Path) -> bool:
        """False where the disks say no."""
        _compare(file, self.source.digest(file.name))
        temporary = target.with_name(f"{target.name}#{secrets.randbelow(10**16):016d}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, temporary)
            os.replace(temporary, target)
        except OSError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _copy(self, file: MediaFile, source: Path | None, name: str) -> None:
        if _local(self.target, name):
            self.target.write(name, _copier(self.source, file))
        elif source:
            _compare(file, self.source.digest(file.name))
            self.target.put_file(name, source, sha256=file.sha256)
        else:
            with temporary_folder() as folder:
                path = folder / "file"
                with path.open("wb") as opened:
                    _copier(self.source, file)(opened)
                self.target.put_file(name, path, sha256=file.sha256)


def _copier(source: Store, file: MediaFile) -> Callable[[BinaryIO], None]:
    """Damaged at the end of another content, so that it never gets a name."""

    def copy(opened: BinaryIO) -> None:
        digest = hashlib.sha256()
        for piece in source.stream(file.name):
            digest.update(piece)
            opened.write(piece)
        _compare(file, digest.hexdigest())

    return copy


def _compare(file: MediaFile, sha256: str) -> None:
    if sha256 != file.sha256:
        raise Damaged(f"{file.name}: got sha256 {sha256}, expected sha256 {file.sha256}")


def _local(store: Store, key: str) -> Path | None:
    """None: it is in a bucket."""
    return None if "://" in store.uri else Path(store.where(key))
