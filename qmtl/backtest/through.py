"""The intents of a backtest once more, through a node set, stage by stage and bucket by bucket: slower, and it leaves the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qmtl.backtest.simulation import Simulated
from qmtl.foundation.common.errors import InvalidNodeSet
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, OrderRejection, Position
from qmtl.runtime.nodesets.node_set import NodeSet
from qmtl.runtime.transforms.chain import ChainBucket


@dataclass(frozen=True, slots=True)
class Executed:
    """What a node set has made of a strategy's intents.

    Attributes:
        orders: by id, as they ended.
        positions: by symbol.
        published: how many orders its hook has taken.
    """

    orders: Mapping[str, Order]
    fills: tuple[Fill, ...]
    rejections: tuple[OrderRejection, ...]
    account: Account
    positions: Mapping[str, Position]
    published: int


def through(nodeset: NodeSet, done: Simulated, strategy_id: str = "") -> Executed:
    """Lead what a strategy wanted in a backtest through a node set, over the same bars, gates and terms.

    Args:
        strategy_id: which; it may be left out where there is one.

    Raises:
        InvalidNodeSet: a set in live, whose fills come from a venue; another world; or a strategy that was not run.
    """
    names = [graph.strategy_id for graph in done.graphs]
    if not strategy_id and len(names) == 1:
        strategy_id = names[0]
    if strategy_id not in names:
        raise InvalidNodeSet(
            f"strategy_id was {strategy_id!r}; the backtest ran {', '.join(names)}.", "Name one of them."
        )
    if nodeset.settings().mode == "live":
        raise InvalidNodeSet(
            "mode of the node set was 'live'; over the bars of a backtest nothing comes from a venue.",
            "Attach it in 'simulate' or 'paper'.",
        )
    run = nodeset.in_world(done.world, strategy_id, done.interval)
    bars: dict[int, list[Bar]] = {}
    for symbol in sorted(done.bars):
        for bar in done.bars[symbol].bars():
            bars.setdefault(bar.open_time_ms + done.interval * 1000, []).append(bar)
    intents: dict[int, list[OrderIntent]] = {}
    for intent in done.intents:
        if intent.strategy_id == strategy_id:
            intents.setdefault(intent.bucket_ms, []).append(intent)
    gates = tuple([one for one in done.gates if one.strategy_id == strategy_id])
    step_ms = done.interval * 1000
    first_ms = done.start_ms  # the bucket in which the world is made and its gates are opened; it has no bar
    state = run.begin(first_ms)
    fills: list[Fill] = []
    rejections: list[OrderRejection] = []
    published = 0
    for bucket_ms in range(first_ms, done.end_ms + 1, step_ms):
        found = run.step(
            state,
            ChainBucket(
                bucket_ms,
                gates if bucket_ms == first_ms else (),
                tuple(bars.get(bucket_ms, ())),
                tuple(intents.get(bucket_ms, ())),
            ),
        )
        state = found.state
        fills += found.fills
        rejections += found.rejections
        published += found.published
    left = state.before
    return Executed(
        dict(left.orders), tuple(fills), tuple(rejections), left.account, dict(left.positions), published
    )
