"""What backtests have given, as a file says it: a JSON array of runs, or JSON Lines with one of them on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from qmtl.foundation.common.errors import CommandRefused, UsageError
from qmtl.foundation.contracts.release import ReportBacktest
from qmtl.services.dagmanager.backtests import require_told

MAX_BYTES: Final = 1 << 20
MAX_RUNS: Final = 1_000

_FIELDS: Final[Mapping[str, tuple[type, str]]] = {
    "run_id": (str, "a text"),
    "passed": (bool, "true or false"),
    "detail": (str, "a text"),
    "dataset_fingerprint": (str, "a text"),
    "from_ms": (int, "a whole number of epoch milliseconds"),
    "to_ms": (int, "a whole number of epoch milliseconds"),
    "result_digest": (str, "a text"),
}
_REQUIRED: Final = ("run_id", "passed")
_SHOWN: Final = 60
_REMEDY: Final = "Mend the file; nothing of it was reported."


def read_results(file: Path, release_id: str, digest: str, issued_at_ms: int) -> list[ReportBacktest]:
    """The reports of a file, those of backtests that failed first: one of them ends the release, whatever the others have given.

    Each is held to the rules of a report here, so a file with a mistake reports nothing.

    Args:
        digest: of the message that they ran.

    Returns: the reports, without ids of commands.

    Raises:
        UsageError: the file can't be read, is too long, or says something else; with the number of the run and the field.
    """
    reports = []
    for place, row in enumerate(_rows(file), 1):
        here = f"{file}, run {place}"
        if place > MAX_RUNS:
            raise UsageError(f"{file} has more than {MAX_RUNS} runs.", "Report it in parts.")
        told = ReportBacktest("", release_id, digest=digest, issued_at_ms=issued_at_ms, **_checked(here, row))
        try:
            require_told(told)
        except CommandRefused as error:
            raise UsageError(f"{here}: {error.what}", _REMEDY) from None
        reports.append(told)
    if not reports:
        raise UsageError(f"{file} has no runs.", "Name the file in which the results are.")
    return sorted(reports, key=lambda one: one.passed)


def _rows(file: Path) -> Iterator[Any]:
    try:
        with file.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"the results {file} can't be read: {error.strerror}.", "Name another file."
        ) from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{file} has more than {MAX_BYTES} bytes.", "Report it in parts.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no UTF-8 text.", _REMEDY) from None
    if text.lstrip()[:1] == "[":
        yield from _parsed(f"{file}", text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(f"{file}, line {number}", line)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON: {str(error)[:200]}.", _REMEDY) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a key is there twice")
    return out


def _checked(here: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(f"{here} was {ascii(row)[:_SHOWN]}; an object is required.", _REMEDY)
    if unknown := sorted(row.keys() - _FIELDS.keys()):
        raise UsageError(
            f"{here}: {ascii(unknown[0])[:_SHOWN]} is no field of a run; there are {', '.join(_FIELDS)}.",
            _REMEDY,
        )
    for name in _REQUIRED:
        if name not in row:
            raise UsageError(f"{here}: {name} is missing.", _REMEDY)
    for name, value in row.items():
        kind, rule = _FIELDS[name]
        if type(value) is not kind:
            raise UsageError(f"{here}: {name} was {ascii(value)[:_SHOWN]}; {rule} is required.", _REMEDY)
    return row
