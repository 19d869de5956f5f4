"""`qmtl sweep`: one strategy with many values of its parameters over the same bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, instant, interval_s

if TYPE_CHECKING:
    from qmtl.backtest.sweep.sweep import Row, Swept
    from qmtl.runtime.performance.kpi import Figure

ROWS: Final = 10


def _money(context: click.Context, parameter: click.Parameter, value: str) -> Decimal:
    from qmtl.foundation.common.money import parse_decimal

    try:
        return parse_decimal(value, parameter.name or "value")
    except QmtlError as error:
        raise click.BadParameter(error.what) from None


@click.command()
@click.argument("strategy", metavar="FILE[:CLASS]")
@click.option(
    "--data",
    multiple=True,
    metavar="SYMBOL=FILE",
    help="The bars, CSV or Parquet, repeatable; or the directory of a catalogue. By default those that come with QMTL.",
)
@click.option("--from", "start_ms", callback=instant, metavar="TIME", help="Bars that open at or after this.")
@click.option("--to", "end_ms", callback=instant, metavar="TIME", help="Bars that open before this.")
@click.option(
    "--as-of", metavar="COMMIT", default=None, help="A commit of the catalogue; by default the newest."
)
@click.option(
    "--interval", callback=interval_s, metavar="TIME", help="Of the bars, where the data have several."
)
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
@click.option("--cash", callback=_money, default="100000", show_default=True, help="Of each strategy.")
@click.option("--fee", callback=_money, default="0.001", show_default=True, help="Share of what is traded.")
@click.option(
    "--slippage",
    callback=_money,
    default="0.0005",
    show_default=True,
    help="Share of the price against the taker.",
)
@click.option(
    "--periods-per-year",
    type=click.FloatRange(min=0, min_open=True, max=1e8),
    default=None,
    metavar="N",
    help="Of returns per --period; by default those of 365 days.",
)
@click.option(
    "--period", callback=interval_s, metavar="TIME", help="What one return covers; by default a bar."
)
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
    help="The directory for sweep.html, results.csv and best.json.",
)
@click.option("--parquet", is_flag=True, help="Write the results as Parquet, too; needs pyarrow.")
@format_option
def sweep(
    strategy: str,
    data: tuple[str, ...],
    start_ms: int | None,
    end_ms: int | None,
    as_of: str | None,
    interval: int | None,
    parameters: tuple[str, ...],
    conditions: tuple[str, ...],
    by: str,
    ascending: bool,
    top: int,
    cash: Decimal,
    fee: Decimal,
    slippage: Decimal,
    periods_per_year: float | None,
    period: int | None,
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
    from qmtl.backtest.simulation import Terms
    from qmtl.backtest.sweep.asking import Maker
    from qmtl.backtest.sweep.job import Setting
    from qmtl.backtest.sweep.plan import plan_of
    from qmtl.backtest.sweep.space import Space, read_condition, read_parameter
    from qmtl.backtest.sweep.sweep import engine_of, figures_of, require_figure, swept
    from qmtl.interfaces.report.export import require_parquet
    from qmtl.runtime.data.reading import load_bars
    from qmtl.runtime.performance.kpi import Convention
    from qmtl.runtime.sdk.loading import load_class

    if parquet:
        require_parquet()
    if ray_address is not None and engine != "ray":
        raise UsageError("--ray-address was said without --engine ray.", "Say both, or neither.")
    space = Space.of([read_parameter(one) for one in parameters], [read_condition(one) for one in conditions])
    space.combinations()  # told before any bar is read
    chosen = load_class(strategy)
    terms = Terms(cash=cash, fee_rate=fee, slippage_rate=slippage)
    setting = Setting(terms, Convention(period, periods_per_year), strategy)
    read = load_bars(data or _shipped(), start_ms, end_ms, as_of, interval=interval)
    figures = figures_of(read.bars, setting)
    figure = require_figure(by, figures)
    first_ms = min(int(one.open_time_ms[0]) for one in read.bars.values())
    with render.progress() as advance:
        maker = Maker(chosen, space, read.interval, first_ms)
        plan = plan_of(space, maker, lambda done, total: advance("strategies", done, total))
        workers = engine_of(engine, setting, read.bars, processes, ray_address)
        try:
            found = swept(plan, workers, processes, lambda done, total: advance("runs", done, total))
        finally:
            workers.close()
    said = {
        "Strategy": strategy,
        "Parameters": "; ".join(parameters),
        "Conditions": "; ".join(conditions) or "none",
        "Symbols": ", ".join(read.bars),
        "Bars": f"{sum(len(one) for one in read.bars.values()):,} of {read.interval} s",
        "Fingerprint of the data": read.fingerprint,
        "as_of": read.as_of or "none",
        "Initial cash": f"{cash} {terms.currency}",
        "Fee rate": str(fee),
        "Slippage rate": str(slippage),
    }
    written = _write(found, figure, figures, said, out, parquet=parquet, ascending=ascending)
    ranked = found.ranked(by, ascending=ascending)
    if as_json:
        render.json_line(_plain(found, ranked, by, written))
    else:
        _show(found, ranked[:top], figure, figures, written)


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
        raise UsageError(
            f"{written[-1]} can't be written: {error.strerror}.", "Name another place with --out."
        ) from None
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
