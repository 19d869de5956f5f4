"""The journal of a catalogue of bars: what every commit has brought, and from where. A commit is a file that appears whole or not at all.

Each names the digest of the one before it, so that the digest of a commit stands for everything up to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from qmtl.foundation.common.errors import CatalogueDamaged, NotInCatalogue

PREFIX: Final = "blake3:"
GENESIS: Final = PREFIX + "0" * 64
"""What the first commit names as the one before it."""

SHORTEST_PREFIX: Final = 8
"""So many hex digits of a digest are needed to name a commit."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of bars that is never changed; its name is its digest.

    Attributes:
        digest: 64 hex digits, BLAKE3 of the file.
        from_ms, to_ms: open times of its first and its last bar.
    """

    symbol: str
    interval: int
    digest: str
    bars: int
    size_bytes: int
    from_ms: int
    to_ms: int


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
    """The commits in a directory, one file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: list[Commit] = []

    def path(self, number: int) -> Path:
        """Of a commit."""
        return self._directory / f"{number:09d}.json"

    def commits(self) -> tuple[Commit, ...]:
        """All of them in order, those that came since the last call too.

        Raises:
            CatalogueDamaged: one is missing, or not as it was written.
        """
        while True:
            path = self.path(len(self._known) + 1)
            try:
                text = path.read_text("utf-8")
            except FileNotFoundError:
                break
            except (OSError, UnicodeDecodeError) as error:
                raise _damaged(path, str(error)) from error
            self._known.append(self._checked(path, text))
        later = [one.name for one in self._directory.glob("*.json") if one.name > path.name]
        if later:
            if path.exists():  # it came meanwhile, and others after it
                return self.commits()
            raise _damaged(path, f"it is missing, while {min(later)} is there")
        return tuple(self._known)

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
            found = [one for one in commits if one.number == int(wanted)]
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

    def _checked(self, path: Path, text: str) -> Commit:
        try:
            body = json.loads(text)
            digest = body.pop("digest")
            if digest != _digest(body):
                raise _damaged(path, "its digest is another one")
            commit = _commit(body, digest)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, f"it is no commit: {error}") from error
        before = self._known[-1].digest if self._known else GENESIS
        if commit.number != len(self._known) + 1 or commit.before != before:
            raise _damaged(path, "it does not follow the commit before it")
        return commit


def fsync_directory(directory: Path) -> None:
    """Make names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes, staging: Path) -> None:
    """A file that appears whole under its name, or not at all; durable when this returns.

    Raises:
        OSError: no room, no right; nothing is left then but, where even that failed, a file in `staging`.
    """
    staging.mkdir(parents=True, exist_ok=True)
    draft = staging / f"{os.getpid()}-{path.name}"
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


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
