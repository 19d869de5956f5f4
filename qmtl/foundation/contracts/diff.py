"""The diff by message: what a DAG would become if it were submitted now, asked for on the log and answered there in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class NodeOrigin(Enum):
    """What a node of the DAG finds: a topic of its own, none, so that one would be asked for, or one with an older schema's history."""

    REUSED = "reused"
    NEW = "new"
    BUFFERING = "buffering"


class DiffState(Enum):
    """How far an answer is: chunks are left, and nobody has acknowledged any for long, or all are acknowledged."""

    OPEN = "open"
    TIMEOUT = "timeout"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """A DAG message to be compared with the graph, which stays as it is.

    Attributes:
        strategy_id: the one that the message names.
        dag_json: UTF-8 JSON of at most 1 MiB, as in a submission.
        world_id: empty where none is meant; nothing is granted then but safe mode. One that is named is an id (`qmtl.foundation.common.ids`).
        execution_domain: any name of a domain or mode, as in `domain_of`; empty where nobody has decided.
        as_of: the state of the dataset to which a backtest or dry run is bound.
        partition: a tenant, strategy or portfolio within the world; no Kafka partition.
        dataset_fingerprint: of the very data behind `as_of`.
    """

    request_id: str
    strategy_id: str
    dag_json: bytes
    requested_at_ms: int
    world_id: str = ""
    execution_domain: str = ""
    as_of: str = ""
    partition: str = ""
    dataset_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class MappedNode:
    """A node of the DAG and the topic that it has or would get.

    Attributes:
        node_id: `blake3:<64 hex>`; two nodes of equal content share it.
        name: what the message calls it.
    """

    node_id: str
    name: str
    topic: str
    origin: NodeOrigin


@dataclass(frozen=True, slots=True)
class DiffChunk:
    """A part of an answer: a row of `dag.diff.chunks` by request and number, until it is acknowledged.

    Attributes:
        seq: from 0 on.
        last: no other comes behind it; so is a refusal.
        queue_map: at most 100 nodes, inputs before the nodes that read them.
        sentinel_id: of the version that a submission would make; empty in safe mode, which marks none.
        version: the label that the message gives.
        safe_mode: why the context was made safe, `missing_as_of` for example; empty where it is granted as it was asked for. What
            was computed before must not be used in safe mode, also of a node that is `REUSED`: its topic is told, not lent.
        released: it may be read; one that is not waits until those before it are acknowledged.
        accepted: False where a submission would be refused.
        code: empty where accepted, else the stable error code.
        detail: of a refusal, a line for each reason.
        request_digest: of the content that is answered, as in `DagOutcome`.
    """

    request_id: str
    seq: int
    last: bool
    queue_map: tuple[MappedNode, ...]
    sentinel_id: str
    version: str
    safe_mode: str
    released: bool
    accepted: bool = True
    code: str = ""
    detail: str = ""
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class AckChunk:
    """Somebody has this chunk and all before it."""

    request_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class DiffStream:
    """How far an answer is: a row of `dag.diff.streams`, for an hour after the last acknowledgement.

    Attributes:
        chunks: how many the answer has.
        acknowledged: how many of them are, from the first on; they are gone.
        released: how many may be, or might have been, read.
        heard_ms: the first tick after the request or the newest acknowledgement; None until it comes.
        timeouts: how often nothing was acknowledged for long.
        request_digest: of the content that is answered, as in `DagOutcome`.
    """

    request_id: str
    state: DiffState
    chunks: int
    acknowledged: int
    released: int
    heard_ms: int | None
    timeouts: int = 0
    request_digest: str = ""
