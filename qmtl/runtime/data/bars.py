"""Reads files of trade bars, row by row, and says exactly what is wrong with one that can't be read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from qmtl.foundation.common.errors import InvalidBar, InvalidBarsFile, InvalidValue, UsageError
from qmtl.foundation.common.money import parse_decimal, text
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.data.fingerprint import FINGERPRINT_PREFIX, Fingerprint
from qmtl.runtime.data.lines import MAX_LINE_BYTES, read_lines

__all__ = [
    "COLUMNS",
    "FINGERPRINT_PREFIX",
    "MAX_LINE_BYTES",
    "BarSource",
    "dataset_fingerprint",
    "default_sources",
    "infer_interval",
    "read_bars",
    "source_of",
]

COLUMNS = ("open_time_ms", "open", "high", "low", "close", "volume")
_OPEN_TIME, _OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(len(COLUMNS))
_HEADER = ",".join(COLUMNS)
_BYTE_ORDER_MARK = "\ufeff"
_TIME = re.compile(r"[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_MARKET = Path(__file__).parent / "market"


@dataclass(frozen=True, slots=True)
class BarSource:
    """The file that holds the bars of one symbol."""

    symbol: str
    path: Path


def read_bars(path: Path, symbol: str, interval: int) -> Iterator[Bar]:
    """The bars of a file in the order of their open times, one at a time, so that a file of any length can be read.

    A file is CSV in UTF-8, plain or gzip (known by its first bytes, not its name). The first line names the six `COLUMNS` in
    any order; there is no quoting. Numbers are decimal text and stay exact. Minutes without a trade may be absent.

    Args:
        interval: length of a bar in seconds.

    Raises:
        InvalidValue: an interval that is not positive.
        InvalidBarsFile: can't be opened, no UTF-8, damaged or truncated gzip, empty, missing or unknown columns, a line over
            `MAX_LINE_BYTES`.
        InvalidBar: a time that is no multiple of the interval or not after the one before, a price that is not positive, a
            high below the low, an open or close outside of them, a negative volume, a text that is no number.
    """
    if type(interval) is not int or interval <= 0:
        raise InvalidValue(
            f"interval was {interval!r}; a positive number of seconds is required.", "Send seconds."
        )
    return _bars(Path(path), symbol, interval, interval * 1000)


def infer_interval(paths: Iterable[Path]) -> int:
    """The length of the bars in seconds: the greatest common divisor of all distances between their open times.

    Sparse files may have a divisor above their true interval; it then still divides every distance. All files are taken
    together, so one dense file is enough.

    Raises:
        InvalidBarsFile: fewer than two different open times, or a distance that is no whole second.
        InvalidBar: a row that is no bar.
    """
    files = [Path(path) for path in paths]
    first: int | None = None
    divisor = 0
    for path in files:
        for bar in _bars(path, "", 1, 1):
            if first is None:
                first = bar.open_time_ms
            divisor = math.gcd(divisor, bar.open_time_ms - first)
    names = ", ".join(path.name for path in files) or "no file"
    if divisor == 0:
        raise InvalidBarsFile(
            f"{names} had fewer than two different open times; an interval is the distance of two.",
            "Give the interval yourself, or a file with two bars.",
        )
    if divisor % 1000:
        raise InvalidBarsFile(
            f"{names} had open times {divisor} ms apart; an interval is a whole number of seconds.",
            "Give open_time_ms in milliseconds, each at the start of a bar.",
        )
    return divisor // 1000


def dataset_fingerprint(sources: Iterable[BarSource]) -> str:
    """What the data is, whatever files hold it: `blake3:` and 64 hex digits over all bars, symbols sorted.

    Compression, line ends, order of columns and trailing zeros make no difference; each symbol, time and number does.

    Raises:
        InvalidValue: a symbol twice.
        InvalidBarsFile, InvalidBar: as `read_bars`, save for the interval, which is not looked at.
    """
    ordered = sorted(sources, key=lambda source: source.symbol)
    for one, other in pairwise(ordered):
        if one.symbol == other.symbol:
            raise InvalidValue(f"symbol {one.symbol!r} had two files; each has one.", "Join the files.")
    digest = Fingerprint()
    for source in ordered:
        digest.begin(source.symbol)
        for bar in _bars(Path(source.path), source.symbol, 1, 1):
            digest.add(bar.open_time_ms, bar.open, bar.high, bar.low, bar.close, bar.volume)
    return digest.text()


def default_sources() -> tuple[BarSource, ...]:
    """The market data that comes with QMTL, sorted by symbol; its origin and licence are in the README beside it."""
    return (
        BarSource("BTC-USD", _MARKET / "coinbase_btc-usd_1m_2018-04-04_06.csv.gz"),
        BarSource("ETH-USD", _MARKET / "coinbase_eth-usd_1m_2018-04-04_05.csv.gz"),
    )


def source_of(text: str, name: str = "--data") -> BarSource:
    """The file that `SYMBOL=FILE` names.

    Args:
        name: of the option, for the message.

    Raises:
        UsageError: a text of another form.
    """
    symbol, separator, path = text.partition("=")
    if not separator or not symbol or not path:
        raise UsageError(
            f"{name} was {text[:200]!r}; it has the form SYMBOL=FILE.",
            f"For example {name} BTC-USD=bars.csv.gz.",
        )
    return BarSource(symbol, Path(path))


def _bars(path: Path, symbol: str, interval: int, step_ms: int) -> Iterator[Bar]:
    before: int | None = None
    for row in _rows(path):
        time = _time(row, step_ms, before)
        before = time
        open_, high, low, close, volume = (_number(row, column) for column in range(1, len(COLUMNS)))
        for column, price in ((_OPEN, open_), (_HIGH, high), (_LOW, low), (_CLOSE, close)):
            if price <= 0:
                raise row.refused(column, "a price is positive", "Leave out bars without a trade.")
        if high < low:
            raise row.refused(
                _HIGH, f"it is not below the low, {text(low)}", "Check the order of the columns."
            )
        for column, price in ((_OPEN, open_), (_CLOSE, close)):
            if not low <= price <= high:
                rule = f"it lies between the low, {text(low)}, and the high, {text(high)}"
                raise row.refused(column, rule, "Check the order of the columns.")
        if volume < 0:
            raise row.refused(_VOLUME, "a volume is not negative", "Send the traded quantity.")
        yield Bar(symbol, time, interval, open_, high, low, close, volume)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line: its place in the file, and its fields in the order of `COLUMNS`."""

    path: Path
    line: int
    fields: tuple[str, ...]

    def refused(self, column: int, rule: str, remedy: str) -> InvalidBar:
        value = self.fields[column]
        shown = repr(value if len(value) <= 40 else value[:40] + "…")
        return InvalidBar(
            f"{self.path.name} line {self.line}: {COLUMNS[column]} was {shown}; {rule}.", remedy
        )


