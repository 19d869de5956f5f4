"""The honesty of a strategy: whether its backtest says what it would do live. Four checks, each of which runs the strategy many times with one thing
changed, and names the node that gave something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from qmtl.backtest.honesty.ahead import cuts, look_ahead, other_calendar
from qmtl.backtest.honesty.captured import STRETCH, Captured, Search
from qmtl.backtest.honesty.change import all_buckets
from qmtl.backtest.honesty.findings import Cause, Check, Checked, Finding, Report
from qmtl.backtest.honesty.process import Process, places_of, processes
from qmtl.backtest.honesty.program import Program, ProgramNode
from qmtl.backtest.honesty.steady import CHUNKS, ELSEWHERE, HERE, steadiness
from qmtl.backtest.honesty.subject import Setup
from qmtl.backtest.honesty.told import Trace
from qmtl.backtest.honesty.trading import TRADING, Traded, apart
from qmtl.backtest.honesty.trial import PLAIN
from qmtl.backtest.honesty.warm_up import Warmed, starts, warm_up
from qmtl.backtest.simulation import DEFAULT_TERMS, Terms, span_of
from qmtl.foundation.common.errors import InvalidDag, InvalidValue
from qmtl.foundation.common.wording import counted
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.indicators.registry import TAG_QUERY
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import Graph

CUTS: Final = 8
STARTS: Final = 4

Progress = Callable[[str, int, int], None]
"""Called with the step, how far it is, and how far it goes."""

_BLIND: Final[Mapping[Check, str]] = {
    Check.LOOK_AHEAD: (
        "what a function knows of these bars in another form than their numbers or instants, such as signs found by price; and a future that"
        " counts only where no cut lies"
    ),
    Check.WARM_UP: "what shows only with a beginning that was not tried, or after more bars than there are",
    Check.DETERMINISM: "other machines, interpreters and versions of libraries",
    Check.PURITY: (
        "a clock or chance that a library written in C asks the system for, files, networks, and a state that these bars never bring to light"
    ),
}


def program_of(messages: Sequence[bytes]) -> Program:
    """The nodes of DAG messages.

    Raises:
        InvalidDag: a message that is refused, or has a tag query: a check follows none.
        InvalidValue: no messages.
    """
    if not messages:
        raise InvalidValue("there was no strategy to check.", "Give a message of one.")
    return program_of_graphs([admit(message, 0) for message in messages])


def program_of_graphs(graphs: Sequence[Graph]) -> Program:
    """The nodes of graphs, each once.

    Raises:
        InvalidDag: a tag query, or a node that reads the portfolio back.
    """
    nodes: dict[str, ProgramNode] = {}
    for one in [one for graph in graphs for one in graph.nodes]:
        if one.node.node_type == TAG_QUERY:
            raise InvalidDag(
                f"node {one.name!r} is a tag query; a check looks at what a node reads by name alone.",
                "Name the inputs, or leave out the check.",
            )
        if one.node.node_type == PORTFOLIO:
            raise InvalidDag(
                f"node {one.name!r} reads the portfolio; a check runs the nodes without trading.",
                "Check the strategy without it, or leave --check out.",
            )
        nodes.setdefault(one.node.node_id, ProgramNode(one.name, one.node, one.code))
    return Program(
        tuple(nodes.values()), tuple(dict.fromkeys(one for graph in graphs for one in graph.signals))
    )


def check(
    messages: Sequence[bytes],
    bars: Mapping[str, BarColumns],
    terms: Terms = DEFAULT_TERMS,
    *,
    packages: Sequence[str] = (),
    cut_count: int = CUTS,
    start_count: int = STARTS,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Check the strategies of these DAG messages on bars. Nothing of an author's runs in this process: functions are loaded in others.

    Args:
        bars: by symbol, all of one interval.
        terms: on which it trades; for the comparison of orders and fills.
        packages: that may be imported to find functions, beside modules that this process has imported.
        cut_count: about how many instants after which the future is changed, each in four ways.
        start_count: about how many later beginnings.

    Raises:
        InvalidDag: a message that is refused, or a node that reads what the bars don't have.
        InvalidValue: no messages, or bars that no backtest takes.
        CodeMissing, CodeDiffers: a function that is not found in a process of its own.
        TrialLost: a process died.
    """
    program = program_of(messages)
    ordered = {symbol: bars[symbol] for symbol in sorted(bars)}
    span_of(ordered)
    setup = Setup(program, ordered, places_of(program, packages))
    conditions = [HERE, *(one for _, one, _ in ELSEWHERE)]
    with processes(setup, conditions, [Traded.__module__], TRADING) as made:
        traded = Traded(tuple(messages), terms)
        return _checked(program, ordered, made, traded, cut_count, start_count, progress)


