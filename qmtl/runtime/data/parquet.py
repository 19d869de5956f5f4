"""Bars in Parquet files: exact decimals of 64 bits, which DuckDB, polars, pandas and Spark read as decimals. Needs the extra `data`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmtl.foundation.common.errors import InvalidBar, InvalidBarsFile, LibraryMissing
from qmtl.runtime.columns import BarColumns, Integers, Scaled
from qmtl.runtime.data.bars import COLUMNS
from qmtl.runtime.data.conformance import Conformance
from qmtl.runtime.data.csv_file import CHUNK_ROWS, FileForm, Times
from qmtl.runtime.data.decimals import BadNumber, scaled_together
from qmtl.runtime.data.merging import shortest

DIGITS: Final = 18
"""Of a decimal that lies in 64 bits."""

_FORMAT: Final = b"qmtl.bars"
_VERSION: Final = b"1"
_ROW_GROUP: Final = 262_144


def arrow(name: str = "pyarrow") -> Any:
    """A module of pyarrow, loaded when it is first needed: it takes longer to load than all of QMTL.

    Raises:
        LibraryMissing: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise LibraryMissing(
            "pyarrow is not installed; Parquet files and catalogues of bars need it.",
            "Install it: pip install 'qmtl[data]'.",
        ) from error


def encode(bars: BarColumns) -> bytes:
    """A Parquet file with these bars; the same bytes for the same bars from one version of pyarrow.

    `open_time_ms` is a 64-bit integer, the others are DECIMAL(18, places) that lie in 64 bits. Symbol and interval are in the footer.
    """
    pa, pq = arrow(), arrow("pyarrow.parquet")
    short = shortest(bars)
    fields = (short.open, short.high, short.low, short.close, short.volume)
    types = [pa.int64(), *(pa.decimal128(DIGITS, column.places) for column in fields)]
    schema = pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in zip(COLUMNS, types, strict=True)],
        metadata={
            _FORMAT: _VERSION,
            b"qmtl.symbol": bars.symbol.encode(),
            b"qmtl.interval": str(bars.interval).encode(),
        },
    )
    arrays = [pa.array(short.open_time_ms), *(_decimals(pa, column) for column in fields)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        use_dictionary=False,
        column_encoding=dict.fromkeys(COLUMNS, "DELTA_BINARY_PACKED"),
        store_decimal_as_integer=True,
    )
    return bytes(sink.getvalue())


def decode(name: str, data: bytes, symbol: str, interval: int) -> BarColumns:
    """The bars of a file that `encode` made.

    Raises:
        InvalidBarsFile: it is none, or one of another symbol or interval.
    """
    pa, pq = arrow(), arrow("pyarrow.parquet")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise InvalidBarsFile(
            f"{name} could not be read as Parquet: {_first_line(error)}.", "Restore it from a copy."
        ) from error
    said = table.schema.metadata or {}
    expected = {
        _FORMAT: _VERSION,
        b"qmtl.symbol": symbol.encode(),
        b"qmtl.interval": str(interval).encode(),
    }
    if {key: said.get(key) for key in expected} != expected or tuple(table.column_names) != COLUMNS:
        raise InvalidBarsFile(
            f"{name} holds other data than the bars of {symbol} and {interval} s.", "Restore it from a copy."
        )
    scaled = [_scaled(table.column(at)) for at in range(1, len(COLUMNS))]
    return BarColumns(symbol, interval, table.column(0).to_numpy(), *scaled)