def _time(row: _Row, step_ms: int, before: int | None) -> int:
    if _TIME.fullmatch(row.fields[_OPEN_TIME]) is None:
        raise row.refused(
            _OPEN_TIME, "it is a whole number of epoch milliseconds", "Send UTC milliseconds, digits only."
        )
    time = int(row.fields[_OPEN_TIME])
    if time % step_ms:
        raise row.refused(
            _OPEN_TIME,
            f"it is a multiple of the interval, {step_ms} ms",
            "Send the start of the bar, or give the interval that the file has.",
        )
    if before is not None and time <= before:
        raise row.refused(
            _OPEN_TIME, f"it comes after the row before, {before}", "Sort the file, each time once."
        )
    return time


def _number(row: _Row, column: int) -> Decimal:
    field = row.fields[column]
    if _NUMBER.fullmatch(field) is None:
        raise row.refused(
            column, "it is a finite decimal number", "Send digits with a point, without spaces."
        )
    try:
        return parse_decimal(field, COLUMNS[column])
    except InvalidValue as error:
        raise row.refused(column, "at most 60 digits within 1e-40 to 1e40 are kept", error.remedy) from None


def _rows(path: Path) -> Iterator[_Row]:
    order: list[int] = []
    count = 0
    for count, line in enumerate(read_lines(path), start=1):
        fields = line.split(",")
        if count == 1:
            fields[0] = fields[0].removeprefix(_BYTE_ORDER_MARK)
            _require_columns(path, fields)
            order = [fields.index(column) for column in COLUMNS]
            continue
        if len(fields) != len(COLUMNS):
            raise InvalidBarsFile(
                f"{path.name} line {count} had {len(fields)} fields; {len(COLUMNS)} are required.",
                f"Send one value each for {_HEADER}.",
            )
        yield _Row(path, count, tuple(fields[at] for at in order))
    if count == 0:
        raise InvalidBarsFile(
            f"{path.name} was empty; its first line names its columns.", f"Begin it with {_HEADER}."
        )
    if count == 1:
        raise InvalidBarsFile(
            f"{path.name} held no bar; a line per bar follows the first.", "Send at least one bar."
        )


def _require_columns(path: Path, names: list[str]) -> None:
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise InvalidBarsFile(
            f"{path.name} line 1 lacked the column {missing[0]}.", f"Name the columns {_HEADER}."
        )
    for at, name in enumerate(names):
        if name not in COLUMNS or name in names[:at]:
            what = "twice" if name in COLUMNS else "which is unknown"
            raise InvalidBarsFile(
                f"{path.name} line 1 had the column {name[:40]!r}, {what}.",
                f"Name the columns {_HEADER}, each once.",
            )
