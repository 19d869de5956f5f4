"""Stores that do what stores in the world do: they end in the middle, keep something else than they were given, or take their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qmtl.engine.archive.objects import Objects, in_memory


class Ended(BaseException):
    """The process died."""


def contents(store: Objects) -> dict[str, bytes]:
    """All that lies in a store."""
    return {name: store.get(name, 1 << 30) for name in store.names()}


def holding(objects: dict[str, bytes]) -> Objects:
    """A store with these objects."""
    store = in_memory()
    for name, data in objects.items():
        store.put(name, data)
    return store


class Mortal:
    """A store of a process that dies at a write: before it, or when it was carried out and nobody was told.

    Args:
        puts: how many writes it lives through.
    """

    def __init__(self, store: Objects, puts: int, *, written: bool) -> None:
        self._store, self._left, self._written = store, puts, written
        self.url, self.get = store.url, store.get

    def put(self, name: str, data: bytes) -> None:
        if self._left == 0:
            if self._written:
                self._store.put(name, data)
            raise Ended
        self._left -= 1
        self._store.put(name, data)

    def names(self, within: str = "") -> Iterator[str]:
        return self._store.names(within)


class Altering:
    """A store that confirms each write and keeps what `keep` makes of it; None keeps nothing."""

    def __init__(self, store: Objects, keep: Callable[[str, bytes], bytes | None]) -> None:
        self._store, self._keep = store, keep
        self.url, self.get = store.url, store.get

    def put(self, name: str, data: bytes) -> None:
        kept = self._keep(name, data)
        if kept is not None:
            self._store.put(name, kept)

    def names(self, within: str = "") -> Iterator[str]:
        return self._store.names(within)


class Watched:
    """A store that says when it is asked for something, before it does it."""

    def __init__(self, store: Objects, at_put: Callable[[int], None], at_get: Callable[[int], None]) -> None:
        self._store, self._at_put, self._at_get = store, at_put, at_get
        self.url = store.url
        self.puts = self.gets = 0

    def put(self, name: str, data: bytes) -> None:
        self._at_put(self.puts)
        self.puts += 1
        self._store.put(name, data)

    def get(self, name: str, most_bytes: int) -> bytes:
        self._at_get(self.gets)
        self.gets += 1
        return self._store.get(name, most_bytes)

    def names(self, within: str = "") -> Iterator[str]:
        return self._store.names(within)
