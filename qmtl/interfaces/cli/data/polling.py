"""`poll`: bars of an exchange come to the strategies of a world as they close."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.foundation.common.errors import DataLate, HistoryUnavailable, OtherData, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.data.fetching import read_settings
from qmtl.interfaces.cli.options import format_option, instant, interval_s, log_option, wait_option


@click.command()
@click.argument("world_id", metavar="WORLD")
@click.option("--exchange", required=True, help="As ccxt names it, such as binance.")
@click.option(
    "--symbol",
    "symbols",
    metavar="OURS=THEIRS",
    multiple=True,
    help="How ccxt names a symbol that the strategies name otherwise, such as BTC-USD=BTC/USD; repeatable.",
)
@click.option(
    "--from",
    "from_ms",
    metavar="INSTANT",
    default=None,
    callback=instant,
    help="Open time of the first bar where none was written yet; by default the first one that opens from now on.",
)
@click.option(
    "--settle",
    metavar="LENGTH",
    default="3s",
    show_default=True,
    callback=interval_s,
    help="Ask for a bar so long after its end: before, its last trades may be missing.",
)
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="A JSON file with settings of ccxt for this exchange: a proxy, other addresses, options.",
)
@click.option("--retries", type=click.IntRange(0, 20), default=6, show_default=True, help="Of each request.")
@click.option(
    "--answer-within",
    metavar="LENGTH",
    default="30s",
    show_default=True,
    callback=interval_s,
    help="Give up an answer that takes longer until the next turn, its retries included.",
)
@click.option(
    "--tick", is_flag=True, help="Tick the clock of the log, too: where `qmtl worker run clock` does not run."
)
@click.option("--once", is_flag=True, help="Write what has closed, and end.")
@log_option
@wait_option
@format_option
def poll(
    world_id: str,
    exchange: str,
    symbols: tuple[str, ...],
    from_ms: int | None,
    settle: int,
    settings: Path | None,
    retries: int,
    answer_within: int,
    tick: bool,
    once: bool,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Write bars of an exchange to the strategies of WORLD as they close, until it is interrupted.

    What the strategies read says which symbols, and how long a bar is. Each bucket is closed once, with the bars that were traded in it, and
    none that is still open by the exchange's clock. Said again after whatever stopped it, the command goes on behind the last bucket on the
    log. An exchange that does not answer is told, and asked again at the next close.
    """
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.feeding import sources_of
    from qmtl.interfaces.polling import Poller
    from qmtl.runtime.data.ccxt_history import CcxtProvider
    from qmtl.runtime.data.deadlines import Deadlines, Timely

    names = _names(symbols)
    asked = CcxtProvider(exchange, read_settings(settings), retries=retries, settle_s=settle)
    with session.client(log_address, wait_s) as client:
        sources = sources_of(client, world_id)
        bound = client.view("world.state").get(world_id).settings.dataset_fingerprint
        if bound:
            raise OtherData(
                f"world {world_id!r} is bound to the data {bound}; bars that are still to come are others.",
                "Create a world without a fingerprint for them.",
            )
        provider = Timely(asked, Deadlines(answer_within, answer_within))
        poller = Poller(client.log, provider, sources, names=names, start_ms=from_ms, ticks=tick)
        step_ms = sources[0].interval * 1000
        while True:
            try:
                done = poller.poll()
            except (HistoryUnavailable, DataLate) as problem:
                if once:
                    raise
                render.error(problem)
            else:
                if as_json:
                    render.json_line(
                        {"bars": done.bars, "buckets": done.buckets, "closed_ms": done.closed_ms}
                    )
                else:
                    closed = render.instant(done.closed_ms)
                    render.line(f"closed up to {closed}: {done.bars} bars in {done.buckets} buckets")
            if once:
                return
            left_ms = step_ms - (session.now_ms() - settle * 1000) % step_ms
            client.within(left_ms / 1000, lambda: None)


def _names(symbols: tuple[str, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for text in symbols:
        ours, sign, theirs = text.partition("=")
        if not sign or not ours or not theirs or ours in names:
            raise UsageError(
                f"--symbol was {text[:60]!r}; it has the form OURS=THEIRS, each of ours once.",
                "For example --symbol BTC-USD=BTC/USD.",
            )
        names[ours] = theirs
    return names
