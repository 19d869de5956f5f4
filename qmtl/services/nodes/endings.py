"""When a node is completed: it has been active, and the input of every source above it has ended.

The end of an input is a record of the source's topic, in the last bucket that has bars. So on every shard, and whenever the log is read
again, a node is completed with the bucket with which the last of its inputs ends, and active again with the first bar after it. A node
that has not seen enough by then stays in its warm-up: it has given no output that could be complete, and waits for data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from qmtl.foundation.contracts.node import NodeState, NodeStatus


def settled(state: NodeState, sources: Sequence[str], ended: Collection[str], bucket_ms: int) -> NodeState:
    """A node's state once it is known which inputs have ended; the same one where that changes nothing.

    Args:
        sources: above the node, as its ports lead to them.
        ended: the sources whose input has ended, also others than these.
        bucket_ms: with which this is so.
    """
    over = tuple([one for one in sources if one in ended])
    is_over = bool(sources) and len(over) == len(sources)
    if is_over and state.status is NodeStatus.ACTIVE:
        return replace(state, status=NodeStatus.COMPLETED, since_bucket_ms=bucket_ms, ended=over)
    if state.status is NodeStatus.COMPLETED and not is_over:
        return replace(state, status=NodeStatus.ACTIVE, since_bucket_ms=bucket_ms, ended=over)
    return state if over == state.ended else replace(state, ended=over)
