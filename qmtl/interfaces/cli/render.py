"""The one place that prints: tables and JSON to stdout, errors and notes to stderr, and no control byte of anybody's data."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TextIO

from qmtl.foundation.common import money
from qmtl.foundation.common.errors import InvalidDag, QmtlError

ERROR_CHARACTERS: Final = 1500
"""An error stays on one screen, whatever text a broken value or a broker put into it."""

FAULTS_CHARACTERS: Final = 3000
"""So do the faults of a DAG message together."""

_UNSAFE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: what terminals take for commands, line ends among them
    "\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # invisible, or turning the direction of what follows
    "\u2028\u2029"  # line ends of Unicode
    "\ud800-\udfff"  # lone surrogates, which no stream can encode
    "]"
)
_RETURNS: Final = re.compile("([\r\n])")
_NARROW: Final = 0x100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNBOUNDED: Final = 100_000
"""The width of a stream that is no terminal: nothing is cut off for a pipe."""


def safe(text: object) -> str:
    """The text with everything escaped that a terminal would obey instead of show."""
    return _UNSAFE.sub(_escape, str(text))


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    if char in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    return f"\\x{ord(char):02x}" if ord(char) < _NARROW else f"\\u{ord(char):04x}"


def instant(epoch_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds, as `--from-time` takes it; the number alone where the calendar ends."""
    try:
        moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    except OverflowError:
        return str(epoch_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- stdout -------------------------------------------------------------------------------------------------


def line(text: object = "") -> None:
    """One line."""
    _write(sys.stdout, safe(text) + "\n")


def block(text: str) -> None:
    """Lines that this program made itself; each is made safe on its own."""
    _write(sys.stdout, "".join(safe(one) + "\n" for one in text.splitlines()))


def columns(cells: Sequence[object], widths: Sequence[int]) -> None:
    """One line of a listing that is longer than memory: cells padded to their widths, the last as long as it is."""
    padded = [safe(cell).ljust(width) for cell, width in zip(cells, widths, strict=False)]
    padded += [safe(cell) for cell in cells[len(widths) :]]
    _write(sys.stdout, "  ".join(padded).rstrip() + "\n")


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    numbers: Sequence[str] = (),
) -> None:
    """A table.

    Args:
        numbers: the heads of columns that stand flush right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout, width=None if terminal else _UNBOUNDED, markup=False, highlight=False, emoji=False
    )
    made = Table(
        title=Text(safe(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for head in heads:
        made.add_column(Text(safe(head)), justify="right" if head in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(safe(cell)) for cell in row))
    with console.capture() as drawn:
        console.print(made)
    _write(sys.stdout, "".join(one.rstrip() + "\n" for one in drawn.get().split("\n")[:-1]))


def json_line(value: Any) -> None:
    """One JSON value on one line, keys sorted; everything outside printable ASCII is escaped."""
    _write(sys.stdout, json_text(value) + "\n")


def json_object(value: Any) -> None:
    """One JSON object, indented, keys sorted."""
    _write(sys.stdout, _ascii(json.dumps(plain(value), sort_keys=True, indent=2, allow_nan=False)) + "\n")


def json_text(value: Any) -> str:
    """The text that `json_line` prints: an integer is a number of any size, a decimal is text."""
    return _ascii(json.dumps(plain(value), sort_keys=True, allow_nan=False))


def plain(value: Any) -> Any:
    """What `json` can write: decimals as text, enums by their values, tuples as lists, times as they are.

    Raises:
        TypeError: a type without a JSON form.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return money.text(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _ascii(text: str) -> str:
    return text.replace("\x7f", "\\u007f")  # the one control character that json leaves as it is


# ---- stderr -------------------------------------------------------------------------------------------------


def error(problem: QmtlError) -> None:
    """An error: its code and what was wrong, then what to do; of a DAG message with several faults a line for each."""
    if isinstance(problem, InvalidDag) and len(problem.reasons) > 1:
        sys.stdout.flush()
        _write(sys.stderr, "".join(f"{line}\n" for line in _faults(problem)))
    else:
        failure(problem.code, problem.what, problem.remedy)


def _faults(problem: InvalidDag) -> Iterator[str]:
    count = len(problem.reasons) + problem.more
    yield f"[{problem.code}] the DAG message has {count} faults:"
    room = FAULTS_CHARACTERS
    for told, one in enumerate(problem.reasons):
        line = safe(f"  [{one.code}] {one.what} {one.remedy}")
        room -= len(line)
        if room < 0:
            yield f"  and {count - told} more."
            return
        yield line
    if problem.more:
        yield f"  and {problem.more} more."


def failure(code: str, what: str, remedy: str = "") -> None:
    """One screen on stderr: `[code] what`, and the remedy on a line of its own."""
    text = _short(safe(f"[{code}] {what}")) + "\n"
    if remedy:
        text += _short(safe(remedy)) + "\n"
    sys.stdout.flush()
    _write(sys.stderr, text)


def note(text: object) -> None:
    """A remark on stderr that no program has to read."""
    _write(sys.stderr, safe(text) + "\n")


def left_off(shown: int, count: int, what: str, *, as_json: bool, newest: bool = False) -> None:
    """How many rows of a list were not shown, on stderr: for people, or as one line of JSON; nothing where all were.

    Args:
        what: they are, in the plural.
        newest: those are shown that came last.
    """
    if shown >= count:
        return
    if as_json:
        facts = {"left_off": count - shown, "shown": shown, "of": count, "what": what}
        _write(sys.stderr, json_text(facts) + "\n")
    else:
        note(f"{'the newest ' if newest else ''}{shown} of {count} {what}; --all shows every one.")


def remark(text: str) -> None:
    """A text that this program made itself, on stderr at once, with the carriage returns that write a line over."""
    _write(sys.stderr, "".join(part if part in "\r\n" else safe(part) for part in _RETURNS.split(text)))
    sys.stderr.flush()


def _short(text: str) -> str:
    return text if len(text) <= ERROR_CHARACTERS else text[: ERROR_CHARACTERS - 1] + "…"


Advance = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@contextmanager
def progress() -> Iterator[Advance]:
    """A progress bar on stderr; nothing at all where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    shown = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*shown, console=console, transient=True) as bars:
        ids: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in ids:
                ids[what] = bars.add_task(safe(what), total=total)
            bars.update(ids[what], completed=done, total=total)

        yield advance


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a terminal that knows fewer letters than the data has
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
