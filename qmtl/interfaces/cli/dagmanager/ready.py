"""`queues`: the queues that carry data, by their tags and interval, and how they come and go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, assert_never

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, interval_s, log_option, looking, rows_options
from qmtl.interfaces.cli.signals import stopped

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log
    from qmtl.interfaces.queue_watch import Choice, ReadySet, SetChanged, Told

WAIT_S: Final = 0.2

_WIDTHS: Final = (10, 7)


@click.command()
@click.option(
    "--tag",
    "tags",
    multiple=True,
    required=True,
    metavar="TAG",
    help="Only sets with this tag, and perhaps others; may be repeated: those with all of them.",
)
@click.option(
    "--interval",
    callback=interval_s,
    metavar="TIME",
    help="Only sets of this interval: 60, 60s, 15m, 1h, 1d.",
)
@click.option("--watch", is_flag=True, help="Go on with every change of them, until Ctrl-C or SIGTERM.")
@click.option(
    "--reconcile",
    "reconcile_s",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    help="With --watch: read the tables again so often, and correct what no event has told.  [default: 300]",
)
@rows_options
@log_option
@format_option
def queues(
    tags: tuple[str, ...],
    interval: int | None,
    watch: bool,
    reconcile_s: int | None,
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The sets of queues that carry data, by their tags and interval, in the order of the tags.

    A queue carries data while its topic is there and an active version has its node. ETAG ends in a count of the changes of the
    set. With --watch a line comes per change, the first of them for the sets that there are: the queues that were added (+) and
    removed (-), and CAUSE: seeded from the tables at the beginning, an event, or reconciled, where a later reading of the tables
    differed from what the events had told; --limit is for the list alone.
    """
    from qmtl.interfaces.queue_watch import RECONCILE_S, Choice, read_ready_sets

    if reconcile_s is not None and not watch:
        raise UsageError(
            "--reconcile was given without --watch.", "Give both; without --watch the tables are read once."
        )
    choice = Choice(frozenset(tags), interval)
    with looking(log_address) as log:
        if watch:
            _follow(log, choice, RECONCILE_S if reconcile_s is None else reconcile_s, as_json)
        else:
            _show([one for one in read_ready_sets(log, choice) if one.queues], limit, as_json)


def _show(found: list[ReadySet], limit: int | None, as_json: bool) -> None:
    shown = found[:limit]
    if as_json:
        for one in shown:
            render.json_line(
                {"tags": one.key.tags, "interval": one.key.interval, "queues": one.queues, "etag": one.etag}
            )
    else:
        cells = [(" ".join(one.key.tags), one.key.interval, " ".join(one.queues), one.etag) for one in shown]
        render.table(("TAGS", "SECONDS", "QUEUES", "ETAG"), cells, numbers=("SECONDS",))
    render.left_off(len(shown), len(found), "sets of queues", as_json=as_json)


def _follow(log: Log, choice: Choice, reconcile_s: float, as_json: bool) -> None:
    from qmtl.interfaces.queue_watch import QueueWatch

    with stopped() as enough:
        if not as_json:
            render.columns(("CAUSE", "SECONDS", "TAGS", "CHANGE", "ETAG"), _WIDTHS)
        watch = QueueWatch(log, choice, reconcile_s=reconcile_s)
        try:
            told: list[Told] = [*watch.seeded]
            while True:
                for one in told:
                    tell(one, as_json)
                sys.stdout.flush()
                if enough():
                    return
                told = watch.poll(WAIT_S)
        finally:
            watch.close()


def tell(told: Told, as_json: bool) -> None:
    """One line on stdout for a change, a remark on stderr for what could not be used."""
    from qmtl.interfaces.queue_watch import EventUnread, SetChanged

    match told:
        case SetChanged() if as_json:
            render.json_line(_as_row(told))
        case SetChanged():
            change = [*(f"+{one}" for one in told.added), *(f"-{one}" for one in told.removed)]
            render.columns(
                (
                    told.cause.value,
                    told.key.interval,
                    " ".join(told.key.tags),
                    " ".join(change),
                    told.etag,
                ),
                _WIDTHS,
            )
        case EventUnread():
            render.note(f"queue offset {told.offset}: not used: [{told.code}] {told.what}")
        case _:
            assert_never(told)


def _as_row(told: SetChanged) -> dict[str, Any]:
    """One line of JSON."""
    return {
        "tags": told.key.tags,
        "interval": told.key.interval,
        "added": told.added,
        "removed": told.removed,
        "etag": told.etag,
        "cause": told.cause,
    }
