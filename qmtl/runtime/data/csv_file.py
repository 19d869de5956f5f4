"""Reads CSV files of bars into columns, with explicit names of columns and an explicit form of times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidBar, InvalidBarsFile, InvalidValue
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import COLUMNS
from qmtl.runtime.data.conformance import Conformance
from qmtl.runtime.data.decimals import BadNumber, scaled_together
from qmtl.runtime.data.lines import read_lines

CHUNK_ROWS: Final = 65_536

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE: Final = re.compile(r"(?:[0-9]{1,15}\n)*+", re.ASCII)
_BYTE_ORDER_MARK: Final = "\ufeff"


class Times(Enum):
    """How a file writes open times: epoch milliseconds, epoch seconds, or ISO 8601 with an offset from UTC."""

    MS = "ms"
    S = "s"
    ISO = "iso"


@dataclass(frozen=True, slots=True)
class FileForm:
    """What a file of bars looks like.

    Attributes:
        columns: name in the file of each of `COLUMNS` that has another one. Where any is said, further columns of the file are left
            out; where none is, a file has these six columns and no other.
        times: form of the open times.
        floats: take binary floating point numbers of a Parquet file, each as the shortest decimal that reads back as it.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    times: Times = Times.MS
    floats: bool = False

    def __post_init__(self) -> None:
        for ours in self.columns:
            if ours not in COLUMNS:
                raise InvalidValue(
                    f"{ours[:40]!r} is no column of bars.", f"Say {'|'.join(COLUMNS)}=NAME_IN_THE_FILE."
                )

    def places(self, name: str, header: Sequence[str]) -> list[int]:
        """Where the six columns are in a file.

        Args:
            name: of the file, for messages.

        Raises:
            InvalidBarsFile: one is missing or there twice, or an unknown one is there and no name was said.
        """
        wanted = [self.columns.get(ours, ours) for ours in COLUMNS]
        for theirs in wanted:
            if header.count(theirs) != 1:
                how = "lacked the column" if theirs not in header else "had twice the column"
                raise InvalidBarsFile(
                    f"{name} {how} {theirs}; its columns are {', '.join(header)[:200]}.",
                    f"Import it, and say which column is which: `qmtl data import --columns {COLUMNS[0]}=timestamp`, for each of {', '.join(COLUMNS)} with another name.",
                )
        if not self.columns:
            for theirs in header:
                if theirs not in wanted:
                    raise InvalidBarsFile(
                        f"{name} had the column {theirs[:40]!r}, which is unknown.",
                        "Leave it out, or import the file and say which columns are meant: `qmtl data import --columns`.",
                    )
        return [header.index(theirs) for theirs in wanted]


def read_csv(
    path: Path,
    symbol: str,
    interval: int,
    form: FileForm,
    held: Conformance | None = None,
    *,
    rows: int = CHUNK_ROWS,
) -> Iterator[BarColumns]:
    """The bars of a file in chunks, ascending, each time once. Plain or gzip, UTF-8, no quoting.

    Args:
        interval: length of a bar in seconds.
        held: counts what was read.

    Raises:
        InvalidBarsFile: can't be read, damaged, wrong columns, a line with too few or too many fields, a last line without its end.
        InvalidBar: a text that is no number or time, a time without an offset or with another one than the file's first, a row that is no
            bar or before its neighbour.
        ConflictingBars: a time twice with other numbers.
        All name the file and the line.
    """
    held = Conformance(symbol, interval) if held is None else held
    lines = read_lines(path, whole=True)
    header = next(lines, None)
    if header is None:
        raise InvalidBarsFile(
            f"{path.name} was empty; its first line names its columns.", f"Begin it with {','.join(COLUMNS)}."
        )
    names = header.removeprefix(_BYTE_ORDER_MARK).split(",")
    places = form.places(f"{path.name} line 1", names)
    reader = _Reader(path.name, symbol, interval, form.times, places, len(names))
    line = 2
    while block := list(islice(lines, rows)):
        first = line
        columns = reader.columns(block, first)
        yield held.take(columns, partial(_line, path.name, first))
        line += len(block)
    if line == 2:
        raise InvalidBarsFile(
            f"{path.name} held no bar; a line per bar follows the first.", "Send at least one bar."
        )