def read_parquet(
    path: Path,
    symbol: str,
    interval: int,
    form: FileForm,
    held: Conformance | None = None,
    *,
    rows: int = CHUNK_ROWS,
) -> Iterator[BarColumns]:
    """The bars of anybody's Parquet file in chunks, ascending, each time once.

    Times are integers as the form says, or timestamps with a time zone; numbers are decimals, integers or decimal text.

    Args:
        interval: length of a bar in seconds.
        held: counts what was read.

    Raises:
        InvalidBarsFile: no Parquet, damaged, wrong columns, a column of a type that is not exact, timestamps without a time zone.
        InvalidBar: a missing value, a text that is no number, a row that is no bar or before its neighbour.
        ConflictingBars: a time twice with other numbers.
        All name the file and, from 0, the row.
    """
    pa, pq = arrow(), arrow("pyarrow.parquet")
    held = Conformance(symbol, interval) if held is None else held
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            places = form.places(path.name, names)
            chosen = [names[at] for at in places]
            first = 0
            for batch in file.iter_batches(rows, columns=chosen):
                columns = [batch.column(name) for name in chosen]
                yield held.take(
                    _read(pa, path.name, first, symbol, interval, form, columns),
                    partial(_row, path.name, first),
                )
                first += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise InvalidBarsFile(
            f"{path} could not be read as Parquet: {_first_line(error)}.",
            "Check its name and rights, and copy it again.",
        ) from error
    if not first:
        raise InvalidBarsFile(f"{path.name} held no bar.", "Send at least one bar.")


def _row(name: str, first: int, row: int) -> str:
    return f"{name} row {first + row}"


def _read(
    pa: Any, name: str, first: int, symbol: str, interval: int, form: FileForm, columns: Sequence[Any]
) -> BarColumns:
    for ours, column in zip(COLUMNS, columns, strict=True):
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise InvalidBar(f"{name} row {first + row}: {ours} had no value.", "Leave that bar out.")
    times = _times(pa, name, form, columns[0])
    texts = [_texts(pa, name, ours, form, one) for ours, one in zip(COLUMNS[1:], columns[1:], strict=True)]
    made: list[Scaled] = []
    for begin, some in ((0, texts[:4]), (4, texts[4:])):
        try:
            made.extend(scaled_together(some))
        except BadNumber as bad:
            raise InvalidBar(
                f"{name} row {first + bad.row}: {COLUMNS[1 + begin + bad.column]} was {some[bad.column][bad.row][:40]!r}; {bad.rule}.",
                bad.remedy,
            ) from None
    return BarColumns(symbol, interval, times, *made)


def _times(pa: Any, name: str, form: FileForm, column: Any) -> Integers:
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise InvalidBarsFile(
                f"{name} has timestamps without a time zone in the column of open_time_ms.",
                "Write them with the time zone UTC, or as integers of epoch milliseconds.",
            )
        return np.asarray(column.cast(pa.timestamp("ms", tz=kind.tz)).cast(pa.int64()).to_numpy())
    if not pa.types.is_integer(kind) or form.times is Times.ISO:
        raise InvalidBarsFile(
            f"{name} has {kind} in the column of open_time_ms; integers or timestamps with a time zone are required.",
            "Write epoch milliseconds (--times ms) or epoch seconds (--times s).",
        )
    found: Integers = column.cast(pa.int64()).to_numpy()
    return found * 1000 if form.times is Times.S else found


def _texts(pa: Any, name: str, ours: str, form: FileForm, column: Any) -> list[str]:
    kind = column.type
    if pa.types.is_floating(kind):
        if not form.floats or not pa.types.is_float64(kind):
            raise InvalidBarsFile(
                f"{name} has binary floating point numbers ({kind}) in the column of {ours}; they are not exact.",
                "Write decimals, or take each double as the shortest decimal that reads back as it (--floats).",
            )
        return [repr(value) for value in column.to_pylist()]
    if not (pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise InvalidBarsFile(
            f"{name} has {kind} in the column of {ours}; decimals, integers or decimal text are required.",
            "Write DECIMAL(18, places).",
        )
    return [str(value) for value in column.to_pylist()]


def _decimals(pa: Any, column: Scaled) -> Any:
    """As 128-bit decimals: the low half is the number, the high half its sign."""
    wide: NDArray[np.int64] = np.empty((len(column), 2), dtype="<i8")
    wide[:, 0] = column.units
    wide[:, 1] = column.units >> 63
    kind = pa.decimal128(DIGITS, column.places)
    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(wide.tobytes())])


def _scaled(column: Any) -> Scaled:
    """Of 128-bit decimals of at most 18 digits: the low half says all."""
    parts = [
        np.frombuffer(part.buffers()[1], dtype="<i8")[2 * part.offset : 2 * (part.offset + len(part)) : 2]
        for part in column.chunks
    ]
    return Scaled(np.concatenate([np.empty(0, dtype=np.int64), *parts]), column.type.scale)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