def _checked(
    program: Program,
    bars: Mapping[str, BarColumns],
    made: Sequence[Process],
    traded: Traded,
    cut_count: int,
    start_count: int,
    progress: Progress,
) -> Report:
    here = made[0].run
    progress("processes", 0, len(made))
    traces: list[Trace] = [trace for (trace,) in _each(made, PLAIN)]
    plain = traces[0]
    progress("processes", len(made), len(made))
    steady = steadiness(program, here, plain, traces[1:], len(bars))
    # Other intents give other orders, so those are compared where all nodes agree.
    trades = () if steady.findings else apart(_each(made[:TRADING], traded))

    at_ms = cuts(bars, program, plain, cut_count)
    ahead = look_ahead(
        program,
        here,
        bars,
        plain,
        at_ms,
        steady.unsteady,
        lambda done: progress("look-ahead", done, 4 * len(at_ms)),
    )
    known = steady.unsteady | {one.node_id for one in ahead.findings}
    calendar = other_calendar(program, here, plain, known)
    made[0].ask(Search())
    captured = tuple(_captured(program, one, plain) for one in made[0].answer())

    at_starts = starts(bars, start_count)
    warmed = warm_up(
        program, here, bars, plain, at_starts, known, lambda done: progress("warm-up", done, len(at_starts))
    )
    of_steady = {check: tuple(one for one in steady.findings if one.cause.check is check) for check in Check}
    buckets = all_buckets(bars)
    failed = tuple(
        f"node {one.name!r} failed in the bucket {plain.failures[one.node_id].bucket_ms} and was checked up to there: {plain.failures[one.node_id].what.rstrip('.')}"
        for one in program.nodes
        if one.node_id in plain.failures
    )
    skipped = [one.name for one in program.nodes if one.node_id in steady.unsteady]
    unjudged = (
        (f"not judged, as another check found that it differs anyway: {', '.join(skipped)}",)
        if skipped
        else ()
    )
    checks = (
        Checked(
            Check.LOOK_AHEAD,
            ahead.runs + 1,
            f"{counted(ahead.cuts, 'cut')}, after each the future doubled, halved, reversed and dropped; all bars moved to other years; a look for"
            f" {STRETCH} bars in a row among what functions carry",
            _BLIND[Check.LOOK_AHEAD],
            (*ahead.findings, *calendar, *captured),
            (*failed, *unjudged),
        ),
        Checked(
            Check.WARM_UP,
            warmed.runs,
            counted(warmed.starts, "later beginning"),
            _BLIND[Check.WARM_UP],
            warmed.findings,
            (*unjudged, *_late_intents(warmed)),
        ),
        Checked(
            Check.DETERMINISM,
            len(made) + 1 + len(CHUNKS) + (2 if len(bars) > 1 else 0),
            f"{len(made)} processes, one with another hash seed, one with other surroundings; record by record, and in chunks of"
            f" {', '.join(map(str, CHUNKS))}; {'symbols in both orders' if len(bars) > 1 else 'one symbol, so one order'}"
            f"{'' if steady.findings else '; orders and fills'}",
            _BLIND[Check.DETERMINISM],
            (*of_steady[Check.DETERMINISM], *trades),
        ),
        Checked(
            Check.PURITY,
            4,
            "the clock moved by ten years and at another pace; other random numbers; each function called twice with each view; the run"
            " repeated in one process",
            _BLIND[Check.PURITY],
            of_steady[Check.PURITY],
        ),
    )
    return Report(checks, warmed.settlings, len(buckets), tuple(bars))


def _each(made: Sequence[Process], request: object) -> list[Any]:
    """The answers of all processes to one question, which they look for beside each other."""
    for one in made:
        one.ask(request)
    return [one.answer() for one in made]


def _captured(program: Program, one: Captured, plain: Trace) -> Finding:
    node = program.node(one.node_id)
    return Finding(
        Cause.CAPTURED_DATA,
        node.name,
        one.node_id,
        node.code,
        one.symbol,
        one.bucket_ms,
        f"{STRETCH} values of {one.column} of these very bars in a row, in {one.name},",
        "",
        "",
        intents=sum(len(told) for told in plain.told.get(one.node_id, {}).values())
        if one.node_id in program.signals
        else 0,
    )


def _late_intents(warmed: Warmed) -> tuple[str, ...]:
    if not warmed.intents:
        return ()
    told = (
        f"{counted(warmed.intents, 'target')} {'differs' if warmed.intents == 1 else 'differ'} behind the warm-up in"
        f" {counted(warmed.starts, 'later beginning')}, the last one {counted(warmed.last, 'bar')} after its beginning"
    )
    return (f"{told}: begin at least so many bars before the first trade that is to count",)
