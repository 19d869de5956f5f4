"""What the verbs of market data show: series and commits as rows, and every problem that was met."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qmtl.foundation.common.errors import NotInCatalogue, QmtlError
from qmtl.interfaces.cli import render

if TYPE_CHECKING:
    from qmtl.runtime.data.catalogue import Catalogue, Series
    from qmtl.runtime.data.journal import Commit


def opened(directory: Path) -> Catalogue:
    """The catalogue, for looking.

    Raises:
        NotInCatalogue: there is none.
    """
    from qmtl.runtime.data.catalogue import Catalogue

    return Catalogue(directory)


def chosen(catalogue: Catalogue, commit: Commit, symbol: str | None, interval: int | None) -> list[Series]:
    """The series that are meant: all of them, of one symbol, or of one interval.

    Raises:
        NotInCatalogue: none is what was named: of a series that is not there nothing is known, neither that it is whole nor that it has no gaps.
    """
    if symbol is not None and interval is not None:
        return [catalogue.find(symbol, interval, commit.number)]
    every = catalogue.series(commit.number)
    found = [one for one in every if symbol in (None, one.symbol) and interval in (None, one.interval)]
    if not found and (symbol is not None or interval is not None):
        named = symbol or f"{interval} s"
        there = ", ".join(f"{one.symbol} {one.interval} s" for one in every[:8]) or "nothing"
        raise NotInCatalogue(
            f"{catalogue.directory} has no bars of {named}; it has {there}.",
            "Import or fetch them, or look with `qmtl data list`.",
        )
    return found


def told(one: Series, commit: Commit) -> dict[str, Any]:
    """A series as a row."""
    return {
        "symbol": one.symbol,
        "interval": one.interval,
        "bars": one.bars,
        "from": render.instant(one.from_ms),
        "to": render.instant(one.to_ms),
        "parts": len(one.parts),
        **named(commit),
    }


def named(commit: Commit | None) -> dict[str, Any]:
    """A commit as the last cells of a row."""
    return {
        "commit": None if commit is None else commit.number,
        "as_of": None if commit is None else commit.digest,
    }


def show_rows(rows: list[dict[str, Any]], as_json: bool, heads: Sequence[str], keys: Sequence[str]) -> None:
    """As a table of these keys, or each row whole as a line of JSON."""
    if as_json:
        for row in rows:
            render.json_line(row)
        return
    numbers = tuple(
        head
        for head, key in zip(heads, keys, strict=True)
        if any(isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool) for row in rows)
    )
    render.table(tuple(heads), [tuple(_cell(row.get(key)) for key in keys) for row in rows], numbers=numbers)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "-" if value is None else value


def end(problems: list[QmtlError]) -> None:
    """Every problem is told; the first one ends the command with its exit code."""
    for problem in problems[1:]:
        render.error(problem)
    if problems:
        raise problems[0]
