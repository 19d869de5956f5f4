"""A backtest: bars through the nodes of strategies, their intents through trading, step by step where something happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qmtl.backtest.by_rules import by_rules
from qmtl.backtest.kept import Kept, Outcome
from qmtl.backtest.ledger import Ledger, Unusual
from qmtl.backtest.recording import OnLog, Recorded, Recorder
from qmtl.backtest.signals import Fault, Nodes, Values, Want, wants_of
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, OrderRejection, Position
from qmtl.foundation.contracts.world import Activation, PositionSide, World
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.sdk.functions import Functions
from qmtl.services.dagmanager.graph import Graph


@dataclass(frozen=True, slots=True)
class Run:
    """What a backtest has come to.

    Attributes:
        outcomes: of each strategy, in the order of the graphs.
        computed: how many different nodes were computed.
        faults: nodes whose function failed; everything else went on.
        reused: how many different nodes were not computed, as their values were known.
    """

    outcomes: tuple[Outcome, ...]
    computed: int
    faults: tuple[Fault, ...] = ()
    reused: int = 0

    @property
    def intents(self) -> tuple[OrderIntent, ...]:
        return tuple([row for one in self.outcomes for row in one.intents])

    @property
    def orders(self) -> dict[str, Order]:
        return {order_id: row for one in self.outcomes for order_id, row in one.orders.items()}

    @property
    def fills(self) -> list[Fill]:
        return [row for one in self.outcomes for row in one.fills]

    @property
    def rejections(self) -> list[OrderRejection]:
        return [row for one in self.outcomes for row in one.rejections]

    def rows(self) -> Iterator[Position | Account]:
        """The portfolio, as it is at the end."""
        return (row for one in self.outcomes for row in one.rows())


def backtest(
    graphs: Sequence[Graph],
    bars: Mapping[str, BarColumns],
    world: World,
    gates: Sequence[Activation],
    opened_ms: int,
    step_ms: int,
    *,
    functions: Functions | None = None,
    recorder: Recorder | None = None,
    values: Values | None = None,
    alone: bool = False,
) -> Run:
    """Run strategies of one world over bars.

    Each strategy has its own account, so they are gone through one after the other.

    Args:
        opened_ms: the bucket with which the accounts begin.
        step_ms: between two buckets of the run: the cut that is read is the bucket's before.
        functions: those that Python nodes may run; without any only what is registered in this process.
        recorder: writes every row to a log, where they are read again when somebody asks; without it they are kept in memory.
        values: what nodes gave in earlier runs over these bars.
        alone: go through every step with the rules of trading alone, which is slower and leaves the same.
    """
    nodes = Nodes(bars, functions, values)
    last_ms = max(int(one.bucket_ms[-1]) for one in bars.values() if len(one))
    course = Course(bars, world, opened_ms, step_ms, last_ms, recorder)
    if recorder is not None:
        recorder.begun(world, gates)
    outcomes = []
    for graph in graphs:
        wants = wants_of(graph, nodes.of(graph), bars)
        own = [gate for gate in gates if gate.strategy_id == graph.strategy_id]
        outcomes.append(course.go(graph.strategy_id, wants, own, alone=alone))
    return Run(tuple(outcomes), nodes.computed, tuple(nodes.faults), nodes.reused)


class Course:
    """What all strategies of a run have in common."""

    def __init__(
        self,
        bars: Mapping[str, BarColumns],
        world: World,
        opened_ms: int,
        step_ms: int,
        last_ms: int,
        recorder: Recorder | None,
    ) -> None:
        self._bars, self._world, self._recorder = bars, world, recorder
        self._opened_ms, self._step_ms, self._last_ms = opened_ms, step_ms, last_ms
        self._columns = {symbol: (one, one.bucket_ms) for symbol, one in bars.items()}

    def go(
        self, strategy_id: str, wants: Iterable[Want], gates: Sequence[Activation], *, alone: bool
    ) -> Outcome:
        recorder = self._recorder
        before = 0 if recorder is None else recorder.rows
        if not alone:
            try:
                return self._by_ledger(strategy_id, wants, gates)
            except Unusual:
                pass  # the rules take the same steps up to there, so what is on the log already is theirs
        done = 0 if recorder is None else recorder.rows - before

        def tell(topic_name: str, row: object) -> None:
            nonlocal done
            if done:
                done -= 1
            elif recorder is not None:
                recorder.put(topic_name, row)

        return by_rules(
            self._world,
            strategy_id,
            gates,
            self._opened_ms,
            self._bars,
            wants,
            self._step_ms,
            self._last_ms,
            tell,
        )

    def _by_ledger(self, strategy_id: str, wants: Iterable[Want], gates: Sequence[Activation]) -> Outcome:
        world, recorder = self._world, self._recorder
        sides = {gate.side: gate for gate in gates}
        sink: Kept | Recorded
        if recorder is None:
            sink = Kept(world.world_id, strategy_id, world.settings.currency)
        else:
            sink = Recorded(recorder, world, strategy_id)
        ledger = Ledger(
            world,
            strategy_id,
            sides.get(PositionSide.LONG),
            sides.get(PositionSide.SHORT),
            self._opened_ms,
            self._columns,
            sink,
        )
        ledger.run(wants, self._step_ms, self._last_ms)
        return sink if isinstance(sink, Kept) else OnLog(sink, ledger)
