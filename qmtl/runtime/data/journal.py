"""The journal of a catalogue of bars: what every commit has brought, and from where. A commit is a file that appears whole or not at all.

Each names the digest of the one before it, so that the digest of a commit stands for everything up to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from qmtl.foundation.common.errors import CatalogueDamaged, NotInCatalogue
from qmtl.runtime.data.pack import Pack
from qmtl.runtime.data.shelf import Part, Shelf

PREFIX: Final = "blake3:"
GENESIS: Final = PREFIX + "0" * 64
"""What the first commit names as the one before it."""

SHORTEST_PREFIX: Final = 8
"""So many hex digits of a digest are needed to name a commit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A range that a source was asked for, whether it had bars there or not: open times from `from_ms` on and before `to_ms`."""

    symbol: str
    interval: int
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of the catalogue: that of the commit before, and these parts.

    Attributes:
        number: from 1.
        digest: `blake3:` and 64 hex digits, over everything else in it.
        before: that of the commit before; `GENESIS` for the first.
        source: where the bars come from: a file with its digest, or a provider.
        importer: the program that wrote it.
    """

    number: int
    digest: str
    before: str
    source: Mapping[str, str]
    importer: str
    parts: tuple[Part, ...]
    asked: Asked | None = None

    def is_called(self, text: str) -> bool:
        """Whether a text names it: its number, its digest, or the begin of that."""
        digits = text.removeprefix(PREFIX)
        return text == str(self.number) or (
            len(digits) >= SHORTEST_PREFIX and self.digest.removeprefix(PREFIX).startswith(digits)
        )

    @classmethod
    def after(
        cls,
        before: Commit | None,
        source: Mapping[str, str],
        importer: str,
        parts: tuple[Part, ...],
        asked: Asked | None,
    ) -> Commit:
        """The next commit."""
        body = {
            "number": 1 if before is None else before.number + 1,
            "before": GENESIS if before is None else before.digest,
            "source": dict(source),
            "importer": importer,
            "parts": [asdict(part) for part in parts],
            "asked": None if asked is None else asdict(asked),
        }
        return _commit(body, _digest(body))

    def text(self) -> str:
        """One line of JSON."""
        body = asdict(self)
        return json.dumps(body, sort_keys=True, ensure_ascii=True) + "\n"


