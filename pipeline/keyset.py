"""Very many keys in little memory: sixteen bytes each. It knows whether a key is there, not which keys are."""

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

import numpy as np

DIGEST_BYTES = 16  # of 10 million keys, two alike: once in 10 to the 24


class KeySet:
    """Grows by `add`; keys that are added twice count once."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._known = _pairs(b"")
        self._new = bytearray()
        self.add(keys)

    @classmethod
    def of(cls, keys: "Collection[str] | KeySet") -> "KeySet":
        return keys if isinstance(keys, KeySet) else cls(keys)

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._new += _digest(key)

    def __len__(self) -> int:
        return len(self._settled())

    def __contains__(self, key: str) -> bool:
        return bool(self.contains([key])[0])

    def __eq__(self, other: object) -> bool:
        """With sets of keys as well."""
        if not isinstance(other, KeySet | set | frozenset):
            return NotImplemented
        return bool(np.array_equal(self._settled(), KeySet.of(other)._settled()))

    __hash__ = None  # type: ignore[assignment]

    def num_common(self, other: "KeySet") -> int:
        """How many keys are in both."""
        return int(np.count_nonzero(self._has(other._settled())))

    def contains(self, keys: Sequence[str]) -> np.ndarray:
        """Which of these are in it: bool, one for each."""
        return self._has(_pairs(b"".join(map(_digest, keys))))

    def _has(self, wanted: np.ndarray) -> np.ndarray:
        known = self._settled()
        if not len(known) or not len(wanted):
            return np.zeros(len(wanted), np.bool_)
        places = np.minimum(np.searchsorted(known[:, 0], wanted[:, 0]), len(known) - 1)
        found: np.ndarray = (known[places] == wanted).all(axis=1)
        return found

    def _settled(self) -> np.ndarray:
        """uint64 [n, 2], distinct and in order of the first half, which alone tells them apart but for chance."""
        if self._new:
            pairs = np.concatenate([self._known, _pairs(self._new)])
            pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
            self._known = pairs[np.append(True, (pairs[1:] != pairs[:-1]).any(axis=1))]
            self._new = bytearray()
        return self._known


def _digest(key: str) -> bytes:
    return blake2b(key.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _pairs(digests: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)
