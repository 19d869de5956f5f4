"""A backtest from the messages of strategies and bars to what was traded: the world, its gates and the graphs are made as the services make them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from qmtl.backtest.answers import answered
from qmtl.backtest.feedback import backtest_with_feedback, reads_back
from qmtl.backtest.recording import Recorder
from qmtl.backtest.reuse import NodeValues
from qmtl.backtest.run import Run, backtest
from qmtl.backtest.signals import Fault
from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain
from qmtl.foundation.common.errors import CommandRefused, InvalidDag, InvalidValue
from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, OrderRejection, Position
from qmtl.foundation.contracts.world import (
    Activation,
    CreateWorld,
    EffectiveMode,
    Instrument,
    PositionSide,
    SetActivation,
    World,
    WorldCommand,
    WorldSettings,
)
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.fingerprint import fingerprint_of
from qmtl.runtime.data.instruments import instrument_for
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE
from qmtl.runtime.sdk.functions import Functions
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import Graph
from qmtl.services.worldservice.rules import decide

WORLD: Final = "backtest"

Progress = Callable[[str, int, int], None]
"""Called with the step, how far it is, and how far it goes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what a backtest trades; the defaults are those of `qmtl demo`.

    Attributes:
        cash: per strategy, in `currency`.
        fee_rate: fraction of the notional.
        slippage_rate: fraction of the price against the taker.
        instruments: limits of orders; a symbol that is not among them has its published ones, or the finest steps.
        long, short: whether the order gate of that side is open.
        weight: of both gates, 0 to 1; multiplies every sized quantity.
        world_id: a part of every order's id.
    """

    currency: str = "USD"
    cash: Decimal = Decimal(100_000)
    fee_rate: Decimal = Decimal("0.001")
    slippage_rate: Decimal = Decimal("0.0005")
    instruments: tuple[Instrument, ...] = ()
    long: bool = True
    short: bool = True
    weight: Decimal = Decimal(1)
    world_id: str = WORLD


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A backtest that is done: what it ran on, and what it has come to.

    Attributes:
        messages: as they were given.
        bars: by symbol, sorted; those that were given.
        graphs: one of each message, in their order.
        fingerprint: of the bars.
        interval: of the bars, seconds.
        start_ms, end_ms: open of the first bar, close of the last.
    """

    messages: tuple[bytes, ...]
    bars: Mapping[str, BarColumns]
    terms: Terms
    world: World
    gates: tuple[Activation, ...]
    graphs: tuple[Graph, ...]
    run: Run
    fingerprint: str
    interval: int
    start_ms: int
    end_ms: int

    @property
    def intents(self) -> Sequence[OrderIntent]:
        return self.run.intents

    @property
    def orders(self) -> Mapping[str, Order]:
        """By id, as they ended."""
        return self.run.orders

    @property
    def fills(self) -> Sequence[Fill]:
        return self.run.fills

    @property
    def rejections(self) -> Sequence[OrderRejection]:
        return self.run.rejections

    def rows(self) -> Iterator[Position | Account]:
        """The portfolio at the end."""
        return self.run.rows()

    @property
    def faults(self) -> Sequence[Fault]:
        """Nodes whose function failed: from then on they gave nothing, and all else went on."""
        return self.run.faults

    @property
    def computed(self) -> int:
        """How many different nodes there were to compute."""
        return self.run.computed

    @property
    def reused(self) -> int:
        """How many different nodes there were beside, whose values an earlier run has kept."""
        return self.run.reused


DEFAULT_TERMS: Final = Terms()


def simulate(
    messages: Sequence[bytes],
    bars: Mapping[str, BarColumns],
    terms: Terms = DEFAULT_TERMS,
    *,
    progress: Progress | None = None,
    fingerprint: str | None = None,
    functions: Functions | None = None,
    recorder: Recorder | None = None,
    reuse: NodeValues | None = None,
    as_of: str = "",
) -> Simulated:
    """Run the strategies of these DAG messages over bars, all in one world, each with an account of its own. A tag query is answered by the
    nodes of all of them.

    Args:
        bars: by symbol, all of one interval; how the mapping is ordered makes no difference.
        fingerprint: of these bars, where it is known; computed otherwise.
        functions: those that Python nodes may run; without any only what is registered in this process.
        recorder: writes every row to a log; without it they are kept in memory.
        reuse: values of nodes that earlier runs in this context have kept: they are used, and those of other nodes are kept for later ones.
            What comes of the run is the same.
        as_of: the commit that the bars come from, a part of that context; without one, the fingerprint stands for it, as the bars are the same
            whenever they are read.

    Raises:
        InvalidDag: a message that is refused, a node that reads what the bars don't have, or a tag query with too many answers.
        CodeMissing, CodeDiffers: a function is not where a message says, or another one lies there.
        InvalidValue: no messages, two of one strategy, no bars, or bars of several intervals.
        CommandRefused: terms that no world may have.
    """
    told = progress or _untold
    ordered = {symbol: bars[symbol] for symbol in sorted(bars)}
    interval, start_ms, end_ms = span_of(ordered)
    told("backtest", 0, 3)
    graphs = tuple(admit(message, start_ms) for message in messages)
    _require_apart(graphs)
    known = fingerprint or fingerprint_of((symbol, (one,)) for symbol, one in ordered.items())
    world, gates = opened(terms, known, ordered, graphs, start_ms)
    told("backtest", 1, 3)
    values = None
    if reuse is not None:
        context = ComputeContext(terms.world_id, ExecutionDomain.BACKTEST, as_of or known, "", known)
        values = reuse.within(context, ordered)
    course = backtest_with_feedback if any(map(reads_back, graphs)) else backtest
    run = course(
        answered(graphs),
        ordered,
        world,
        gates,
        start_ms,
        interval * 1000,
        functions=functions,
        recorder=recorder,
        values=values,
    )
    told("backtest", 3, 3)
    return Simulated(
        tuple(messages), ordered, terms, world, gates, graphs, run, known, interval, start_ms, end_ms
    )


