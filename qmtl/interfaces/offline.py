"""A strategy over bars from beginning to end, in this process and without a log: what `Runner.offline` and `qmtl backtest` do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

from qmtl.backtest.answers import require_answers
from qmtl.backtest.recording import Recorder
from qmtl.backtest.reuse import NodeValues
from qmtl.backtest.simulation import DEFAULT_TERMS, Progress, Simulated, Terms, reads_of, simulate
from qmtl.bootstrap import functions_of, open_log
from qmtl.foundation.common.errors import ComputeFailed, InvalidStrategy, NotInCatalogue
from qmtl.foundation.common.instants import epoch_ms
from qmtl.foundation.common.money import text
from qmtl.foundation.common.wording import counted
from qmtl.interfaces.report.from_backtest import result_of
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import default_sources
from qmtl.runtime.data.fingerprint import fingerprint_of
from qmtl.runtime.data.merging import cut
from qmtl.runtime.data.reading import BarsRead, load_bars
from qmtl.runtime.performance.kpi import Convention, Performance, performance_of
from qmtl.runtime.performance.result import RunResult
from qmtl.runtime.sdk.loading import lacks_interval, load_strategy, message_of
from qmtl.runtime.sdk.nodes import StreamInput, interval_of
from qmtl.runtime.sdk.strategy import Strategy
from qmtl.services.dagmanager.admission import admit

Strategic: TypeAlias = "Strategy | type[Strategy] | bytes | str"
"""A strategy, its class, a DAG message, or where one of these is (`load_strategy`)."""

Data: TypeAlias = "str | Sequence[str] | Mapping[str, BarColumns]"
"""As `load_bars` takes it, or columns by symbol; nothing for the bars that come with QMTL."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Backtested:
    """What a backtest of one strategy has come to.

    Attributes:
        simulated: orders, fills, rejections and intents, with the rows on which they were made.
        as_of: digest of the catalogue's commit; empty where the bars were files or columns.
        result: the run as reports take it: bars, fills, orders, equity.
        performance: its figures, months and trades.
        unread: symbols of the data that the strategy does not read.
        duplicates: how many bars a file says a second time in the same words, by symbol; they count once.
    """

    simulated: Simulated
    as_of: str
    result: RunResult
    performance: Performance
    unread: tuple[str, ...]
    duplicates: Mapping[str, int] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Decimal | float | int | None]:
        """The figures by name; None where one is undefined. Money is exact."""
        return {one.name: one.value for one in self.performance.figures}

    @property
    def rejections(self) -> dict[str, int]:
        """How many intents, or parts of one, became no order, by reason."""
        counted = Counter(one.reason.value for one in self.simulated.rejections)
        return dict(sorted(counted.items()))

    @property
    def faults(self) -> tuple[ComputeFailed, ...]:
        """What became of nodes whose function failed, by the bucket: from then on such a node gave nothing, and all else went on."""
        found = sorted(self.simulated.faults, key=lambda one: (one.bucket_ms, one.name))
        return tuple(
            ComputeFailed(f"the node {one.name!r} failed: {_placed(one.error)}", one.error.remedy)
            for one in found
        )

    def write(self, directory: str | Path, *, parquet: bool = True) -> list[Path]:
        """Write the report, the tables and `result.json`; the same run gives the same bytes.

        Raises:
            MissingExtra: Parquet was wanted, and pyarrow is not installed.
            UsageError: a file can't be written.
        """
        from qmtl.interfaces.report.backtest_files import write_files

        return write_files(self, Path(directory), parquet=parquet)

    def __repr__(self) -> str:
        result = self.result
        net = text(result.curve.final - result.curve.initial)
        return (
            f"<backtest of {result.strategy_id}: {counted(len(result.orders), 'order')}, {counted(len(result.fills), 'fill')},"
            f" net profit {net} {result.settings.currency}>"
        )


