"""Runs the combinations of a job: nodes once for all, then each strategy's trading and its figures by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from qmtl.backtest.kept import Outcome
from qmtl.backtest.run import Course
from qmtl.backtest.signals import Wants, wants_of
from qmtl.backtest.simulation import opened, span_of
from qmtl.backtest.sweep.job import Asked, Done, Job, Setting
from qmtl.backtest.sweep.node_cache import KeptNodes
from qmtl.foundation.common.errors import CombinationFailed, QmtlError
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.curve import curve_of
from qmtl.runtime.performance.kpi import Performance, performance_of
from qmtl.runtime.performance.result import RunResult, RunSettings
from qmtl.runtime.sdk.loading import load_class
from qmtl.services.dagmanager.graph import Graph

_SHOWN = 300


class JobRunner:
    """What runs jobs in one process.

    Args:
        bars: by symbol, sorted, of one interval.
    """

    def __init__(self, setting: Setting, bars: Mapping[str, BarColumns]) -> None:
        self.nodes = KeptNodes(bars, setting.kept_bytes)
        self._setting = setting
        self._bars = bars
        self._parts: dict[tuple[str, ...], Part] = {}

    def run(self, job: Job) -> Iterator[Done]:
        """What became of each combination of a job, in its order. One that raises is one that failed, and the next one comes."""
        for one in job.asked:
            yield self._done(one)
            self.nodes.let_go(one.graph, job.shared)

    def _done(self, asked: Asked) -> Done:
        before = self.nodes.computed
        done = self._tried(asked)
        return replace(done, computed=self.nodes.computed - before)

    def _tried(self, asked: Asked) -> Done:
        try:
            part, wants = self.signalled(asked.graph)
            outcome = self.traded(asked.graph, part, wants)
            found = self.judged(asked.graph.strategy_id, part, outcome)
        except QmtlError as refused:
            return Done(asked.place, code=refused.code, fault=refused.what[:_SHOWN])
        except (Exception, SystemExit) as error:  # of an author's: a fault of this combination alone
            return Done(asked.place, code=CombinationFailed.code, fault=told(error))
        return Done(
            asked.place,
            tuple((one.name, one.value) for one in found.figures),
            len(outcome.orders),
            len(outcome.fills),
            len(outcome.rejections),
        )

    def signalled(self, graph: Graph) -> tuple[Part, Wants]:
        """The bars that a strategy reads, and what its signals want.

        Raises:
            ComputeFailed: the function of one of its nodes failed.
        """
        given = self.nodes.of(graph)
        self.nodes.require_sound(graph)
        part = self._part(
            tuple(sorted({symbol for one in graph.nodes for symbol in given[one.node.node_id]}))
        )
        return part, wants_of(graph, given, part.bars)

    def traded(self, graph: Graph, part: Part, wants: Wants) -> Outcome:
        """What became of that."""
        gates = opened(self._setting.terms, "", part.bars, (graph,), part.start_ms)[1]
        return part.course.go(graph.strategy_id, wants, gates, alone=False)

    def judged(self, strategy_id: str, part: Part, outcome: Outcome) -> Performance:
        """The figures of a run."""
        terms, bars, fills = self._setting.terms, tuple(part.bars.values()), outcome.fills
        result = RunResult(
            strategy_id,
            terms.world_id,
            tuple(part.bars),
            part.interval,
            RunSettings(terms.currency, terms.cash, terms.fee_rate, terms.slippage_rate),
            bars,
            tuple(fills),
            tuple(outcome.orders.values()),
            curve_of(terms.cash, fills, bars, part.interval),
        )
        return performance_of(result, self._setting.convention, excursions=False)

    def _part(self, symbols: tuple[str, ...]) -> Part:
        found = self._parts.get(symbols)
        if found is None:
            bars = {symbol: self._bars[symbol] for symbol in symbols}
            interval, start_ms, end_ms = span_of(bars)
            world, _ = opened(
                self._setting.terms, "", bars, (), start_ms
            )  # bound to no data: no row of it is ever written
            course = Course(bars, world, start_ms, interval * 1000, end_ms, None)
            found = self._parts[symbols] = Part(bars, course, interval, start_ms)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The bars of the symbols that a strategy reads: a backtest of it would be of these alone.

    Attributes:
        interval: seconds.
        start_ms: open of the first bar.
    """

    bars: Mapping[str, BarColumns]
    course: Course
    interval: int
    start_ms: int


def prepare(setting: Setting) -> None:
    """Bring what a process needs that was begun anew: the module of the strategy, where its functions are.

    Raises:
        StrategyNotLoaded: it is not there any more.
    """
    if setting.source:
        load_class(setting.source)


def told(error: BaseException) -> str:
    """An error without a code, in a sentence."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_SHOWN]
