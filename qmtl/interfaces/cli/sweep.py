"""`qmtl sweep`: one strategy with many values of its parameters over the same bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.common.money import text
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.conventions import convention_options
from qmtl.interfaces.cli.data.options import as_of_option
from qmtl.interfaces.cli.options import format_option, instant, interval_s
from qmtl.interfaces.cli.terms import terms_options

if TYPE_CHECKING:
    from qmtl.backtest.simulation import Terms
    from qmtl.backtest.sweep.plan import Plan
    from qmtl.backtest.sweep.sweep import Row, Swept
    from qmtl.runtime.data.reading import BarsRead
    from qmtl.runtime.performance.kpi import Convention, Figure

ROWS: Final = 10


@click.command()
@click.argument("strategy", metavar="FILE[:CLASS]")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    metavar="NAME=VALUES",
    help="A parameter of the class's constructor: FROM:TO:STEP, both ends within, or VALUE,VALUE,…; repeatable.",
)
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="COMPARISON",
    help="Leave out combinations in which it is not true: 'fast<slow', 'slow>=30'; repeatable.",
)
@click.option(
    "--by", default="sharpe", show_default=True, metavar="FIGURE", help="By which results are ranked."
)
@click.option("--ascending", is_flag=True, help="The least first.")
@click.option(
    "--top", type=click.IntRange(min=1), default=ROWS, show_default=True, metavar="N", help="Results shown."
)
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
@convention_options
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="On this machine, or workers of the cluster; changes no result.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or a cluster of Ray's (extra `ray`).",
)
@click.option(
    "--ray-address", metavar="ADDRESS", default=None, help="Of a cluster; by default one is begun here."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("sweep"),
    show_default=True,
    metavar="DIR",
    help="Where sweep.html, results.csv and best.json are written.",
)
@click.option("--parquet", is_flag=True, help="Write the results as Parquet, too; needs the extra `data`.")
@format_option
def sweep(
    strategy: str,
    parameters: tuple[str, ...],
    conditions: tuple[str, ...],
    by: str,
    ascending: bool,
    top: int,
    data: tuple[str, ...],
    start_ms: int | None,
    end_ms: int | None,
    as_of: str | None,
    interval: int | None,
    terms: Terms,
    convention: Convention,
    processes: int,
    engine: Literal["local", "ray"],
    ray_address: str | None,
    out: Path,
    parquet: bool,
    as_json: bool,
) -> None:
    """Run a strategy class with every combination of some parameters over the same bars, and rank the results.

    Each combination is a strategy of its own; a node that several of them have is computed once in a process. Combinations that fail are told,
    and the others go on. Results are the same for any number of processes.
    """
    from qmtl.backtest.sweep.asking import Maker
    from qmtl.backtest.sweep.job import Setting
    from qmtl.backtest.sweep.plan import plan_of
    from qmtl.backtest.sweep.space import Space, read_condition, read_parameter
    from qmtl.backtest.sweep.sweep import engine_of, figures_of, require_figure, swept
    from qmtl.interfaces.report.export import require_parquet
    from qmtl.runtime.sdk.loading import load_class

    if parquet:
        require_parquet()
    if ray_address is not None and engine != "ray":
        raise UsageError("--ray-address was said without --engine ray.", "Say both, or neither.")
    space = Space.of(map(read_parameter, parameters), map(read_condition, conditions))
    combinations = space.combinations()
    chosen = load_class(strategy)
    setting = Setting(terms, convention, strategy)
    figure = require_figure(by, figures_of(setting))
    sources = data or _shipped()
    length = interval
    if length is None and Maker(chosen, space).lacks_interval(combinations):
        length = _read(sources, start_ms, end_ms, as_of, None, None).interval
    with render.progress() as advance:
        plan = plan_of(
            space, Maker(chosen, space, length), lambda done, total: advance("strategies", done, total)
        )
        read = _read(sources, start_ms, end_ms, as_of, length, plan, sparse=interval is not None)
        figures = figures_of(setting, read.interval)
        workers = engine_of(engine, setting, read.bars, processes, ray_address)
        try:
            found = swept(plan, workers, processes, lambda done, total: advance("runs", done, total))
        finally:
            workers.close()
    said = {
        "Strategy": Path(strategy).name,  # no place of this machine: the page may go to others
        "Parameters": "; ".join(parameters),
        "Conditions": "; ".join(conditions) or "none",
        "Symbols": ", ".join(read.bars),
        "Bars": f"{sum(len(one) for one in read.bars.values()):,} of {read.interval} s",
        "Fingerprint of the data": read.fingerprint,
        "as_of": read.as_of or "none",
        "Initial cash": f"{text(terms.cash)} {terms.currency}",
        "Fee rate": text(terms.fee_rate),
        "Slippage rate": text(terms.slippage_rate),
    }
    written = _write(found, figure, figures, said, out, parquet=parquet, ascending=ascending)
    ranked = found.ranked(by, ascending=ascending)
    if as_json:
        render.json_line(_plain(found, ranked, by, written))
    else:
        _show(found, ranked[:top], figure, figures, written)


def _read(
    data: Sequence[str],
    start_ms: int | None,
    end_ms: int | None,
    as_of: str | None,
    interval: int | None,
    plan: Plan | None,
    *,
    sparse: bool = False,
) -> BarsRead:
    """The bars of a sweep: all files that were named, and of a catalogue the symbols that its strategies read."""
    from qmtl.backtest.simulation import reads_of
    from qmtl.runtime.data.reading import load_bars

    symbols: set[str] | None = None
    graphs = [] if plan is None else [one.graph for one in plan.made if one.graph is not None]
    if graphs:
        interval = interval or reads_of(graphs[0])[1]
        if len(data) == 1 and Path(data[0]).is_dir():
            symbols = {symbol for one in graphs for symbol in reads_of(one)[0]}
    return load_bars(data, start_ms, end_ms, as_of, symbols=symbols, interval=interval, sparse=sparse)


def _shipped() -> list[str]:
    from qmtl.runtime.data.bars import default_sources

    return [f"{one.symbol}={one.path}" for one in default_sources()]


def _write(
    found: Swept,
    by: Figure,
    figures: tuple[Figure, ...],
    said: Mapping[str, str],
    out: Path,
    *,
    parquet: bool,
    ascending: bool,
) -> list[Path]:
    from qmtl.interfaces.cli.out_file import not_written
    from qmtl.interfaces.report.export import write_csv, write_parquet
    from qmtl.interfaces.report.sweep_page import sweep_page
    from qmtl.interfaces.report.sweep_table import results_of

    table = results_of(found, figures)
    best = found.ranked(by.name, ascending=ascending)[0]
    message = next(
        one.message
        for one in found.plan.made
        if one.strategy_id == best.strategy_id and one.message is not None
    )
    written = [out / "sweep.html"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        written[0].write_text(sweep_page(found, by, figures, said, ascending=ascending), encoding="utf-8")
        written.append(out / "results.csv")
        write_csv(table, written[-1])
        if parquet:
            written.append(out / "results.parquet")
            write_parquet(table, written[-1])
        written.append(out / "best.json")
        written[-1].write_bytes(message)
    except OSError as error:
        raise not_written(written[-1], error) from None
    return written


def _plain(found: Swept, ranked: Iterable[Row], by: str, written: list[Path]) -> dict[str, Any]:
    rows = [
        {
            "strategy_id": one.strategy_id,
            "parameters": dict(one.combination.values),
            **(
                {"code": one.done.code, "fault": one.done.fault}
                if one.done.code
                else {
                    "figures": dict(one.done.figures),
                    "orders": one.done.orders,
                    "fills": one.done.fills,
                    "rejections": one.done.rejections,
                }
            ),
        }
        for one in ranked
    ]
    return {
        "by": by,
        "combinations": len(found.rows),
        "failed": found.failed,
        "nodes": {"asked": found.plan.nodes_asked, "unique": found.plan.nodes_unique},
        "rows": rows,
        "files": [str(one) for one in written],
    }


def _show(
    found: Swept, ranked: Iterable[Row], by: Figure, figures: tuple[Figure, ...], written: list[Path]
) -> None:
    from qmtl.backtest.sweep.space import value_text
    from qmtl.interfaces.report import words
    from qmtl.interfaces.report.sweep_page import shown_figures
    from qmtl.interfaces.report.sweep_page import written as cell

    chosen = shown_figures(by, figures)
    names = [one.name for one in found.plan.space.parameters]
    rows = [
        (
            *(value_text(value) for _, value in one.combination.values),
            *(cell(one, figure) if not one.done.code else words.NONE for figure in chosen),
            one.done.fills,
            one.strategy_id if not one.done.code else f"[{one.done.code}] {one.done.fault}",
        )
        for one in ranked
    ]
    heads = (*(one.upper() for one in names), *(one.title.upper() for one in chosen), "FILLS", "STRATEGY")
    render.table(heads, rows, numbers=heads[:-1])
    render.line()
    plan = found.plan
    render.line(f"Combinations: {len(found.rows)}, of which {found.failed} failed.")
    render.line(f"Nodes: {plan.nodes_unique} different ones of {plan.nodes_asked} that were asked for.")
    render.note(f"Computed in all processes together: {found.computed} nodes.")
    failed = [one for one in found.rows if one.done.code]
    if failed:
        first = failed[0]
        render.note(
            f"The first that failed, {first.combination.told()}: [{first.done.code}] {first.done.fault}"
        )
    for one in written:
        render.line(f"Written: {one}")
