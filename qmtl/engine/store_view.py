"""A look at a task's store from outside, while its worker may be writing it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rocksdict import AccessType, Options, Rdict

from qmtl.engine.store import META, row_key, tables_of
from qmtl.engine.stored import Checkpoint, parse_checkpoint
from qmtl.engine.table import unframe
from qmtl.foundation.common.errors import InvariantBroken

_ATTEMPTS: Final = 5


class StoreView:
    """What a store held at the moment of opening, rows and checkpoint of the same write batch.

    Args:
        scratch: a directory of its own for what the database writes while it looks; nothing is written into the store.

    Raises:
        InvariantBroken: there is something, but no store that can be read.
    """

    def __init__(self, directory: Path, scratch: Path) -> None:
        self._directory = directory
        self._db = _open(directory, scratch)
        found = self._db.get(META)
        try:
            self.checkpoint: Checkpoint | None = None if found is None else parse_checkpoint(found)
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(directory, error) from None

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether there is a store; every database has a file that names its current version."""
        return (directory / "CURRENT").exists()

    def tables(self) -> list[str]:
        """The names of the tables that have rows, sorted."""
        return tables_of(lambda start: next(iter(self._db.keys(from_key=start)), None))

    def newest(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """The newest value of every key that has one, in key order."""
        start = row_key(table, b"")
        for key, value in self._db.items(from_key=start):
            if not key.startswith(start):
                return
            versions = unframe(value)
            if versions and versions[-1].data is not None:
                yield key[len(start) :], versions[-1].data

    def close(self) -> None:
        self._db.close()


def _open(directory: Path, scratch: Path) -> Any:
    chosen = Options(raw_mode=True)
    chosen.set_max_open_files(-1)  # files that the worker deletes meanwhile stay readable
    scratch.mkdir(parents=True, exist_ok=True)
    problem: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return Rdict(str(directory), chosen, access_type=AccessType.secondary(str(scratch)))
        except Exception as error:  # rocksdict raises bare Exception; a file that went while it was listed is worth another look
            problem = error
    raise _unreadable(directory, problem) from None


def _unreadable(directory: Path, cause: object) -> InvariantBroken:
    return InvariantBroken(
        f"the store {directory} can't be read: {cause}.",
        "Stop its worker and delete the directory; the worker makes it again from the log.",
    )
