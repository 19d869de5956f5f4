"""`fetch`: bars come in from an exchange."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from qmtl.foundation.common.errors import HistoryUnavailable
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.data.options import catalogue_option, length_option
from qmtl.interfaces.cli.data.rows import named, show_rows
from qmtl.interfaces.cli.options import format_option, instant, interval_s


@click.command()
@click.option("--exchange", required=True, help="As ccxt names it, such as binance.")
@click.option("--symbol", required=True, help="As ccxt names it, such as BTC/USDT.")
@length_option("The length of a bar.", required=True)
@click.option(
    "--from",
    "from_ms",
    metavar="INSTANT",
    required=True,
    callback=instant,
    help="Open time of the first bar.",
)
@click.option(
    "--to",
    "to_ms",
    metavar="INSTANT",
    required=True,
    callback=instant,
    help="Open time after the last bar; may be in the future.",
)
@catalogue_option
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="A JSON file with settings of ccxt for this exchange: a proxy, other addresses, options.",
)
@click.option("--retries", type=click.IntRange(0, 20), default=6, show_default=True, help="Of each request.")
@click.option(
    "--chunk-bars",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Bars that are asked for per commit.",
)
@click.option(
    "--answer-within",
    metavar="LENGTH",
    default=None,
    callback=interval_s,
    help="Give up an exchange that takes longer for an answer, its retries included; by default as long as it takes.",
)
@click.option(
    "--within", metavar="LENGTH", default=None, callback=interval_s, help="The same for everything together."
)
@format_option
def fetch(
    exchange: str,
    symbol: str,
    interval: int,
    from_ms: int,
    to_ms: int,
    directory: Path,
    settings: Path | None,
    retries: int,
    chunk_bars: int,
    answer_within: int | None,
    within: int | None,
    as_json: bool,
) -> None:
    """Fetch history from an exchange by ccxt, at the pace that the exchange allows. Only closed bars are kept.

    Said again after whatever stopped it, the command goes on where the last commit ended.
    """
    from qmtl.runtime.data.backfill import backfill
    from qmtl.runtime.data.catalogue import writing
    from qmtl.runtime.data.ccxt_history import CcxtProvider
    from qmtl.runtime.data.deadlines import Deadlines, Timely

    provider = Timely(
        CcxtProvider(exchange, read_settings(settings), retries=retries),
        Deadlines(answer_within, answer_within, within),
    )
    with writing(directory) as writer, render.progress() as advance:
        done = backfill(
            writer,
            provider,
            symbol,
            interval,
            from_ms,
            to_ms,
            chunk_bars=chunk_bars,
            progress=lambda over, total: advance(symbol, over, total),
        )
    row = {
        "symbol": symbol,
        "interval": interval,
        "bars": done.bars,
        "known": done.known,
        "skipped": done.skipped,
        "to": render.instant(done.to_ms),
        **named(done.commit),
    }
    show_rows(
        [row],
        as_json,
        ("SYMBOL", "INTERVAL", "BARS", "KNOWN", "SKIPPED", "TO", "COMMIT", "AS_OF"),
        ("symbol", "interval", "bars", "known", "skipped", "to", "commit", "as_of"),
    )


def read_settings(path: Path | None) -> dict[str, Any]:
    """Settings of ccxt out of a file; none without one.

    Raises:
        HistoryUnavailable: it holds no JSON object.
    """
    if path is None:
        return {}
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict):
            return found
    raise HistoryUnavailable(
        f"{path} holds no JSON object with settings of ccxt.", 'Write one, as {"httpsProxy": "http://…"}.'
    )
