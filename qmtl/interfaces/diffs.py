"""A diff by message from the side of whoever asks: sent once, gathered in order, acknowledged, and asked for again where it is silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qmtl.engine.log.port import TopicPartition, Writer
from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import (
    CommandRefused,
    LogUnreachable,
    NoAnswer,
    OutcomeUnknown,
    QmtlError,
    TransactionAborted,
)
from qmtl.foundation.contracts.diff import AckChunk, DiffChunk, DiffRequest, MappedNode
from qmtl.foundation.wire.keys import encode_key, key_prefix
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.services.dagmanager.repeats import content_digest, require_same, same_as

if TYPE_CHECKING:
    from qmtl.interfaces.client import Client, Placed

BACKOFF_S: Final = (0.5, 1.0, 2.0, 4.0, 4.0)
"""How long an answer may take before each of five further attempts; the last one gets as long as the one before it."""

_REQUESTS: Final = "dag.diff.requests"
_ACKS: Final = "dag.diff.acks"
_CHUNKS: Final = "dag.diff.chunks"


@dataclass(frozen=True, slots=True)
class DiffMap:
    """A whole answer.

    Attributes:
        sentinel_id: of the version that a submission would make; empty in safe mode.
        safe_mode: why the context was made safe; empty where it is granted as it was asked for.
        nodes: of the message, inputs before the nodes that read them.
    """

    request_id: str
    version: str
    sentinel_id: str
    safe_mode: str
    nodes: tuple[MappedNode, ...]

    @property
    def may_reuse(self) -> bool:
        """Whether values that were computed before may be used in this context."""
        return not self.safe_mode


class DiffReader:
    """One request and its answer. Who comes back after a crash makes another one for the same request.

    Chunks are taken from the topic's records, those from the moment before the request was sent. Where that was answered before, and so
    brings nothing new, all records are read: the table's last rows have no more what was acknowledged before the crash, the records have it for
    a day.
    """

    def __init__(self, client: Client, request: DiffRequest) -> None:
        self._client = client
        self._request = request
        self._digest = content_digest(request)
        self._id = f"diff.{blake3_hex(request.request_id.encode(), 16)}"
        self._at: dict[TopicPartition, int] | None = None
        self._placed: Placed | None = None
        self._looked_back = False
        self._prefix = key_prefix((request.request_id,))
        self._found: dict[int, DiffChunk] = {}
        self._chunks: list[DiffChunk] = []
        self._writer: Writer | None = None

    def run(self) -> DiffMap:
        """Ask, and gather the whole answer.

        Raises:
            CommandRefused: the request was refused.
            ReusedId: its id is another request's.
            NoAnswer, LogUnreachable, TransactionAborted, OutcomeUnknown: the last of all attempts ended so.
        """
        tries = 0
        problem: QmtlError
        try:
            while True:
                pause_s = BACKOFF_S[min(tries, len(BACKOFF_S) - 1)]
                try:
                    self._send()
                    if self._chunks and self._chunks[-1].last:
                        return self._whole()
                    moved, problem = self._client.within(pause_s, self._read), self._silence()
                except (LogUnreachable, TransactionAborted, OutcomeUnknown) as error:
                    self._drop_writer()
                    moved, problem = self._client.within(pause_s, bool), error
                tries = 0 if moved else tries + 1
                if tries > len(BACKOFF_S):
                    raise problem
        finally:
            self._drop_writer()

    def _send(self) -> None:
        """The request, or that everything up to the newest chunk is here."""
        if self._chunks:
            self._acknowledge()
            return
        if self._at is None:
            self._at = self._client.tail(_CHUNKS).end()
        if self._placed is not None and self._client.has_taken(self._placed):
            if not self._looked_back:
                self._at, self._looked_back = {}, True
            return
        self._placed = self._client.place(_REQUESTS, self._request, same_as(self._request), self._id)

    def _acknowledge(self) -> None:
        if self._writer is None:
            self._writer = self._client.log.writer(f"qmtl.client.{self._id}")
        message = AckChunk(self._request.request_id, len(self._chunks) - 1)
        spec = topic(_ACKS)
        self._writer.begin()
        self._writer.append(_ACKS, 0, encode_key(spec.key_of(message)), codec.encode(message))
        self._writer.commit({}, "qmtl.client", None)

    def _read(self) -> bool:
        """Take what has come; returns whether the answer goes on."""
        assert self._at is not None
        before, theirs = len(self._chunks), ""
        for record in self._client.tail(_CHUNKS).read(self._at):
            if record.value is not None and record.key.startswith(self._prefix):
                chunk: DiffChunk = codec.decode(record.value)
                is_mine = chunk.request_digest in ("", self._digest)
                theirs = "" if is_mine else chunk.request_digest
                if chunk.seq == 0:  # each answer begins so: what came before is of one that was given up
                    self._found.clear()
                    self._chunks.clear()
                if is_mine and chunk.released:
                    self._found[chunk.seq] = chunk
        require_same(theirs, self._request)
        while (chunk_or_none := self._found.pop(len(self._chunks), None)) is not None:
            self._chunks.append(chunk_or_none)
        return len(self._chunks) > before

    def _whole(self) -> DiffMap:
        first = self._chunks[0]
        if not first.accepted:
            raise CommandRefused(f"the DAG Manager refused [{first.code}]: {first.detail}")
        nodes = tuple(node for chunk in self._chunks for node in chunk.queue_map)
        return DiffMap(first.request_id, first.version, first.sentinel_id, first.safe_mode, nodes)

    def _silence(self) -> NoAnswer:
        return NoAnswer(
            f"the DAG Manager said nothing more to request {self._request.request_id!a:.80} after {len(self._chunks)} chunks.",
            "Start it with `qmtl worker run dagmanager`, then ask again; after an hour of silence under another id.",
        )

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def diff_id(request: DiffRequest) -> str:
    """An id for a request that has none: what is asked, and when."""
    asked = (
        request.strategy_id,
        request.dag_json,
        request.requested_at_ms,
        request.world_id,
        request.execution_domain,
        request.as_of,
        request.partition,
        request.dataset_fingerprint,
    )
    return blake3_hex(canonical_bytes(("qmtl.diff", *asked)), 16)
