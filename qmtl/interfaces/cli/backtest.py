"""`qmtl backtest`: a strategy over bars from beginning to end, in this process, and what came of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.backtest_check import (
    check_options,
    failure_of,
    findings_object,
    render_findings,
    run_check,
)
from qmtl.interfaces.cli.conventions import convention_options
from qmtl.interfaces.cli.data.options import as_of_option
from qmtl.interfaces.cli.options import format_option, instant, interval_s
from qmtl.interfaces.cli.terms import terms_options

if TYPE_CHECKING:
    from qmtl.backtest.reuse import NodeValues
    from qmtl.backtest.simulation import Terms
    from qmtl.interfaces.offline import Backtested
    from qmtl.runtime.performance.kpi import Convention


@click.command()
@click.argument("strategy", metavar="FILE")
@click.option(
    "--data",
    "data",
    multiple=True,
    metavar="SYMBOL=FILE|DIR",
    help="Bars, CSV (also gzip) or Parquet, for each symbol; or the directory of a catalogue. By default those that come with QMTL.",
)
@click.option(
    "--from", "start_ms", metavar="TIME", callback=instant, help="Only bars that open at this time or later."
)
@click.option(
    "--to", "end_ms", metavar="TIME", callback=instant, help="Only bars that open before this time."
)
@as_of_option
@click.option(
    "--interval",
    callback=interval_s,
    metavar="LENGTH",
    help="Of the bars, where the strategy says none, or where all bars of the files lie further apart. Seconds, or as 1m, 1h, 1d.",
)
@terms_options
@click.option(
    "--code",
    "code",
    multiple=True,
    metavar="PACKAGE",
    help="Of a DAG message: a package whose functions its Python nodes may run, beside those in QMTL_CODE; repeatable.",
)
@convention_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    metavar="DIR",
    help="Write the report, the tables and the result there.",
)
@click.option(
    "--parquet/--no-parquet",
    default=True,
    show_default=True,
    help="Write the tables of --out as Parquet, too; needs the extra `data`.",
)
@click.option(
    "--record",
    "record",
    default=None,
    metavar="LOG",
    help="Write intents, orders, fills, rejections and the portfolio on a log that is empty, as embedded:DIR or kafka://HOST:PORT/NAMESPACE.",
)
@click.option(
    "--reuse",
    "reuse",
    default=None,
    metavar="LOG",
    help="Use what nodes gave over the same bars in earlier backtests, and keep it there for later ones; a log as of --record, but another one.",
)
@check_options
@format_option
def backtest(
    strategy: str,
    data: tuple[str, ...],
    start_ms: int | None,
    end_ms: int | None,
    as_of: str | None,
    interval: int | None,
    terms: Terms,
    code: tuple[str, ...],
    convention: Convention,
    out: Path | None,
    parquet: bool,
    record: str | None,
    reuse: str | None,
    is_checked: bool,
    cut_count: int,
    start_count: int,
    as_json: bool,
) -> None:
    """Run a strategy over bars, and show what it has traded and what that was worth.

    FILE is a Python file with a Strategy in it, FILE.py:CLASS where it has several, package.module:CLASS, or a DAG message (FILE.json). The
    orders are those that the processors give on the same bars. It needs no log and no broker.
    """
    from qmtl.bootstrap import functions_of
    from qmtl.interfaces.offline import recording, reusing, run_offline
    from qmtl.interfaces.report.backtest_files import result_object
    from qmtl.interfaces.report.export import require_parquet

    if out is not None and parquet:
        require_parquet()  # before the run, which may take long
    if reuse is not None and reuse == record:
        raise UsageError(
            f"--reuse and --record were both {reuse!r}; what is recorded is one run's, what is reused many runs'.",
            "Name two logs.",
        )
    with ExitStack() as held:
        values = None if reuse is None else held.enter_context(reusing(reuse))
        recorder = None if record is None else held.enter_context(recording(record))
        with render.progress() as advance:
            done = run_offline(
                strategy,
                data,
                start_ms,
                end_ms,
                as_of,
                interval,
                terms=terms,
                convention=convention,
                progress=advance,
                code=code,
                recorder=recorder,
                reuse=values,
            )
        simulated = done.simulated
        rows = {} if recorder is None else {"recorded": {"log": record, "rows": recorder.rows}}
        _remark(done)
        if not as_json:
            # Before anything else can fail: the run may have taken long.
            _show(done, is_reusing=values is not None)
        try:
            written = _written(done, out, parquet)
        except QmtlError:
            if as_json:
                render.json_line({**result_object(done), "written": [], **rows})
            for fault in done.faults:
                render.note(fault)
            raise
        if not as_json:
            for one in written:
                render.line(f"Written: {one}")
            if recorder is not None:
                render.line(f"Recorded: {recorder.rows} rows on {record}")
        report = None
        if is_checked:
            packages = functions_of(code).packages
            report = run_check(
                simulated.messages,
                simulated.bars,
                terms,
                packages=packages,
                cut_count=cut_count,
                start_count=start_count,
            )
        if as_json:
            checks = {} if report is None else {"honesty": findings_object(report)}
            used = {} if values is None else {"reused": _reused(reuse, values, done)}
            told = {**result_object(done), "written": [str(one) for one in written], **rows, **used, **checks}
            render.json_line(told)
        elif report is not None:
            render.line()
            render_findings(report)
    for refused in () if values is None else values.refused:
        render.note(refused)
    for fault in done.faults[1:]:
        render.note(fault)
    if done.faults:
        raise done.faults[0]
    if report is not None and report.findings:
        raise failure_of(report)


def _written(done: Backtested, out: Path | None, parquet: bool) -> list[Path]:
    if out is None:
        return []
    with render.progress() as advance:
        advance("write", 0, 1)
        written = done.write(out, parquet=parquet)
        advance("write", 1, 1)
    return written


def _remark(done: Backtested) -> None:
    if done.unread:
        render.note(f"the strategy does not read {', '.join(done.unread)}; left out")
    for symbol, count in done.duplicates.items():
        are = "bar of {} is" if count == 1 else "bars of {} are"
        render.note(
            f"{count} {are.format(symbol)} there a second time in the same words; {'it counts' if count == 1 else 'they count'} once"
        )


def _reused(log: str | None, values: NodeValues, done: Backtested) -> dict[str, Any]:
    return {
        "log": log,
        "nodes": done.simulated.reused,
        "computed": done.simulated.computed,
        "refused": [{"code": one.code, "what": one.what} for one in values.refused],
        "cross_context_cache_hit_total": values.cross_context_hits,
    }


def _show(done: Backtested, *, is_reusing: bool) -> None:
    from qmtl.interfaces.report import words

    simulated, result = done.simulated, done.result
    (graph,) = simulated.graphs
    nodes = f"{simulated.computed + simulated.reused}"
    if is_reusing:
        nodes += f"; computed {simulated.computed}, reused {simulated.reused}"
    bars = ", ".join(f"{symbol} {len(one)}" for symbol, one in simulated.bars.items())
    refused: list[tuple[Any, Any]] = [(f"  {reason}", count) for reason, count in done.rejections.items()]
    rows = [
        ("strategy", f"{result.strategy_id} {graph.version}"),
        ("version digest", graph.commit_hash),
        ("data", simulated.fingerprint),
        ("as_of", done.as_of or "–"),
        ("from", words.moment(simulated.start_ms)),
        ("to", words.moment(simulated.end_ms)),
        ("bars", f"{bars}; of {words.duration(simulated.interval * 1000)}"),
        ("buckets", (simulated.end_ms - simulated.start_ms) // (simulated.interval * 1000)),
        ("nodes", nodes),
        ("intents", len(simulated.intents)),
        ("orders", len(result.orders)),
        ("fills", len(result.fills)),
        ("rejections", sum(done.rejections.values())),
        *refused,
    ]
    render.table(("RUN", ""), rows)
    render.line()
    render.table(("FIGURE", "VALUE"), [(one.title, words.figure(one)) for one in done.performance.figures])
    render.line()
    meant = done.performance.convention
    kind = "log" if meant.returns == "log" else "simple"
    render.line(
        f"Of {kind} returns per {meant.period} s, {meant.periods_per_year:.10g} a year, deviations of a"
        f" {'sample' if meant.ddof else 'population'}, risk-free {meant.risk_free:.4g} a year; a trade is one order's reduction of a"
        f" position at {meant.matching.value} cost, after fees. Times are UTC."
    )
