"""What nodes gave in a backtest, kept on a log for later ones: whoever has the same node over the same bars need not compute it again.

Only columns of numbers are kept; targets follow from them, and trading from those. They lie under the compute key of their node, which says
node, world, domain, `as_of` and the fingerprint of the bars, so nothing is found in another context. A node is one transaction, and is used only
if all of its rows are there and each is as long as the bars say; what is there otherwise is told, and computed anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import numpy as np

from qmtl.engine.log.port import Log, Record, TopicPartition, Writer
from qmtl.foundation.common.compute_context import ComputeContext, compute_key
from qmtl.foundation.common.errors import LogError, QmtlError, TransactionError, ValuesRefused
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.foundation.contracts.node import ColumnChunk
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.runtime.columns import BarColumns, Column

VALUES: Final = topic("backtest.values")
WRITER: Final = "qmtl.backtest.values"
CHUNK_ROWS: Final = 65_536
"""Buckets of a row at most: half of what a record may hold."""

_WHERE: Final = TopicPartition(VALUES.name, 0)
_POLLED: Final = 16
"""Rows that are read at once; each may have half a mebibyte."""
_ATTEMPTS: Final = 5
_FLOAT: Final = np.dtype("<f8")
_ROWS: Final = frozenset({ColumnChunk})


class NodeValues:
    """The columns of nodes on a log, of any number of contexts.

    Several processes may use one log on Kafka: what two of them keep of a node is the same, and the later one wins.

    Args:
        log: its topic is made; it may have other topics.

    Attributes:
        refused: what was not used though it was there, and what could not be read or kept, as it was met. No run ends by it.
        cross_context_hits: rows of a node that were computed in another context than that under whose key they lie; not used.

    Raises:
        TopicMismatch, LogUnreachable: the log does not take such values.
    """

    def __init__(self, log: Log) -> None:
        log.ensure_topics([VALUES])
        self.refused: list[ValuesRefused] = []
        self.cross_context_hits = 0
        self._log = log
        self._offsets: dict[bytes, int] = {}
        self._next = 0
        self._writer: Writer | None = None
        self._is_given_up = False

    def within(self, context: ComputeContext, bars: Mapping[str, BarColumns]) -> InContext:
        """Those of one context, as far as they are there by now.

        Args:
            bars: those of the context's fingerprint.

        Raises:
            InvalidValue: the context is one in safe mode, of which nothing may be used again.
        """
        found = InContext(self, context, bars)
        self._look()
        return found

    def rows(self, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """The values of those keys that are there."""
        places = {self._offsets[key]: key for key in keys if key in self._offsets}
        if not places or self._is_given_up:
            return {}
        try:
            read = self._read(min(places), max(places) + 1)
            return {
                places[one.offset]: one.value
                for one in read
                if one.offset in places and one.value is not None
            }
        except LogError as error:
            self._give_up("read", error)
            return {}

    def write(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Write keys and values, all or nothing."""
        for attempt in range(1, _ATTEMPTS + 1):
            if self._is_given_up:
                return
            try:
                self._commit(rows)
                return
            except LogError as error:
                # Another process may have the writer's id; each takes it when it has something to write.
                self.close()
                if attempt == _ATTEMPTS or not isinstance(error, TransactionError):
                    self._give_up("kept", error)

    def close(self) -> None:
        """Let go of the writer; the log stays open."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(LogError):
                writer.close()

    def _commit(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        if self._writer is None:
            self._writer = self._log.writer(WRITER)
        self._writer.begin()
        for key, value in rows:
            self._writer.append(*_WHERE, key, value)
        self._writer.commit({}, "", None)

    def _look(self) -> None:
        """Learn where the rows lie that have come since the last time."""
        try:
            end = self._log.stable_offsets([_WHERE])[_WHERE]
            for one in self._read(self._next, end):
                if one.value is None:
                    self._offsets.pop(one.key, None)
                else:
                    self._offsets[one.key] = one.offset
            self._next = end
        except LogError as error:
            self._give_up("read", error)

    def _read(self, begin: int, end: int) -> Iterator[Record]:
        begin = max(begin, self._log.begin_offsets([_WHERE])[_WHERE])
        if begin >= end:
            return
        reader = self._log.reader()
        try:
            reader.assign({_WHERE: begin})
            while reader.positions().get(_WHERE, 0) < end:
                for one in reader.poll(_POLLED, 0.1):
                    if one.offset < end:
                        yield one
        finally:
            reader.close()

    def _give_up(self, what: str, error: LogError) -> None:
        self._is_given_up = True
        self.refused.append(
            ValuesRefused(
                f"values of nodes could not be {what} ({error.code}: {error.what}); the rest of the run goes on without.",
                error.remedy,
            )
        )


class InContext:
    """The columns of nodes in one context, over its bars. It is a `Values` of `qmtl.backtest.signals`.

    Raises:
        InvalidValue: the context is one in safe mode, of which nothing may be used again.
    """

    def __init__(self, values: NodeValues, context: ComputeContext, bars: Mapping[str, BarColumns]) -> None:
        compute_key(_NO_NODE, context)
        self._values, self._context, self._bars = values, context, bars

    def find(self, node: ComputeNode, symbols: Sequence[str]) -> Mapping[str, Column] | None:
        """What a node gave of these symbols; None where not all of it is there as it has to be."""
        key = compute_key(node.node_id, self._context)
        keys = {symbol: self._keys(key, symbol) for symbol in symbols}
        found = self._values.rows([one for own in keys.values() for one in own])
        if not found:
            return None
        try:
            return {symbol: self._column(node, key, symbol, own, found) for symbol, own in keys.items()}
        except ValuesRefused as refused:
            self._values.refused.append(refused)
            return None

    def keep(self, node: ComputeNode, columns: Mapping[str, Column]) -> None:
        """Keep what a node gave; what is there of it is replaced."""
        key = compute_key(node.node_id, self._context)
        self._values.write(
            [
                (encode_key(VALUES.key_of(row)), codec.encode(row))
                for symbol, column in columns.items()
                for row in chunks_of(key, node.node_id, symbol, column)
            ]
        )

    def _keys(self, key: str, symbol: str) -> list[bytes]:
        return [encode_key((key, symbol, chunk)) for chunk in range(_chunks(len(self._bars[symbol])))]

    def _column(
        self, node: ComputeNode, key: str, symbol: str, keys: Sequence[bytes], found: Mapping[bytes, bytes]
    ) -> Column:
        values, there = [], []
        for chunk, own in enumerate(keys):
            row = self._row(node, symbol, found.get(own))
            if row.compute_key != key and row.node_id == node.node_id:
                self._values.cross_context_hits += 1
            count = min(len(self._bars[symbol]) - chunk * CHUNK_ROWS, CHUNK_ROWS)
            wanted = (
                key,
                node.node_id,
                symbol,
                chunk,
                len(keys),
                count,
                count * _FLOAT.itemsize,
                -(-count // 8),
            )
            said = (row.compute_key, row.node_id, row.symbol, row.chunk, row.chunks, row.rows)
            if (*said, len(row.values), len(row.there)) != wanted:
                raise _refusal(node, symbol, f"row {chunk} is of another context, node or length")
            values.append(np.frombuffer(row.values, _FLOAT))
            there.append(np.unpackbits(np.frombuffer(row.there, np.uint8), count=count).astype(np.bool_))
            if not np.isfinite(values[-1][there[-1]]).all():
                raise _refusal(node, symbol, f"row {chunk} has a value that is no finite number")
        return Column(np.concatenate(values).astype(np.float64, copy=False), np.concatenate(there))

    def _row(self, node: ComputeNode, symbol: str, value: bytes | None) -> ColumnChunk:
        if value is None:
            raise _refusal(node, symbol, "some rows are missing")
        try:
            row = codec.decode_as(value, _ROWS)
        except QmtlError as error:
            raise _refusal(node, symbol, f"{error.code}: {error.what}") from error
        assert isinstance(row, ColumnChunk)
        return row


def chunks_of(key: str, node_id: str, symbol: str, column: Column) -> Iterator[ColumnChunk]:
    """The rows of a column."""
    count = _chunks(len(column))
    for chunk in range(count):
        part = column.chunk(chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS)
        values = part.values.astype(_FLOAT, copy=False).tobytes()
        yield ColumnChunk(
            key, node_id, symbol, chunk, count, len(part), values, np.packbits(part.there).tobytes()
        )


def _chunks(rows: int) -> int:
    """A symbol without bars has one row, too, which says so."""
    return max(-(-rows // CHUNK_ROWS), 1)


def _refusal(node: ComputeNode, symbol: str, why: str) -> ValuesRefused:
    return ValuesRefused(
        f"the values of node {node.node_id} for {symbol!a:.80} that are on the log were not used, and computed anew: {why}.",
        "Nothing is to be done: they are kept anew. If it comes again, use another log.",
    )


_NO_NODE: Final = f"blake3:{'0' * 64}"
