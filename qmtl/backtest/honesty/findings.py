"""What the checks of a strategy have found, and what each of them did and can't see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from qmtl.backtest.honesty.program import Program
from qmtl.backtest.honesty.told import Difference, Trace, changed

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Check(Enum):
    """The checks that there are."""

    LOOK_AHEAD = "look-ahead"
    WARM_UP = "warm-up"
    DETERMINISM = "determinism"
    PURITY = "purity"


class Cause(Enum):
    """What a node was found to hang on; the value is its stable name."""

    LOOK_AHEAD = "look-ahead"
    CAPTURED_DATA = "captured-data"
    CALENDAR = "calendar"
    START_OF_DATA = "start-of-data"
    PROCESS = "process"
    HASH_ORDER = "hash-order"
    SURROUNDINGS = "surroundings"
    CHUNKS = "chunks"
    ORDER = "order"
    TRADING = "trading"
    CLOCK = "clock"
    CHANCE = "chance"
    HIDDEN_STATE = "hidden-state"

    @property
    def check(self) -> Check:
        return _CHECKS[self]

    @property
    def rule(self) -> str:
        return _RULES[self][0]

    @property
    def remedy(self) -> str:
        return _RULES[self][1]


_CHECKS: Final[Mapping[Cause, Check]] = {
    Cause.LOOK_AHEAD: Check.LOOK_AHEAD,
    Cause.CAPTURED_DATA: Check.LOOK_AHEAD,
    Cause.CALENDAR: Check.LOOK_AHEAD,
    Cause.START_OF_DATA: Check.WARM_UP,
    Cause.PROCESS: Check.DETERMINISM,
    Cause.HASH_ORDER: Check.DETERMINISM,
    Cause.SURROUNDINGS: Check.DETERMINISM,
    Cause.CHUNKS: Check.DETERMINISM,
    Cause.ORDER: Check.DETERMINISM,
    Cause.TRADING: Check.DETERMINISM,
    Cause.CLOCK: Check.PURITY,
    Cause.CHANCE: Check.PURITY,
    Cause.HIDDEN_STATE: Check.PURITY,
}

_FROM_VIEW: Final = "Take it from the view, or from params of the node."

_RULES: Final[Mapping[Cause, tuple[str, str]]] = {
    Cause.LOOK_AHEAD: (
        "what a node gives follows from what came until its bucket",
        "Compute it from the bars up to the bucket: no centred window, nothing of the whole series.",
    ),
    Cause.CAPTURED_DATA: (
        "a function knows no bars but those of its view",
        "Leave the data out of its module, and read it as a node of the strategy.",
    ),
    Cause.CALENDAR: (
        "a node knows instants by their weekday and time of day alone, as a table of instants may hold what came later",
        "Compute with differences of times, or with the time of the day or week.",
    ),
    Cause.START_OF_DATA: (
        "what a node gives follows from its window, wherever the data began",
        "Compute it from the window alone, and give the node the period that it looks back.",
    ),
    Cause.PROCESS: (
        "what a node gives is the same in every process",
        "Use neither addresses of objects (id, repr) nor process, thread or machine.",
    ),
    Cause.HASH_ORDER: (
        "what a node gives does not hang on the order of a set or on hash",
        "Sort the set, or use a tuple; compare values instead of hashes.",
    ),
    Cause.SURROUNDINGS: (
        "what a node gives does not hang on the directory, the time zone, the language or the environment",
        _FROM_VIEW,
    ),
    Cause.CHUNKS: (
        "what a node gives does not hang on how its bars are split",
        "Columns give what the steps give; what a node remembers is all in its window.",
    ),
    Cause.ORDER: (
        "what a node gives of one symbol does not hang on which symbols and nodes were computed before it, nor on whether records or columns are",
        "Keep nothing outside of the function, and use of the view what is documented.",
    ),
    Cause.TRADING: (
        "the same intents on the same bars give the same orders and fills",
        "It is a bug of QMTL: keep the strategy and the data.",
    ),
    Cause.CLOCK: (
        "what a node gives does not hang on the clock",
        "The time is view.bucket_ms.",
    ),
    Cause.CHANCE: (
        "what a node gives does not hang on chance",
        "Leave it out, or compute it from the view, such as from view.bucket_ms.",
    ),
    Cause.HIDDEN_STATE: (
        "a function remembers nothing between two calls",
        "Return what is to be kept, and read it as an input: the node's window is all that it remembers.",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a strategy does and an honest one does not.

    Attributes:
        node: its name; empty where it is not about one.
        code: of a Python node, where its function is.
        symbol, bucket_ms: the first that shows it.
        was, became: what was given there, as it is and with one thing changed, in words.
        changing: under which circumstances it gave the other, such as "when the clock was moved"; empty where it was found by looking, and
            nothing was run.
        readers: names of the nodes that read it and differ, too.
        intents: how many intents are others with it.
    """

    cause: Cause
    node: str
    node_id: str
    code: str
    symbol: str
    bucket_ms: int
    was: str
    became: str
    changing: str
    readers: tuple[str, ...] = ()
    intents: int = 0

    @property
    def what(self) -> str:
        """One sentence: who, where, what, and the rule."""
        who = f"node {self.node!r}" if self.node else "the trading"
        of = f" ({self.code})" if self.code else ""
        where = (
            f" for {self.symbol} in the bucket {self.bucket_ms} ({instant(self.bucket_ms)})"
            if self.symbol
            else ""
        )
        if not self.changing:
            return f"{who}{of} has {self.was}{where}; {self.cause.rule}."
        return f"{who}{of} gave {self.was}{where}, and {self.became} {self.changing}; {self.cause.rule}."

    @property
    def remedy(self) -> str:
        return self.cause.remedy


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check did.

    Attributes:
        runs: of the whole strategy.
        did: in words, with numbers.
        blind: what it can't see.
        notes: what was seen beside findings.
    """

    check: Check
    runs: int
    did: str
    blind: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settling:
    """How a node comes to give the same wherever the data began.

    Attributes:
        warm_up: bars that it needs at least: the periods along its longest path.
        settled: from which bar after the later beginning on, counted from 1, it was within the last place of the prices, in the worst of
            all runs; None where it was not until the end of the data.
        largest: the largest difference behind its warm-up, 0 where there was none.
        missing: buckets behind its warm-up in which one run gave something and the other nothing, or another target.
    """

    node: str
    node_id: str
    warm_up: int
    settled: int | None
    largest: float
    missing: int


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one strategy, or of several together."""

    checks: tuple[Checked, ...]
    settlings: tuple[Settling, ...]
    buckets: int
    symbols: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(one for check in self.checks for one in check.findings)

    @property
    def is_clean(self) -> bool:
        return not self.findings


