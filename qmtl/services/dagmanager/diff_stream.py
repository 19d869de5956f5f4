"""An answer in chunks, a window of them out at a time: asked for, acknowledged, stalled, given up.

All that there is of an answer lies in two tables: a row for each chunk that nobody has acknowledged yet, and a row that says how
far the whole is. Time is that of the clock's ticks, counted from the first one after the request or the newest acknowledgement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from typing import Final

import msgspec

from qmtl.engine.table import Table
from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.errors import InvalidDag, ReusedId
from qmtl.foundation.common.names import MAX_NAME
from qmtl.foundation.contracts.dag import AdminAct
from qmtl.foundation.contracts.diff import (
    AckChunk,
    DiffChunk,
    DiffRequest,
    DiffState,
    DiffStream,
    MappedNode,
)
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import HOUR_MS
from qmtl.services.dagmanager import repeats
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.diffing import difference
from qmtl.services.dagmanager.faults import lines
from qmtl.services.dagmanager.naming import MAX_NAME as MAX_TOPIC
from qmtl.services.dagmanager.prescan import Prescan
from qmtl.services.dagmanager.submission import LONGEST_ID

CHUNK_NODES: Final = 100
CHUNK_BYTES: Final = 1 << 20
WINDOW: Final = 10
"""Chunks that are out and not acknowledged, at most."""

TIMEOUT_MS: Final = 30_000
KEPT_MS: Final = HOUR_MS
"""After so long without an acknowledgement nothing is left of an answer, whether it was taken or not."""

_COUNTS: Final = 40
"""Bytes at most of the numbers of a chunk, and of those that say how long the texts of a node are."""

_WIDEST: Final = 4
"""Bytes of a character at most."""

LONGEST_NODE: Final = LONGEST_ID + MAX_NAME + MAX_TOPIC + _COUNTS
"""Bytes at most of a node that was admitted; names of nodes and topics are ASCII."""

_TEXTS: Final = attrgetter("node_id", "name", "topic")


class Streams:
    """Which answers there is a time to mind: memory beside `dag.diff.streams`, made from it again at any time."""

    def __init__(self) -> None:
        self._unheard: dict[str, None] = {}
        self._heard: dict[str, int] = {}
        self._open: dict[str, int] = {}

    def restore(self, rows: Iterable[DiffStream]) -> None:
        """Make everything again, from rows in their order."""
        self.__init__()  # type: ignore[misc] # no subclass has another one
        for row in sorted(rows, key=lambda row: row.heard_ms or 0):
            self.note(row)

    def note(self, row: DiffStream) -> None:
        """Remember how far an answer is; rows with a time come by it, those with the same one in their order."""
        self.forget(row.request_id)
        if row.heard_ms is None:
            self._unheard[row.request_id] = None
            return
        self._heard[row.request_id] = row.heard_ms
        if row.state is DiffState.OPEN:
            self._open[row.request_id] = row.heard_ms

    def stalled(self, request_id: str) -> None:
        """It was told of an answer that nobody acknowledges any more."""
        self._open.pop(request_id, None)

    def forget(self, request_id: str) -> None:
        for one in (self._unheard, self._heard, self._open):
            one.pop(request_id, None)

    def unheard(self) -> list[str]:
        """Those that no tick has come for since the request or the newest acknowledgement, in their order."""
        return sorted(self._unheard)

    def open_since(self, by_ms: int) -> list[str]:
        """Those of which nothing was acknowledged since then, though chunks are out, by their times, then in their order."""
        return list(_until(self._open, by_ms))

    def heard_by(self, by_ms: int) -> list[str]:
        """Those of which nothing was heard since then, by their times, then in their order."""
        return list(_until(self._heard, by_ms))


def ask(act: Act, streams: Streams, request: DiffRequest, said: bytes) -> None:
    """Answer a request; one that comes again is answered once, and other content under its id is refused while the answer is there.

    Args:
        said: the request as it lies on the log.
    """
    rows = act.step.table("dag.diff.streams")
    known: DiffStream | None = rows.get(request.request_id)
    if known is not None:
        try:
            repeats.require_same(known.request_digest, request)
        except ReusedId as error:
            repeats.note(act, request, error, blake3_hex(said))
        return
    chunks = answer(act.catalogue, request, act.prescan)
    out = min(len(chunks), WINDOW)
    digest = chunks[0].request_digest
    _put(
        rows,
        streams,
        DiffStream(request.request_id, DiffState.OPEN, len(chunks), 0, out, None, request_digest=digest),
    )
    for chunk in chunks:
        act.step.table("dag.diff.chunks").put(replace(chunk, released=chunk.seq < out))
    first = chunks[0]
    told = (
        f"{sum(len(one.queue_map) for one in chunks)} nodes" if first.accepted else f"refused: {first.code}"
    )
    told += f", safe mode: {first.safe_mode}" if first.safe_mode else ""
    act.note(AdminAct.DIFFED, request.request_id, detail="request", digest=blake3_hex(said))
    act.note(AdminAct.DIFFED, request.request_id, detail=f"response: {told}", digest=digest_of(chunks))


def acknowledge(act: Act, streams: Streams, message: AckChunk) -> None:
    """Drop what was acknowledged and let the next chunks out; anything but the news of a chunk that is out changes nothing."""
    rows, chunks = act.step.table("dag.diff.streams"), act.step.table("dag.diff.chunks")
    row: DiffStream | None = rows.get(message.request_id)
    if row is None or not row.acknowledged <= message.seq < row.released:
        return
    done = message.seq + 1
    for seq in range(row.acknowledged, done):
        chunks.delete(row.request_id, seq)
    out = min(row.chunks, done + WINDOW)
    for seq in range(row.released, out):
        chunks.put(replace(chunks.get(row.request_id, seq), released=True))
    state = DiffState.DONE if done == row.chunks else DiffState.OPEN
    _put(rows, streams, replace(row, state=state, acknowledged=done, released=out, heard_ms=None))


def mind(act: Act, streams: Streams) -> None:
    """At a tick: tell of the answers that nobody acknowledges any more, drop those that were left, begin to count for the others."""
    now_ms = act.at_ms
    rows, chunks = act.step.table("dag.diff.streams"), act.step.table("dag.diff.chunks")
    for request_id in streams.open_since(now_ms - TIMEOUT_MS):
        row: DiffStream = rows.get(request_id)
        rows.put(replace(row, state=DiffState.TIMEOUT, timeouts=row.timeouts + 1))
        streams.stalled(request_id)
        act.note(AdminAct.STALLED, request_id, detail=_far(row))
    for request_id in streams.heard_by(now_ms - KEPT_MS):
        row = rows.get(request_id)
        for seq in range(row.acknowledged, row.chunks):
            chunks.delete(request_id, seq)
        rows.delete(request_id)
        streams.forget(request_id)
        if row.state is not DiffState.DONE:
            act.note(AdminAct.GIVEN_UP, request_id, detail=_far(row))
    for request_id in streams.unheard():
        _put(rows, streams, replace(rows.get(request_id), heard_ms=now_ms))


def answer(catalogue: Catalogue, request: DiffRequest, prescan: Prescan | None = None) -> list[DiffChunk]:
    """All chunks of the answer to a request, none of them released; a refusal is one."""
    digest = repeats.content_digest(request)
    try:
        found = difference(catalogue, request, prescan)
    except InvalidDag as error:
        told = lines(error.reasons, error.more)
        return [
            DiffChunk(request.request_id, 0, True, (), "", "", "", False, False, error.code, told, digest)
        ]
    safe = found.downgrade.value if found.downgrade is not None else ""
    empty = DiffChunk(
        request.request_id,
        0,
        False,
        (),
        found.sentinel_id,
        found.version,
        safe,
        False,
        request_digest=digest,
    )
    room = CHUNK_BYTES - len(codec.encode(empty)) - _COUNTS
    parts = list(
        _hundreds(found.nodes) if room >= CHUNK_NODES * LONGEST_NODE else parts_of(found.nodes, room)
    )
    return [
        replace(empty, seq=seq, last=seq == len(parts) - 1, queue_map=part) for seq, part in enumerate(parts)
    ]


def parts_of(nodes: Sequence[MappedNode], room: int) -> Iterator[tuple[MappedNode, ...]]:
    """Nodes in their order, as many at a time as a chunk may have.

    Args:
        room: bytes; a node that is longer stands alone.
    """
    if all(_WIDEST * _length(part) + CHUNK_NODES * _COUNTS <= room for part in _hundreds(nodes)):
        yield from _hundreds(nodes)
        return
    part: list[MappedNode] = []
    size = 0
    for node in nodes:
        length = _size(node.node_id) + _size(node.name) + _size(node.topic) + _COUNTS
        if part and (len(part) == CHUNK_NODES or size + length > room):
            yield tuple(part)
            part, size = [], 0
        part.append(node)
        size += length
    if part:
        yield tuple(part)


def _hundreds(nodes: Sequence[MappedNode]) -> Iterator[tuple[MappedNode, ...]]:
    return (tuple(nodes[at : at + CHUNK_NODES]) for at in range(0, len(nodes), CHUNK_NODES))


def _length(part: Sequence[MappedNode]) -> int:
    """Characters of all texts of these nodes."""
    return sum(map(len, chain.from_iterable(map(_TEXTS, part))))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def digest_of(chunks: Iterable[DiffChunk]) -> str:
    """BLAKE3 over a whole answer as its reader has it in the end: the JSON of its chunks, fields in their order, without space."""
    return blake3_hex(msgspec.json.encode([replace(chunk, released=True) for chunk in chunks]))


def _put(rows: Table, streams: Streams, row: DiffStream) -> None:
    rows.put(row)
    streams.note(row)


def _far(row: DiffStream) -> str:
    return f"{row.acknowledged} of {row.chunks} chunks were acknowledged"


def _until(times: dict[str, int], by_ms: int) -> Iterator[str]:
    """The keys of the times up to one; the times lie in their order."""
    for key, at_ms in times.items():
        if at_ms > by_ms:
            return
        yield key