def run_offline(
    strategy: Strategic,
    data: Data = (),
    start: int | str | None = None,
    end: int | str | None = None,
    as_of: int | str | None = None,
    interval: int | str | None = None,
    terms: Terms = DEFAULT_TERMS,
    convention: Convention | None = None,
    progress: Progress | None = None,
    code: Sequence[str] = (),
    recorder: Recorder | None = None,
    reuse: NodeValues | None = None,
) -> Backtested:
    """As `Runner.offline`, with text in place of a strategy, too.

    Args:
        code: packages with the functions of a DAG message, beside those that the environment names.
        recorder: writes every row to a log, which has to stay open as long as somebody asks what has come of the run.
        reuse: values of nodes that earlier runs have kept on a log; those of this one are kept there, too.
    """
    functions = functions_of(code)
    told = progress or (lambda what, done, total: None)
    told("load", 0, 1)
    loaded = _loaded(strategy)
    length = None if interval is None else interval_of(interval, "the data")
    start_ms, end_ms = _instant(start), _instant(end)
    symbols = _symbols_of(loaded) if length is None and lacks_interval(loaded) else ()
    if symbols:
        told("load", 1, 1)
        told("read bars", 0, 1)
        read = _read(data, start_ms, end_ms, as_of, symbols, None, sparse=False)
        message = message_of(loaded, read.interval)
        graph = admit(message, 0)
        reads_of(graph)  # raises where another source has an interval of its own
    else:
        message = message_of(loaded, length)
        graph = admit(message, 0)
        symbols, reads = reads_of(graph)
        told("load", 1, 1)
        told("read bars", 0, 1)
        read = _read(data, start_ms, end_ms, as_of, symbols, length or reads, sparse=interval is not None)
    told("read bars", 1, 1)
    require_answers(graph)
    simulated = simulate(
        [message],
        read.bars,
        terms,
        progress=progress,
        fingerprint=read.fingerprint,
        functions=functions,
        recorder=recorder,
        reuse=reuse,
        as_of=read.as_of,
    )
    if recorder is not None:
        recorder.close()
    told("figures", 0, 1)
    result = result_of(simulated, as_of=read.as_of)
    found = performance_of(result, convention)
    told("figures", 1, 1)
    unread = tuple(sorted(_named(data) - set(symbols)))
    return Backtested(simulated, read.as_of, result, found, unread, read.duplicates)


@contextmanager
def recording(address: str) -> Iterator[Recorder]:
    """A recorder on a log that is open meanwhile.

    Raises:
        UsageError, LogUnreachable, LogLocked: as `open_log`.
        OtherRun: the log has rows of another run.
    """
    log = open_log(address)
    try:
        yield Recorder(log)
    finally:
        log.close()


def _placed(error: ComputeFailed) -> str:
    """What failed, with the line of the author's file behind it."""
    return f"{error.what} That is {error.where}" if error.where else error.what


@contextmanager
def reusing(address: str) -> Iterator[NodeValues]:
    """The values of nodes on a log that is open meanwhile.

    Raises:
        UsageError, LogUnreachable, LogLocked: as `open_log`.
        TopicMismatch: the log takes no such values.
    """
    log = open_log(address)
    try:
        values = NodeValues(log)
        try:
            yield values
        finally:
            values.close()
    finally:
        log.close()


def _loaded(strategy: Strategic) -> Strategy | bytes:
    if isinstance(strategy, str):
        return load_strategy(strategy)
    if isinstance(strategy, type):
        strategy = strategy()
    if not isinstance(strategy, Strategy | bytes):
        raise InvalidStrategy(
            f"a strategy was of type {type(strategy).__name__}; a Strategy or a DAG message is required.",
            "Give an object of your subclass of Strategy.",
        )
    return strategy


def _symbols_of(strategy: Strategy | bytes) -> tuple[str, ...]:
    """What its sources read, sorted; known before their interval is."""
    if isinstance(strategy, bytes):
        return ()
    found = {symbol for one in strategy.nodes if isinstance(one, StreamInput) for symbol in one.symbols}
    return tuple(sorted(found))


def _instant(value: int | str | None) -> int | None:
    return epoch_ms(value) if isinstance(value, str) else value


def _named(data: Data) -> set[str]:
    """The symbols that the data name themselves; a catalogue names none."""
    if isinstance(data, Mapping):
        return set(data)
    texts = [data] if isinstance(data, str) else data
    return {one.partition("=")[0] for one in texts if not Path(one).is_dir()}


def _read(
    data: Data,
    start_ms: int | None,
    end_ms: int | None,
    as_of: int | str | None,
    symbols: Sequence[str],
    interval: int | None,
    *,
    sparse: bool,
) -> BarsRead:
    if isinstance(data, Mapping):
        return _given(data, start_ms, end_ms, symbols)
    texts = [data] if isinstance(data, str) else list(data)
    shipped = [f"{one.symbol}={one.path}" for one in default_sources()]
    return load_bars(
        texts or shipped, start_ms, end_ms, as_of, symbols=symbols, interval=interval, sparse=sparse
    )


def _given(
    data: Mapping[str, BarColumns], start_ms: int | None, end_ms: int | None, symbols: Sequence[str]
) -> BarsRead:
    bars = {}
    for symbol in symbols:
        if symbol not in data or not len(found := cut(data[symbol], start_ms, end_ms)):
            raise NotInCatalogue(
                f"the data have no bars of {symbol} in the range; they have {', '.join(sorted(data)) or 'nothing'}.",
                "Give the data that the strategy reads.",
            )
        bars[symbol] = found
    return BarsRead(
        bars, bars[symbols[0]].interval, fingerprint_of((symbol, (one,)) for symbol, one in bars.items())
    )