def culprits(program: Program, found: Mapping[str, Difference]) -> dict[str, Difference]:
    """The nodes that differ before anything that they read does, in the order of the graph: the others only pass on what they read."""
    out: dict[str, Difference] = {}
    for one in program.nodes:
        own = found.get(one.node_id)
        if own is None:
            continue
        reads = [found[read].bucket_ms for read in one.node.dependencies if read in found]
        if all(own.bucket_ms < read_ms for read_ms in reads):
            out[one.node_id] = own
    return out


def finding(
    cause: Cause,
    program: Program,
    node_id: str,
    first: Difference,
    changing: str,
    found: Mapping[str, Difference],
    intents: int = 0,
) -> Finding:
    """Args: found, all nodes that differ in the same run."""
    one = program.node(node_id)
    readers = tuple(reader.name for reader in program.readers(node_id) if reader.node_id in found)
    return Finding(
        cause,
        one.name,
        node_id,
        one.code,
        first.symbol,
        first.bucket_ms,
        first.was,
        first.became,
        changing,
        readers,
        intents,
    )


def intents_changed(program: Program, node_id: str, was: Trace, became: Trace) -> int:
    """How many targets of the signals that a node leads to are others, or are there in one run alone."""
    reached = {node_id, *(one.node_id for one in program.readers(node_id))}
    return sum(
        len(changed(was.of(signal, symbol), became.of(signal, symbol)))
        for signal in program.signals
        if signal in reached
        for symbol in was.told.get(signal, {}).keys() | became.told.get(signal, {}).keys()
    )


def instant(epoch_ms: int) -> str:
    """ISO 8601 in UTC; the number alone where the calendar ends."""
    try:
        moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    except OverflowError:
        return str(epoch_ms)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
