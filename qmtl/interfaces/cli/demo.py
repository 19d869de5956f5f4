"""`qmtl demo`: one strategy from idea to fills on real bars, on the embedded log or on Kafka."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from qmtl.interfaces.cli import render

DEFAULT_STATE_DIR = Path(".qmtl/demo")
ROWS_SHOWN = 8


@click.command()
@click.option(
    "--log", "address", default=None, metavar="ADDRESS", help="Log to run on; default embedded:STATE_DIR/log."
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    help="Where local stores, the embedded log and the picture lie; may be deleted at any time when the log is Kafka.",
)
@click.option(
    "--bars",
    "bars",
    multiple=True,
    metavar="SYMBOL=FILE",
    help="Bars of one symbol as CSV, plain or gzip; repeatable.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object with digests and final tables, nothing else.",
)
@click.option("--no-workers", is_flag=True, help="Only drive; other processes run the workers.")
@click.option(
    "--poll-records",
    type=click.IntRange(1, 1_000_000),
    default=None,
    help="Records per batch; changes no result.",
)
def demo(
    address: str | None,
    state_dir: Path,
    bars: tuple[str, ...],
    as_json: bool,
    no_workers: bool,
    poll_records: int | None,
) -> None:
    """Create a world, publish the example strategy, activate it, feed real bars, show what became of it.

    The same command after a crash goes on where the last transaction ended.
    """
    from qmtl.bootstrap import make_workers, open_log, prepare
    from qmtl.engine.task import POLL_RECORDS, TaskSettings
    from qmtl.foundation.wire.registry import codec
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.interfaces.demo import report
    from qmtl.interfaces.demo.run import DemoRun, load
    from qmtl.replay.digest import digests
    from qmtl.runtime.data.bars import default_sources, source_of

    sources = tuple(source_of(one, "--bars") for one in bars) or default_sources()
    data = load(sources)
    where = address or f"embedded:{state_dir / 'log'}"
    log = open_log(where)
    workers: list[Any] = []
    try:
        prepare(log)
        if not no_workers:
            settings = TaskSettings(state_dir / "tasks", poll_records or POLL_RECORDS, on_restore=on_stderr())
            workers = make_workers(log, settings, slot="demo")
        symbols = ", ".join(one.symbol for one in data.sources)
        render.note(f"qmtl demo on {where}: {data.bars} bars of {symbols}, {data.interval} s each")
        with render.progress() as advance:
            run = DemoRun(log, data, workers, advance)
            run.run()
        found = report.tables(run.client)
        state_dir.mkdir(parents=True, exist_ok=True)
        picture = state_dir / "equity.png"
        report.draw_equity(report.equity_curve(log), run.client.view("trade.fills").rows(), picture)
        hashes = digests(log, codec)
    finally:
        for worker in workers:
            worker.close()
        log.close()
    if as_json:
        out = {
            "digests": hashes,
            "equity_picture": str(picture),
            "tables": {name: one.as_json() for name, one in found.items()},
        }
        render.json_line(out)
        return
    _show(found, hashes, picture, where, state_dir, bars)


def _show(
    found: dict[str, Any],
    hashes: dict[str, str],
    picture: Path,
    where: str,
    state_dir: Path,
    bars: tuple[str, ...],
) -> None:
    for one in found.values():
        shown = one.rows[-ROWS_SHOWN:]
        before = len(one.rows) - len(shown)
        title = f"{one.title}: {len(one.rows)}" + (f", the last {len(shown)}" if before else "")
        render.table(one.columns, shown, title=title)
        render.line()
    render.line(f"Equity picture: {picture}")
    render.line()
    render.line("Digests (keys and values of each topic, log coordinates left out)")
    for name, digest in sorted(hashes.items()):
        render.columns(("", name, digest), (0, 36))
    default_log = f"embedded:{DEFAULT_STATE_DIR / 'log'}"
    log = "" if where == default_log else f" --log {where}"
    dirs = "" if state_dir == DEFAULT_STATE_DIR else f" --state-dir {state_dir}"
    data = "".join(f" --data {shlex.quote(one)}" for one in bars)
    render.line()
    render.line("Next")
    for command in (
        f"qmtl topic list{log}",
        f"qmtl report{log}{data}",
        f"qmtl state trade.portfolio{log}",
        f"qmtl topic read trade.fills --limit 5{log}",
        f"qmtl replay verify{log}{dirs}",
        "qmtl topology",
    ):
        render.line(f"  {command}")
