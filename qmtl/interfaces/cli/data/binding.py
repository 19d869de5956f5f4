"""`fingerprint` and `feed`: what binds a run to its bars, and the bars of a catalogue for a world that is bound to them."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.data.options import as_of_option, catalogue_option, length_option, range_options
from qmtl.interfaces.cli.data.rows import named, opened, show_rows
from qmtl.interfaces.cli.options import format_option, log_option, wait_option


@click.command()
@click.option("--symbol", "symbols", multiple=True, required=True, help="Repeatable.")
@length_option("The length of a bar.", required=True)
@range_options
@catalogue_option
@as_of_option
@format_option
def fingerprint(
    symbols: tuple[str, ...],
    interval: int,
    from_ms: int | None,
    to_ms: int | None,
    directory: Path,
    as_of: str | None,
    as_json: bool,
) -> None:
    """Tell of a choice of bars what they are: the commit and the fingerprint, to which a world and a backtest are bound.

    The fingerprint is that of exactly these bars: of these symbols together, in this range.
    """
    from qmtl.runtime.data.bound import bound_bars

    found = bound_bars(opened(directory), symbols, interval, from_ms, to_ms, as_of)
    row = {
        "symbols": list(found.symbols) if as_json else " ".join(found.symbols),
        "interval": interval,
        "bars": found.bars,
        "from": render.instant(found.start_ms),
        "to": render.instant(found.end_ms),
        **named(found.commit),
        "dataset_fingerprint": found.fingerprint,
    }
    show_rows(
        [row],
        as_json,
        ("SYMBOLS", "INTERVAL", "BARS", "FROM", "TO", "COMMIT", "AS_OF", "FINGERPRINT"),
        ("symbols", "interval", "bars", "from", "to", "commit", "as_of", "dataset_fingerprint"),
    )
    if not as_json:
        bound = f"--fingerprint {found.fingerprint}"
        render.line(f"next: qmtl world create WORLD {bound}")
        render.line(
            f"      qmtl dag publish FILE --world WORLD --domain backtest --as-of {found.as_of} {bound}"
        )


@click.command()
@click.argument("world_id", metavar="WORLD")
@range_options
@catalogue_option
@as_of_option
@log_option
@wait_option
@format_option
def feed(
    world_id: str,
    from_ms: int | None,
    to_ms: int | None,
    directory: Path,
    as_of: str | None,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Feed the bars of a catalogue to the strategies of WORLD, and wait until they are traded.

    What the strategies read says which symbols, and how long a bar is. A world that is bound to data gets that data or nothing: other bars
    are refused (QMTL-813), and so are those of another state than the one as of which the log's nodes compute. Said again after
    whatever stopped it, the command goes on where the feed was.
    """
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.feeding import feed_and_trade, feeds_of, require_bound, sources_of
    from qmtl.runtime.data.bound import bound_bars

    catalogue = opened(directory)
    with session.client(log_address, wait_s) as client:
        sources = sources_of(client, world_id)
        intervals = sorted({one.interval for one in sources})
        if len(intervals) > 1:
            raise UsageError(
                f"the strategies of world {world_id!r} read bars of {', '.join(map(str, intervals))} s; one feed has bars of one length.",
                "Deploy them in worlds and logs of their own.",
            )
        symbols = {symbol for one in sources for symbol in one.symbols}
        bars = bound_bars(catalogue, symbols, intervals[0], from_ms, to_ms, as_of)
        require_bound(client, world_id, bars)
        if not client.view("world.state").get(world_id).settings.dataset_fingerprint:
            render.note(f"note: world {world_id} is bound to no data; it takes whatever comes")
        feeds = feeds_of(client.log, sources, bars)
        with render.progress() as advance:
            feed_and_trade(client, world_id, feeds, bars.interval, bars.start_ms, bars.end_ms, advance)
    row = {
        "world": world_id,
        "topics": [one.topic for one in sources] if as_json else " ".join(one.topic for one in sources),
        "bars": bars.bars,
        "from": render.instant(bars.start_ms),
        "to": render.instant(bars.end_ms),
        **named(bars.commit),
        "dataset_fingerprint": bars.fingerprint,
    }
    show_rows(
        [row],
        as_json,
        ("WORLD", "TOPICS", "BARS", "FROM", "TO", "COMMIT", "AS_OF", "FINGERPRINT"),
        ("world", "topics", "bars", "from", "to", "commit", "as_of", "dataset_fingerprint"),
    )