class Journal:
    """The commits in a directory, one file each, and beside them the pack, which has all of them once more."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pack = Pack(directory / "commits.jsonl")
        self._packed = 0
        self._open = False
        self._known: list[Commit] = []
        self._shelves: dict[tuple[str, int], Shelf] = {}

    def path(self, number: int) -> Path:
        """Of a commit."""
        return self._directory / _name(number)

    def commits(self) -> tuple[Commit, ...]:
        """All of them in order, those that came since the last call too.

        Raises:
            CatalogueDamaged: one is missing, or not as it was written.
        """
        if self._open:
            self._read_on()
        else:
            self._begin(self._pack.lines())
            self._open = True
        return tuple(self._known)

    def shelves(self) -> Mapping[tuple[str, int], Shelf]:
        """The parts of all commits by symbol and interval, as of the last look at the commits."""
        return self._shelves

    def pack(self) -> None:
        """Put into the pack what it lacks; for the one writer."""
        commits = self.commits()
        self._pack.add([commit.text().encode() for commit in commits[self._packed :]])
        self._packed = len(commits)

    def audit(self) -> None:
        """Read the file of every commit, also of those that the pack has.

        Raises:
            CatalogueDamaged: as `commits`.
        """
        Journal(self._directory)._begin([])

    def _begin(self, lines: Sequence[bytes]) -> None:
        """Read all that is there: the commits of the pack as far as they follow each other and end in one of the journal, then the files."""
        self._known, self._shelves = [], {}
        for commit in self._proven(lines):
            self._learn(commit)
        self._packed = len(self._known)
        self._pack.trust(sum(map(len, lines[: self._packed])))
        # Every commit that is known by now came before this look at the names.
        names = os.listdir(self._directory) if self._directory.is_dir() else []
        there = {one for one in names if one.endswith(".json") and one[:-5].isdecimal()}
        self._read_on()
        missing = next((at for at in range(1, len(there) + 1) if _name(at) not in there), None)
        if missing is not None and not self.path(missing).exists():
            raise _damaged(self.path(missing), f"it is missing, while {max(there)} is there")

    def _proven(self, lines: Sequence[bytes]) -> list[Commit]:
        found: list[Commit] = []
        for line in lines:
            try:
                commit = _parsed(line, as_written=True)
            except ValueError:
                break
            if not line.endswith(b"\n") or not _follows(commit, found):
                break
            found.append(commit)
        while found and self._bytes_of(found[-1].number) != lines[len(found) - 1]:
            found.pop()
        return found

    def _bytes_of(self, number: int) -> bytes | None:
        try:
            return self.path(number).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _damaged(self.path(number), str(error)) from error

    def _read_on(self) -> None:
        while (text := self._bytes_of(len(self._known) + 1)) is not None:
            path = self.path(len(self._known) + 1)
            try:
                commit = _parsed(text)
            except ValueError as error:
                raise _damaged(path, str(error)) from error
            if not _follows(commit, self._known):
                raise _damaged(path, "it does not follow the commit before it")
            self._learn(commit)

    def _learn(self, commit: Commit) -> None:
        self._known.append(commit)
        for part in commit.parts:
            self._shelves.setdefault((part.symbol, part.interval), Shelf()).put(commit.number, part)

    def find(self, as_of: int | str | None) -> Commit | None:
        """A commit by its number or its digest, at least `SHORTEST_PREFIX` digits of it; the newest, if there is one, for None.

        Raises:
            NotInCatalogue: there is no such commit, or several.
            CatalogueDamaged: as `commits`.
        """
        commits = self.commits()
        if as_of is None:
            return commits[-1] if commits else None
        wanted = str(as_of).strip().removeprefix(PREFIX)
        if wanted.isascii() and wanted.isdecimal() and len(wanted) < SHORTEST_PREFIX:
            found = list(commits[int(wanted) - 1 : int(wanted)]) if int(wanted) else []
        elif len(wanted) >= SHORTEST_PREFIX:
            found = [one for one in commits if one.digest.removeprefix(PREFIX).startswith(wanted)]
        else:
            found = []
        if len(found) != 1:
            raise NotInCatalogue(
                f"as_of was {str(as_of)[:80]!r}, which names {len(found) or 'no'} commit{'s' if len(found) > 1 else ''} of"
                f" {self._directory.parent}; it has {len(commits)}.",
                f"Give a number, or a digest or its first {SHORTEST_PREFIX} hex digits or more, as `qmtl data log` shows them.",
            )
        return found[0]


def _name(number: int) -> str:
    return f"{number:09d}.json"


def _parsed(text: bytes, *, as_written: bool = False) -> Commit:
    """A commit whose digest is that of what it says.

    Args:
        as_written: only in the very bytes in which a commit is written.

    Raises:
        ValueError: it is none.
    """
    try:
        body = json.loads(text.decode())
        digest = body.pop("digest")
        # As it was written, the text without its digest is what was hashed; written in another way, it has to be put together again.
        said = f'"digest": "{digest}", '.encode()
        hashed = text.removesuffix(b"\n").replace(said, b"", 1)
        if PREFIX + blake3(hashed).hexdigest() != digest and (as_written or digest != _digest(body)):
            raise ValueError("its digest is another one")
        return _commit(body, digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no commit: {error}") from error


def _follows(commit: Commit, known: Sequence[Commit]) -> bool:
    before = known[-1].digest if known else GENESIS
    return commit.number == len(known) + 1 and commit.before == before


def _commit(body: Mapping[str, Any], digest: str) -> Commit:
    asked = body["asked"]
    return Commit(
        number=body["number"],
        digest=digest,
        before=body["before"],
        source=dict(body["source"]),
        importer=body["importer"],
        parts=tuple(Part(**part) for part in body["parts"]),
        asked=None if asked is None else Asked(**asked),
    )


def _digest(body: Mapping[str, Any]) -> str:
    return PREFIX + blake3(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _damaged(path: Path, why: str) -> CatalogueDamaged:
    return CatalogueDamaged(
        f"{path} can't be trusted: {why}.",
        "Restore the catalogue from a copy; its parts are never changed, so a copy of any time will do.",
    )
