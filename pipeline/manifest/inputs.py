"""What the cells of `image` and `audio_in` name: each distinct file of a manifest is looked at once, and numbered."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic

from pipeline.inputs.files import InputReader, Ref
from pipeline.inputs.header import BadInput


class Inputs(Generic[Ref]):
    """The distinct images, or sounds, of a manifest; those that it holds itself without their bytes."""

    def __init__(self, reader: Callable[[str], InputReader[Ref]]) -> None:
        """`reader`: for the folder that relative addresses are below."""
        self.refs: list[Ref] = []
        self._reader: Callable[[str], InputReader[Ref]] = reader
        self._readers: dict[str, InputReader[Ref]] = {}
        self._seen: dict[tuple[str, str], int | BadInput] = {}  # (folder, address)
        self._held: dict[str, int] = {}  # by identity

    def look(self, values: Sequence[Any], *, folder: str) -> list[int | BadInput | None]:
        """For each cell a number in `refs`, or why the file cannot be used; None: there is none."""
        wanted = [address_or_bytes(value) for value in values]
        new = [
            each
            for each in wanted
            if each is not None and (isinstance(each, bytes) or (folder, each) not in self._seen)
        ]
        held: dict[bytes, int | BadInput] = {}
        if new:
            if folder not in self._readers:
                self._readers[folder] = self._reader(folder)
            for value, found in self._readers[folder].read_all(new).items():
                if isinstance(value, bytes):
                    held[value] = found if isinstance(found, BadInput) else self._hold(found)
                else:
                    self._seen[folder, value] = found if isinstance(found, BadInput) else self._keep(found)
        return [
            None if each is None else held[each] if isinstance(each, bytes) else self._seen[folder, each]
            for each in wanted
        ]

    def _keep(self, ref: Ref) -> int:
        self.refs.append(ref)
        return len(self.refs) - 1

    def _hold(self, ref: Ref) -> int:
        if ref.identity not in self._held:
            self._held[ref.identity] = self._keep(replace(ref, data=None))
        return self._held[ref.identity]


def with_bytes(ref: Ref, cell: Any) -> Ref:
    """The same, with the bytes that the cell holds, if it does."""
    value = address_or_bytes(cell)
    return replace(ref, data=value) if isinstance(value, bytes) else ref


def address_or_bytes(value: Any) -> str | bytes | None:
    if isinstance(value, dict):
        data: bytes | None = value.get("bytes")
        path: str | None = value.get("path")
        return path if data is None else data
    text: str | None = value
    return text
