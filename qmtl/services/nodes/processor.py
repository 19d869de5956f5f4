"""Node workers on their topics: deployments and bars in; every node's values, and the strategies' intents, out.

A task computes the nodes of its shard (`plan`) in one pass over a closed bucket, inputs first; what lives on another shard is
read from its topic. What a node remembers is a row of `node.windows`, written once per transaction; which nodes run is
`node.deployments`, so a restart knows what to read. Every shard closes every bucket of the clock, also one without nodes.

A row of `dag.strategies` is taken between two buckets. Nodes that the old and the new one share go on as they are. A node that no
strategy has any more is forgotten, with all its rows: its topic is not closed any further, and if it comes back it begins with
its warm-up again. So a version that is rolled back to warms up what nobody else has computed meanwhile. A node that has another topic
than before closes the old one no further, and begins anew with all that is computed from it.

What is computed for those who have a strategy's traffic before, and for nobody else, goes with the bucket at which that ends, on each shard
that knows it by then; on the others when they read it. Nothing is lost by that, as the desk reads it too: it waits for what is closed no
further until it knows that nobody has to.

All is computed in the context of `dag.context`. The compute key of a node, its id in that context, stands in its state, and in the hashes of its
input windows: what it keeps belongs to that key. In another context nothing of it is used: it is dropped, counted, and the node begins anew.
A shard hears of another context at its own time. So a value says under which key it was computed, and on another shard nothing is computed with
one of another key; each node that gave such values in a bucket is counted too. What was computed before anybody said a context is not used in one
either, and not counted: nothing was crossed, as there was but one.

A Python node runs a function that its author wrote, which a worker has or has not. Without it, and once it has failed, the node is in state error with
its cause in `node.state`; it gives nothing from that bucket on, for no symbol, and what reads it gets nothing. All others go on.

A node that reads the portfolio back makes a delayed edge of `trade.portfolio`: its shard computes a bucket once trading has closed the one before, and
sees that cut and nothing newer, whatever was committed meanwhile. Only the shard on which such a node lives has the edge, and only while one does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never

from qmtl.engine.letters import Cause, letter_of
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.commit_log import input_window_hash
from qmtl.foundation.common.errors import (
    CodeDiffers,
    CodeMissing,
    ComputeFailed,
    DuplicateRecord,
    InvalidBar,
    PoisonRecord,
    QmtlError,
    WorldNotNamed,
)
from qmtl.foundation.contracts.context import NO_CONTEXT, LogContext, NodeContext
from qmtl.foundation.contracts.control import DeadLetter
from qmtl.foundation.contracts.dag import PlannedNode, StrategyStatus, StrategyVersion
from qmtl.foundation.contracts.market import Bar, EndOfInput, WorldBar
from qmtl.foundation.contracts.node import (
    NodeDeployment,
    NodeState,
    NodeStatus,
    NodeValue,
    NodeWindow,
    PositionTarget,
)
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.wire.shards import needed_by, nodes_of, shards_of
from qmtl.foundation.wire.topics import SHARDS, TopicSpec, topic
from qmtl.runtime.indicators.builtin import Output, PositionTargetValue, Running
from qmtl.runtime.indicators.registry import BUILTINS
from qmtl.runtime.sdk.functions import Functions
from qmtl.runtime.sdk.portfolio_node import PortfolioParams
from qmtl.runtime.sdk.python_node import PythonParams, PythonRunning
from qmtl.services.nodes.arrivals import Bars, bar_of, breach, inputs_of
from qmtl.services.nodes.context import NAMED, ComputeKeys
from qmtl.services.nodes.endings import settled
from qmtl.services.nodes.plan import Plan, PlanNode, begun_anew, make_plan, taken_over
from qmtl.services.nodes.portfolio import PORTFOLIO_EDGE, PortfolioCopy
from qmtl.services.nodes.resident import window_bytes

DEPLOYMENTS: Final = Input("dag.strategies", broadcast=True)
_LONGEST_CAUSE: Final = 1000
IDLE_AFTER: Final = 60
"""Buckets of the clock for which a source that owes a bar is waited for; then the others go on without it, and it is late."""

_NO_WORLD: Final = WorldNotNamed(
    "the context of this log names no one world, and a portfolio is one world's.",
    "Give the world a namespace of its own, and say its context (`qmtl service dagmanager context set --world`).",
)

CONTEXT: Final = Input("dag.context", broadcast=True)
CLOCK: Final = Input("clock", bucketed=True, broadcast=True)


class Nodes:
    """Computes each shared node once, for every symbol of its source."""

    name = "nodes"
    anchor = "trade.intents"
    tables = ("node.deployments", "node.state", "node.windows", "node.context")
    emits = ("trade.intents", "trade.market")

    def __init__(self, functions: Functions | None = None) -> None:
        """Args: functions, those that Python nodes may run; without any only what is registered in this process."""
        self._functions = Functions() if functions is None else functions
        self._plan = Plan()
        self._shard = 0
        self._inputs: tuple[Input, ...] = (DEPLOYMENTS, CONTEXT, CLOCK)
        self._closes: tuple[TopicSpec, ...] = (topic("trade.intents"), topic("trade.market"))
        self._closes_next: tuple[TopicSpec, ...] = self._closes
        self._running: dict[tuple[str, str], Running] = {}
        self._touched: dict[tuple[str, str], None] = {}
        self._weights: dict[tuple[str, str], int] = {}
        self._resident = 0
        self._keys = ComputeKeys(None)
        self._ended: dict[str, None] = {}
        self._portfolio = PortfolioCopy()

    @property
    def resident_bytes(self) -> int:
        """Bytes of the windows that are in memory: those of the nodes and symbols that were computed since the task was opened."""
        return self._resident + self._portfolio.resident_bytes

    def inputs(self) -> tuple[Input, ...]:
        return self._inputs

    def closes(self) -> tuple[TopicSpec, ...]:
        return self._closes

    def topics(self) -> Mapping[str, TopicSpec]:
        return self._plan.topics

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._running.clear()
        self._touched.clear()
        self._weights.clear()
        self._resident = 0
        self._portfolio.restore()
        self._shard = tables["node.deployments"].partition
        self._keys = ComputeKeys(tables["node.context"].get(self._shard))
        self._replan(tables["node.deployments"])
        self._learn_ended(tables["node.state"])

    def _replan(self, deployments: Table) -> None:
        rows: Iterator[NodeDeployment] = deployments.items()
        self._plan = make_plan((one.strategy for one in rows), self._shard, SHARDS)
        sources = sorted({(one.node.topic, one.node.interval * 1000) for one in self._plan.sources})
        others = sorted({one.node.topic for one in self._plan.nodes if not one.is_source and not one.here})
        self._inputs = (
            DEPLOYMENTS,
            CONTEXT,
            CLOCK,
            *(
                Input(name, bucketed=True, broadcast=True, joins=True, idle_after=IDLE_AFTER, every_ms=every)
                for name, every in sources
            ),
            *(Input(name, bucketed=True, broadcast=True) for name in others),
            *((PORTFOLIO_EDGE,) if any(one.is_feedback and one.here for one in self._plan.nodes) else ()),
        )
        outputs = sorted({one.node.topic for one in self._plan.nodes if not one.is_source and one.here})
        self._closes = self._closes_next = (
            *(self._plan.topics[name] for name in outputs),
            topic("trade.intents"),
            topic("trade.market"),
        )

    def on_record(self, step: Step, arrival: Arrival) -> None:
        message: StrategyVersion | LogContext = arrival.message
        match message:
            case StrategyVersion():
                self._deploy(step, message)
            case LogContext():
                self._enter(step, message)
            case _:
                assert_never(message)

    def _enter(self, step: Step, said: LogContext) -> None:
        """Compute in this context from now on. What is kept of another one is dropped and counted, and those nodes begin anew; what is kept
        of none is dropped."""
        contexts, states = step.table("node.context"), step.table("node.state")
        known: NodeContext | None = contexts.get(self._shard)
        if known is not None and known.context == said.context:
            return
        row = NodeContext(self._shard, said.context, 0 if known is None else known.hits)
        self._keys = ComputeKeys(row)
        here = dict.fromkeys(one.node.node_id for one in self._plan.nodes if one.here)
        hits = self._drop(step, here)
        if hits and known is not None and known.context != NO_CONTEXT:
            row = replace(row, hits=row.hits + len(hits), last_hits=tuple(hits[:NAMED]))
        contexts.put(row)
        for node_id in here:
            state: NodeState = states.get(node_id)
            key = self._keys.of(node_id)
            if node_id in hits or state.status is NodeStatus.ERROR:
                state = replace(
                    state, status=NodeStatus.INITIALIZED, since_bucket_ms=0, cause_code="", cause=""
                )
            states.put(replace(state, compute_key=key))

    def _deploy(self, step: Step, strategy: StrategyVersion) -> None:
        if strategy.status not in (StrategyStatus.READY, StrategyStatus.RETIRED):
            return
        deployments = step.table("node.deployments")
        where = (self._shard, strategy.world_id, strategy.strategy_id)
        known: NodeDeployment | None = deployments.get(*where)
        strategy = taken_over(strategy, step.closed_ms)
        lives = {*shards_of(nodes_of(strategy), SHARDS).values(), *needed_by(strategy)}
        if self._shard not in lives:
            if known is None:
                return
            strategy = replace(strategy, nodes=(), signals=(), canary=None, found=(), crowded=(), before=())
        if known is not None and known.strategy == strategy:
            return
        deployments.put(NodeDeployment(self._shard, strategy, step.closed_ms))
        self._follow(step, deployments)

    def _hand_over(self, step: Step, bucket_ms: int) -> None:
        """Compute no more for those whose traffic has ended with a bucket, which is closed with all that they have."""
        deployments = step.table("node.deployments")
        rows: list[NodeDeployment] = list(deployments.items())
        for row in rows:
            left = taken_over(row.strategy, bucket_ms)
            if left is not row.strategy:
                deployments.put(replace(row, strategy=left, closed_ms=bucket_ms))
        closes = self._closes
        self._follow(step, deployments)
        self._closes = closes

    def _follow(self, step: Step, deployments: Table) -> None:
        """Plan anew, and keep nothing of what is planned no more."""
        before = self._plan
        self._replan(deployments)
        self._forget(step, before)
        self._name(step)

    def _forget(self, step: Step, before: Plan) -> None:
        """Drop what is kept of the nodes that lived here and that no strategy has any more, or that begin anew."""
        stay = {one.node.node_id for one in self._plan.nodes} - begun_anew(before, self._plan)
        gone = {one.node.node_id: None for one in before.nodes if one.here and one.node.node_id not in stay}
        for node_id in gone:
            step.table("node.state").delete(node_id)
        self._drop(step, gone)

    def _drop(self, step: Step, node_ids: Collection[str]) -> list[str]:
        """Forget what these nodes keep; returns which of them had kept anything."""
        windows = step.table("node.windows")
        kept: dict[str, None] = {}
        for node_id in node_ids:
            rows: list[NodeWindow] = list(windows.items(node_id))
            for row in rows:
                kept[node_id] = None
                windows.delete(row.node_id, row.symbol)
        for key in [key for key in self._running if key[0] in node_ids]:
            del self._running[key]
            self._touched.pop(key, None)
            self._resident -= self._weights.pop(key, 0)
        return [node_id for node_id in node_ids if node_id in kept]

    def _name(self, step: Step) -> None:
        """Say of each node here which strategies it serves, and which of its inputs have ended."""
        states = step.table("node.state")
        for one in self._plan.nodes:
            if not one.here:
                continue
            names = tuple(f"{world}/{name}" for world, name in one.strategies)
            state: NodeState | None = states.get(one.node.node_id)
            if state is None:
                key = self._keys.of(one.node.node_id)
                named = NodeState(one.node.node_id, NodeStatus.INITIALIZED, 0, names, key)
            else:
                named = state if state.strategies == names else replace(state, strategies=names)
            named = settled(named, one.sources, self._ended, step.closed_ms)
            if named is not state:
                states.put(named)
        self._learn_ended(states)

    def _learn_ended(self, states: Table) -> None:
        """The sources whose input has ended, as the nodes here know."""
        rows: Iterator[NodeState] = states.items()
        self._ended = {source: None for row in rows for source in row.ended}

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        self._closes = self._closes_next
        values: dict[str, dict[str, Output]] = {}
        bars: dict[str, dict[str, Bar]] = {}
        foreign: dict[str, None] = {}
        ends: dict[str, None] = {}
        self._portfolio.take(step, bucket.arrivals.get(PORTFOLIO_EDGE.topic, ()))
        for one in self._plan.nodes:
            if one.is_source:
                taken = bars[one.node.node_id] = self._take(step, one, bucket, ends)
                values[one.node.node_id] = {symbol: float(bar.close) for symbol, bar in taken.items()}
            elif not one.here:
                values[one.node.node_id] = self._receive(step, one, bucket, bars, foreign)
            elif one.is_feedback:
                values[one.node.node_id] = self._look_back(step, one, bucket.bucket_ms, values)
            else:
                values[one.node.node_id] = self._compute(step, one, bucket.bucket_ms, values, bars, foreign)
            self._give(step, one, bucket.bucket_ms, values[one.node.node_id])
        if ends or self._ended:
            self._settle(step, bucket.bucket_ms, bars, ends)
        if foreign:
            contexts = step.table("node.context")
            row: NodeContext = contexts.get(self._shard)
            contexts.put(replace(row, hits=row.hits + len(foreign), last_hits=tuple(foreign)[:NAMED]))
        if self._plan.ends_ms is not None and self._plan.ends_ms <= bucket.bucket_ms:
            self._hand_over(step, bucket.bucket_ms)

    def _settle(self, step: Step, bucket_ms: int, bars: Bars, ends: Mapping[str, None]) -> None:
        """Complete the nodes whose inputs have ended with this bucket, and have those go on whose input does."""
        ended = {one: None for one in self._ended if not bars.get(one)}
        ended.update(ends)
        if not ends and len(ended) == len(self._ended):
            return
        states = step.table("node.state")
        for one in self._plan.nodes:
            if one.here:
                state: NodeState = states.get(one.node.node_id)
                if (now := settled(state, one.sources, ended, bucket_ms)) is not state:
                    states.put(now)
        self._ended = ended

    def _take(self, step: Step, one: PlanNode, bucket: Bucket, ends: dict[str, None]) -> dict[str, Bar]:
        """The bars of a source, which go to every world that it serves. One whose input ends with them is noted in `ends`."""
        out: dict[str, Bar] = {}
        arrivals: Sequence[Arrival] = bucket.arrivals.get(one.node.topic, ())
        for arrival in arrivals:
            if isinstance(arrival.message, EndOfInput):
                self._end(step, one, arrival, bucket.bucket_ms, ends)
                continue
            bar: Bar = arrival.message
            if (broken := breach(one, bar, bucket.bucket_ms)) is not None:
                if one.here:  # of the shards that read it, one says so
                    step.emit("dead.letters", _letter(arrival, InvalidBar.code, broken, self._shard))
                continue
            out[bar.symbol] = bar
            if one.here:
                for world_id in one.worlds:
                    step.emit("trade.market", WorldBar(world_id, bar))
        if one.here:
            self._note(step, one, NodeStatus.ACTIVE if out else NodeStatus.PRE_WARMUP, bucket.bucket_ms)
        return out

    def _end(
        self, step: Step, one: PlanNode, arrival: Arrival, bucket_ms: int, ends: dict[str, None]
    ) -> None:
        """Note that a source's input ends with this bucket; an end of another source or time is a dead letter."""
        said: EndOfInput = arrival.message
        if (said.interval, said.bucket_ms) == (one.node.interval, bucket_ms):
            ends[one.node.node_id] = None
        elif one.here:
            breach = f"the end of bars of {said.interval} s at {said.bucket_ms} came to a source of {one.node.interval} s with the bucket {bucket_ms}"
            step.emit("dead.letters", _letter(arrival, PoisonRecord.code, breach, self._shard))

    def _receive(
        self, step: Step, one: PlanNode, bucket: Bucket, bars: Bars, foreign: dict[str, None]
    ) -> dict[str, Output]:
        """What a node of another shard gave, by symbol. One whose values were computed in another context is noted in `foreign`.

        Three things are dead letters. A value that is there twice is used once: that of a node, a bucket and an input window which
        came before. It is looked for among those of this bucket alone, as one of another bucket is out of its time whatever it
        says. And a value without a bar can't be computed with: the source's topic has lost the bucket, or the bar is one that this
        shard refuses.
        """
        out: dict[str, Output] = {}
        used: set[tuple[str, str]] = set()
        key = self._keys.of(one.node.node_id)
        for arrival in bucket.arrivals.get(one.node.topic, ()):
            message: NodeValue | PositionTarget = arrival.message
            if message.bucket_ms != bucket.bucket_ms:
                late = f"a value of the bucket {message.bucket_ms} came with the bucket {bucket.bucket_ms}"
                step.emit("dead.letters", _letter(arrival, PoisonRecord.code, late, self._shard))
                continue
            if message.compute_key != key:
                if message.compute_key and key:
                    foreign[one.node.node_id] = None
                continue
            window = (message.node_id, message.input_window_hash)
            if window in used:
                twice = f"a value of {message.symbol} from the input window {window[1]} came before in this bucket"
                step.emit("dead.letters", _letter(arrival, DuplicateRecord.code, twice, self._shard))
                continue
            if window[1]:  # a record of old names none
                used.add(window)
            if one.sources and bar_of(one, message.symbol, bars) is None:
                lacks = f"a value of {message.symbol} came without a bar of its source"
                step.emit("dead.letters", _letter(arrival, PoisonRecord.code, lacks, self._shard))
                continue
            match message:
                case NodeValue(symbol=symbol, value=value):
                    out[symbol] = value
                case PositionTarget(symbol=symbol, target_percent=percent, reference_price=price):
                    out[symbol] = PositionTargetValue(percent, price)
                case _:
                    assert_never(message)
        return out

    def _look_back(
        self, step: Step, one: PlanNode, bucket_ms: int, values: Mapping[str, Mapping[str, Output]]
    ) -> dict[str, Output]:
        """What the bucket before has left of the portfolio, for every symbol that the node's input has a number of in this bucket."""
        out: dict[str, Output] = {}
        node_id, world_id = one.node.node_id, self._keys.world_id
        assert isinstance(one.params, PortfolioParams)  # as the plan parses those of its type
        if world_id is None:
            self._refuse(step, node_id, _NO_WORLD, bucket_ms)
            return out
        self._mend(step, node_id)
        key = self._keys.of(node_id)
        for symbol, inputs in inputs_of(one, values):
            value = self._portfolio.value(step, one.params, world_id, symbol)
            if inputs[0] is not None and value is not None:
                out[symbol] = float(value)
                window = input_window_hash(symbol, inputs, str(value).encode(), key)
                self._publish(step, one.node, symbol, bucket_ms, window, out[symbol])
        self._note(step, one, NodeStatus.ACTIVE if out else NodeStatus.PRE_WARMUP, bucket_ms)
        return out

    def _compute(
        self,
        step: Step,
        one: PlanNode,
        bucket_ms: int,
        values: Mapping[str, Mapping[str, Output]],
        bars: Bars,
        foreign: dict[str, None],
    ) -> dict[str, Output]:
        """One step of a node for every symbol that an input has a value of in this bucket. One that has kept anything of another context is
        noted in `foreign`."""
        out: dict[str, Output] = {}
        key = self._keys.of(one.node.node_id)
        if one.is_python and not self._may_run(step, one, bucket_ms):
            return out
        given: list[tuple[str, str, Output]] = []
        for symbol, inputs in inputs_of(one, values):
            bar = bar_of(one, symbol, bars)
            assert (
                bar is not None
            )  # a value without a bar comes from another shard alone, and is not received
            running = self._resume(step, one, symbol, foreign)
            self._touched[one.node.node_id, symbol] = None
            try:
                value = running.step(inputs, bar)
            except ComputeFailed as failed:
                self._stop(step, one.node.node_id, failed, bucket_ms)
                return {}
            if value is not None:
                given.append((symbol, input_window_hash(symbol, inputs, running.basis(bar), key), value))
        for symbol, window, value in given:
            out[symbol] = value
            self._publish(step, one.node, symbol, bucket_ms, window, value)
        warm = NodeStatus.ACTIVE if out else NodeStatus.PRE_WARMUP
        self._note(step, one, warm, bucket_ms)
        return out

    def _resume(self, step: Step, one: PlanNode, symbol: str, foreign: dict[str, None]) -> Running:
        key = (one.node.node_id, symbol)
        running = self._running.get(key)
        if running is None:
            self._disown(step, one.node.node_id, foreign)
            window = step.table("node.windows").get(*key)
            running = self._running[key] = self._begin(one, window)
        return running

    def _begin(self, one: PlanNode, window: NodeWindow | None) -> Running:
        if not one.is_python:
            running: Running = BUILTINS[one.node.node_type].resume(one.params, window)
            return running
        function = self._functions.find(one.codes, one.node.code_hash)
        assert isinstance(one.params, PythonParams)  # as the plan parses those of its type
        return PythonRunning(one.params, one.node.interval, function, window)

    def _may_run(self, step: Step, one: PlanNode, bucket_ms: int) -> bool:
        """Whether a Python node is computed. One that has failed is not, until it is deployed anew; one whose function this worker has
        not is not, until a worker has it: then it begins with its warm-up."""
        state: NodeState = step.table("node.state").get(one.node.node_id)
        if state.cause_code == ComputeFailed.code:
            return False
        try:
            self._functions.find(one.codes, one.node.code_hash)
        except (CodeMissing, CodeDiffers) as refused:
            self._refuse(step, one.node.node_id, refused, bucket_ms)
            return False
        self._mend(step, one.node.node_id)
        return True

    def _refuse(self, step: Step, node_id: str, error: QmtlError, bucket_ms: int) -> None:
        """Stop a node, if it does not stand for this cause already."""
        state: NodeState = step.table("node.state").get(node_id)
        if state.cause != _cause(error):
            self._stop(step, node_id, error, bucket_ms)

    def _mend(self, step: Step, node_id: str) -> None:
        """Let a node begin that had stopped, as what it lacked is there."""
        states = step.table("node.state")
        state: NodeState = states.get(node_id)
        if state.status is NodeStatus.ERROR:
            fresh = replace(state, status=NodeStatus.INITIALIZED, since_bucket_ms=0, cause_code="", cause="")
            states.put(fresh)

    def _stop(self, step: Step, node_id: str, error: QmtlError, bucket_ms: int) -> None:
        """A node that can't go on is in state error, with its cause, and keeps nothing. Everything else goes on."""
        self._drop(step, (node_id,))
        states = step.table("node.state")
        state: NodeState = states.get(node_id)
        stopped = replace(state, status=NodeStatus.ERROR, since_bucket_ms=bucket_ms)
        states.put(replace(stopped, cause_code=error.code, cause=_cause(error)))

    def _disown(self, step: Step, node_id: str, foreign: dict[str, None]) -> None:
        """Use no window of a node whose state is of another key than its own here. What a context leaves behind goes in the step that ends it,
        so there is none; but that a window is used must not rest on what another step did."""
        states, key = step.table("node.state"), self._keys.of(node_id)
        state: NodeState = states.get(node_id)
        if state.compute_key == key:
            return
        if self._drop(step, (node_id,)) and state.compute_key and key:
            foreign[node_id] = None
        states.put(replace(state, status=NodeStatus.INITIALIZED, since_bucket_ms=0, compute_key=key))

    def _publish(
        self, step: Step, node: PlannedNode, symbol: str, bucket_ms: int, window: str, value: Output
    ) -> None:
        of = (node.node_id, symbol, bucket_ms)
        lies = (node.interval, window, self._keys.of(node.node_id))
        match value:
            case PositionTargetValue(target_percent=percent, reference_price=price):
                step.emit(node.topic, PositionTarget(*of, percent, price, *lies))
            case float():
                step.emit(node.topic, NodeValue(*of, value, *lies))
            case _:
                assert_never(value)

    def _give(self, step: Step, one: PlanNode, bucket_ms: int, values: Mapping[str, Output]) -> None:
        """The intents of the strategies whose desk is here, each for the symbols of the version whose signal the node is."""
        for symbol, value in values.items() if one.signals else ():
            if not isinstance(value, PositionTargetValue):
                continue
            percent, price = value.target_percent, value.reference_price
            for signal in one.signals:
                if signal.holds(bucket_ms) and signal.gives(symbol):
                    step.emit(
                        "trade.intents",
                        OrderIntent(
                            signal.world_id,
                            signal.strategy_id,
                            symbol,
                            bucket_ms,
                            percent,
                            price,
                            one.node.node_id,
                            signal.index,
                        ),
                    )

    def _note(self, step: Step, one: PlanNode, status: NodeStatus, bucket_ms: int) -> None:
        """Move a node's state on: initialized, then warming up, then active until its inputs end."""
        states = step.table("node.state")
        known: NodeState = states.get(one.node.node_id)
        moves = known.status is NodeStatus.INITIALIZED or (
            known.status is NodeStatus.PRE_WARMUP and status is NodeStatus.ACTIVE
        )
        if moves:
            states.put(replace(known, status=status, since_bucket_ms=bucket_ms))

    def flush(self, step: Step) -> None:
        windows = step.table("node.windows")
        for node_id, symbol in self._touched:
            window = self._running[node_id, symbol].to_window(node_id, symbol)
            windows.put(window)
            weight = window_bytes(window)
            self._resident += weight - self._weights.get((node_id, symbol), 0)
            self._weights[node_id, symbol] = weight
        self._touched.clear()
        self._portfolio.flush(step)


def _cause(error: QmtlError) -> str:
    return str(error)[:_LONGEST_CAUSE]


def _letter(arrival: Arrival, code: str, cause: str, task: int) -> DeadLetter:
    return letter_of(Nodes.name, task, arrival, Cause(code, cause))