def _line(name: str, first: int, row: int) -> str:
    return f"{name} line {first + row}"


class _Reader:
    """Turns lines of one file into columns."""

    def __init__(
        self, name: str, symbol: str, interval: int, times: Times, places: list[int], width: int
    ) -> None:
        self._name = name
        self._symbol = symbol
        self._interval = interval
        self._times = times
        self._places = places
        self._width = width
        self._offset: timedelta | None = None

    def columns(self, block: list[str], first: int) -> BarColumns:
        split = [line.split(",") for line in block]
        for row, fields in enumerate(split):
            if len(fields) != self._width:
                raise InvalidBarsFile(
                    f"{self._name} line {first + row} had {len(fields)} fields; {self._width} are required.",
                    "Send one value for each column that the first line names.",
                )
        time, *numbers = ([fields[at] for fields in split] for at in self._places)
        open_times = self._open_times(time, first)
        try:
            prices = scaled_together(numbers[:4])
        except BadNumber as bad:
            raise self._refused(bad, 1, numbers, first) from None
        try:
            (volume,) = scaled_together(numbers[4:])
        except BadNumber as bad:
            raise self._refused(bad, 5, numbers, first) from None
        return BarColumns(
            self._symbol,
            self._interval,
            np.array(open_times, dtype=np.int64),
            prices[0],
            prices[1],
            prices[2],
            prices[3],
            volume,
        )

    def _refused(self, bad: BadNumber, begin: int, numbers: list[list[str]], first: int) -> InvalidBar:
        column = begin + bad.column
        value = numbers[column - 1][bad.row]
        return self._wrong(first + bad.row, column, value, bad.rule, bad.remedy)

    def _wrong(self, line: int, column: int, value: str, rule: str, remedy: str) -> InvalidBar:
        shown = repr(value if len(value) <= 40 else value[:40] + "…")
        return InvalidBar(f"{self._name} line {line}: {COLUMNS[column]} was {shown}; {rule}.", remedy)

    def _open_times(self, texts: list[str], first: int) -> list[int]:
        if self._times is Times.ISO:
            return [self._instant(text, first + row) for row, text in enumerate(texts)]
        if _WHOLE.fullmatch("\n".join([*texts, ""])) is None:
            for row, text in enumerate(texts):
                if _WHOLE.fullmatch(text + "\n") is None:
                    unit = "milliseconds" if self._times is Times.MS else "seconds"
                    raise self._wrong(
                        first + row,
                        0,
                        text,
                        f"it is a whole number of epoch {unit}",
                        "Send digits only, in UTC, or import the file and say which form its times have: `qmtl data import --times`, ms, s or iso.",
                    )
        factor = 1 if self._times is Times.MS else 1000
        return [int(text) * factor for text in texts]

    def _instant(self, text: str, line: int) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise self._wrong(
                line, 0, text, "it is no instant of ISO 8601", "Send as 2018-04-04T00:01:00+00:00."
            ) from None
        offset = moment.utcoffset()
        if offset is None:
            raise self._wrong(
                line, 0, text, "it has no offset from UTC", "Write the offset, as in 2018-04-04T00:01:00Z."
            )
        if self._offset is None:
            self._offset = offset
        elif offset != self._offset:
            raise self._wrong(
                line,
                0,
                text,
                f"its offset from UTC is not that of the rows before, {timezone(self._offset)}",
                "Write all times of a file in one offset, best in UTC.",
            )
        whole, rest = divmod(moment - _EPOCH, timedelta(milliseconds=1))
        if rest or whole < 0:
            raise self._wrong(
                line, 0, text, "it is a whole number of milliseconds since 1970", "Send the start of the bar."
            )
        return whole