def reads_of(graph: Graph) -> tuple[tuple[str, ...], int]:
    """The symbols that the sources of a graph read, sorted, and their interval in seconds.

    Raises:
        InvalidDag: no source, or sources of several intervals.
    """
    sources = [one.node for one in graph.nodes if one.node.node_type == SOURCE]
    intervals = sorted({one.interval for one in sources})
    if len(intervals) != 1:
        told = " and ".join(f"{one} s" for one in intervals) or "nothing"
        raise InvalidDag(
            f"the strategy {graph.strategy_id!r} reads bars of {told}; a backtest runs on one interval.",
            "Let its sources have one interval.",
        )
    symbols: set[str] = set()
    for one in sources:
        params = BUILTINS[SOURCE].parse(
            own_params(json.loads(one.params_canon, parse_float=Decimal)), one.period
        )
        assert isinstance(params, PriceParams)
        symbols.update(params.symbols)
    return tuple(sorted(symbols)), intervals[0]


def span_of(bars: Mapping[str, BarColumns]) -> tuple[int, int, int]:
    """Their interval in seconds, the open of the first and the close of the last.

    Raises:
        InvalidValue: there are none, or several intervals.
    """
    held = [one for one in bars.values() if len(one)]
    if not held:
        raise InvalidValue("there were no bars to run on.", "Give bars.")
    intervals = sorted({one.interval for one in held})
    if len(intervals) > 1:
        raise InvalidValue(
            f"there were bars of {' and '.join(map(str, intervals))} s; a backtest runs on one interval.",
            "Give bars of one interval; longer ones are what resampling nodes make of them.",
        )
    first = min(int(one.open_time_ms[0]) for one in held)
    return intervals[0], first, max(int(one.bucket_ms[-1]) for one in held)


def opened(
    terms: Terms,
    fingerprint: str,
    symbols: Sequence[str] | Mapping[str, object],
    graphs: Sequence[Graph],
    at_ms: int,
) -> tuple[World, tuple[Activation, ...]]:
    """The world and the gates of strategies, as a world service makes them out of commands.

    Raises:
        CommandRefused: terms that it refuses.
    """
    said = {one.symbol: one for one in terms.instruments}
    settings = WorldSettings(
        terms.currency,
        terms.cash,
        terms.fee_rate,
        terms.slippage_rate,
        tuple(said.get(symbol) or instrument_for(symbol) for symbol in sorted({*symbols, *said})),
        fingerprint,
    )
    world = _taken(CreateWorld("", terms.world_id, settings, at_ms), None)
    assert isinstance(world, World)
    gates = []
    for graph in graphs:
        for side in PositionSide:
            is_open = terms.long if side is PositionSide.LONG else terms.short
            wish = SetActivation(
                "",
                terms.world_id,
                graph.strategy_id,
                side,
                is_open,
                terms.weight,
                False,
                False,
                EffectiveMode.PAPER,
                at_ms,
            )
            gate = _taken(wish, world)
            assert isinstance(gate, Activation)
            gates.append(gate)
    return world, tuple(gates)


def _taken(command: WorldCommand, world: World | None) -> World | Activation | None:
    row, outcome = decide(command, world, None)
    if not outcome.accepted:
        raise CommandRefused(f"these terms were refused: {outcome.detail}", "Give others.")
    return row


def _require_apart(graphs: Sequence[Graph]) -> None:
    if not graphs:
        raise InvalidValue("there was no strategy to run.", "Give a message of one.")
    names: set[str] = set()
    for one in graphs:
        if one.strategy_id in names:
            raise InvalidValue(
                f"the strategy {one.strategy_id!r} was given twice; an account is one strategy's.",
                "Rename one of them.",
            )
        names.add(one.strategy_id)


def _untold(what: str, done: int, total: int) -> None:
    return None
