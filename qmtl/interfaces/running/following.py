"""Follows one strategy on a log: tables as they are and as they become others, intents, orders and fills as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from qmtl.engine.log.port import Log, Positions, Record, TopicPartition
from qmtl.engine.view import BATCH, all_partitions
from qmtl.foundation.contracts.dag import VersionSentinel
from qmtl.foundation.contracts.node import NodeState, NodeStatus
from qmtl.foundation.contracts.trade import Fill, Order, OrderIntent, OrderRejection
from qmtl.foundation.contracts.world import Activation, PositionSide, World
from qmtl.foundation.wire.keys import encode_key, is_reserved, key_prefix
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.running.events import (
    Activated,
    Filled,
    Intent,
    NodeChanged,
    Ordered,
    Rejected,
    RunEvent,
    VersionChanged,
    WorldChanged,
)
from qmtl.interfaces.running.gate import OrderGate

TABLES: Final = ("world.state", "dag.sentinels", "activation", "node.state")
"""Read from their beginning: what they say now is told first."""

STREAMS: Final = ("trade.intents", "trade.orders", "trade.fills", "trade.rejections")

_RANKS: Final = {name: at for at, name in enumerate((*TABLES, *STREAMS))}
_WAIT_S: Final = 0.1


def places(log: Log, since_ms: int | None = None) -> Positions:
    """From where intents, orders, fills and rejections are told: asked before a strategy is published, so that nothing of it is missed.

    Args:
        since_ms: those that were written from then on; None for those that come from now on.

    Raises:
        UnknownTopic: the log lacks one of the topics.
    """
    streams = [where for name in STREAMS for where in all_partitions(log, name)]
    ends = log.stable_offsets(streams)
    if since_ms is None:
        return ends
    earlier = log.offsets_at_time(streams, since_ms)
    return {where: min(earlier[where], end) for where, end in ends.items()}


class Follower:
    """One reader over all that concerns a strategy. Not thread-safe.

    What comes of one partition is told in its order; what comes of several at once by the time at which it was written, and at one time in the order
    of `TABLES` and `STREAMS`.

    Args:
        names: of the strategy's nodes, by their ids.
        begins: from where the streams are told, see `places`.

    Raises:
        UnknownTopic: the log lacks one of the topics.
    """

    def __init__(
        self,
        log: Log,
        world_id: str,
        strategy_id: str,
        sentinel_id: str,
        names: Mapping[str, str],
        begins: Positions,
    ) -> None:
        self._log = log
        self._names = names
        self._strategy_id = strategy_id
        self._gate = OrderGate()
        self._told: dict[str, NodeChanged] = {}
        self._version: VersionChanged | None = None
        self._world: WorldChanged | None = None
        self._written_ms: dict[TopicPartition, int] = {}
        nodes = {encode_key((node_id,)): node_id for node_id in names}
        exact = {"world.state": encode_key((world_id,)), "dag.sentinels": encode_key((sentinel_id,))}
        strategy, world = key_prefix((world_id, strategy_id)), key_prefix((world_id,))
        self._nodes = nodes
        self._concerns: Mapping[str, Callable[[bytes], bool]] = {
            **{name: _is(key) for name, key in exact.items()},
            "node.state": nodes.__contains__,
            **{name: _begins(strategy) for name in ("activation", "trade.intents", "trade.rejections")},
            **{name: _begins(world) for name in ("trade.orders", "trade.fills")},
        }
        self._tables = [where for name in TABLES for where in all_partitions(log, name)]
        self._streams = list(begins)
        self._reader = log.reader()
        try:
            self._reader.assign({**log.begin_offsets(self._tables), **begins})
            self._waiting: list[RunEvent] = self._present()
        except BaseException:
            self._reader.close()
            raise

    def poll(self, timeout_s: float) -> list[RunEvent]:
        """What is new; waits for so long where there is nothing.

        Raises:
            LogError: the log did not answer; what was not told is told later.
            WireError: a record that this version can't read.
        """
        if self._waiting:
            found, self._waiting = self._waiting, []
            return found
        return list(self._tell(self._ordered(self._reader.poll(BATCH, timeout_s))))

    def drain(self) -> list[RunEvent]:
        """All that was committed by now.

        Raises:
            LogError, WireError: as `poll`.
        """
        out = self.poll(0.0)
        ends = self._log.stable_offsets([*self._tables, *self._streams])
        while any(self._reader.positions().get(where, 0) < end for where, end in ends.items()):
            out += self.poll(_WAIT_S)
        return out

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the nodes that were told to be in state error, in the order in which the names were given."""
        told = [self._told.get(node_id) for node_id in self._names]
        return tuple(one.name for one in told if one is not None and one.status is NodeStatus.ERROR)

    def close(self) -> None:
        self._reader.close()

    def _present(self) -> list[RunEvent]:
        """What the tables say now: the last row of each key, in their order, and what came of the streams meanwhile behind them."""
        ends = self._log.stable_offsets(self._tables)
        rows: dict[tuple[int, bytes], Record] = {}
        later: list[Record] = []
        while any(self._reader.positions().get(where, 0) < end for where, end in ends.items()):
            for record in self._reader.poll(BATCH, _WAIT_S):
                if record.topic in TABLES:
                    rows[_RANKS[record.topic], record.key] = record
                else:
                    later.append(record)
        present = [rows[key] for key in sorted(rows)]
        return [*self._tell(present), *self._tell(self._ordered(later))]

    def _ordered(self, records: Iterable[Record]) -> list[Record]:
        """By the time of writing, which never goes back within a partition here, whatever the writers' clocks do."""
        keyed = []
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            at_ms = max(record.timestamp_ms, self._written_ms.get(where, 0))
            self._written_ms[where] = at_ms
            keyed.append(((at_ms, _RANKS[record.topic], record.partition, record.offset), record))
        return [record for _, record in sorted(keyed, key=lambda one: one[0])]

    def _tell(self, records: Iterable[Record]) -> Iterator[RunEvent]:
        for record in records:
            if is_reserved(record.key) or not self._concerns[record.topic](record.key):
                continue
            if record.value is None:
                event = self._gone(record)
            else:
                event = self._event(codec.decode(record.value))
            if event is not None:
                yield event

    def _gone(self, record: Record) -> RunEvent | None:
        """A row that is no more says something of a node alone: no worker has it."""
        if record.topic != "node.state":
            return None
        node_id = self._nodes[record.key]
        return self._changed(NodeChanged(node_id, self._names[node_id], None, 0))

    def _changed(self, event: NodeChanged) -> NodeChanged | None:
        """A node's row is also written for what its other strategies are."""
        before = self._told.get(event.node_id)
        self._told[event.node_id] = event
        return event if event != before else None

    def _event(self, message: object) -> RunEvent | None:
        match message:
            case World():
                said = WorldChanged(message.world_id, message.status)
                is_new, self._world = said != self._world, said
                return said if is_new else None
            case VersionSentinel():
                version = VersionChanged(
                    message.sentinel_id, message.version, message.status, message.traffic_weight
                )
                is_new, self._version = version != self._version, version
                return version if is_new else None
            case Activation():
                return self._switched(message)
            case NodeState():
                name = self._names[message.node_id]
                return self._changed(
                    NodeChanged(
                        message.node_id,
                        name,
                        message.status,
                        message.since_bucket_ms,
                        message.cause_code,
                        message.cause,
                    )
                )
            case OrderIntent():
                return Intent(
                    message.symbol,
                    message.bucket_ms,
                    message.target_percent,
                    message.reference_price,
                    message.intent_index,
                )
            case OrderRejection():
                return Rejected(
                    message.symbol, message.bucket_ms, message.intent_index, message.reason, message.detail
                )
            case Order(strategy_id=self._strategy_id):
                return Ordered(
                    message.order_id,
                    message.symbol,
                    message.side,
                    message.quantity,
                    message.cum_quantity,
                    message.status,
                    message.reduce_only,
                    message.updated_at_ms,
                )
            case Fill(strategy_id=self._strategy_id):
                return Filled(
                    message.order_id,
                    message.seq,
                    message.symbol,
                    message.side,
                    message.quantity,
                    message.price,
                    message.fee,
                    message.fee_currency,
                    message.fill_time_ms,
                )
            case _:
                return None  # another strategy's

    def _switched(self, row: Activation) -> Activated | None:
        if not self._gate.switch(row):
            return None
        return Activated(
            row.side,
            self._gate.state(PositionSide.LONG),
            self._gate.state(PositionSide.SHORT),
            row.active,
            row.weight,
            row.freeze,
            row.drain,
            row.effective_mode,
            row.version,
            row.etag,
            row.updated_at_ms,
        )


def _is(key: bytes) -> Callable[[bytes], bool]:
    return lambda other: other == key


def _begins(prefix: bytes) -> Callable[[bytes], bool]:
    return lambda key: key.startswith(prefix)
