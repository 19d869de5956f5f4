"""What an archive needs of an object store, and how far it tells that it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

AGAIN: Final = "Archive the topic again while it is there, or bring the object back from a copy."
"""What to do about an archive that is not what was written."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many records of it are done, and how many there are at most."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What became of a topic that was archived.

    Attributes:
        where: its manifest lies, as a URL.
        digest: of the manifest, and so of all that it names.
    """

    where: str
    records: int
    digest: str


class ObjectStore(Protocol):
    """Named bytes, each written whole. Whatever it raises says that nothing was deleted.

    Raises:
        StoreUnreachable: no answer within its patience, or one that helps nobody.
        StoreRefused: it was reached, and does not allow this.
        StoreMissing: there is no such bucket or directory.
    """

    def url(self, name: str = "") -> str:
        """Where an object is, or the store itself, with nothing secret in it."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object, over one that has the name: whole or not at all, and to stay once this returns."""

    def get(self, name: str, most_bytes: int) -> bytes:
        """An object.

        Raises:
            ArchiveAltered: it is not there, or larger than it may be.
        """

    def names(self, within: str = "") -> Iterator[str]:
        """Names of all objects, or of those whose names begin with this and a slash, in any order."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""
