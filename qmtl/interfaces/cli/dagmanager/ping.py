"""`ping`: whether somebody does the DAG Manager's work, once or every 30 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, looking
from qmtl.interfaces.cli.signals import stopped

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log
    from qmtl.interfaces.liveness import Pong

_LOOK_S: Final = 0.2
_WIDTHS: Final = (24, 8)


@click.command()
@click.option("--watch", is_flag=True, help="Go on, a line per ping, until Ctrl-C or SIGTERM.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="With --watch: so often.  [default: 30]",
)
@log_option
@format_option
def ping(watch: bool, every_s: float | None, log_address: str, as_json: bool) -> None:
    """Ask whether somebody has the task of the DAG Manager, and how much of its inputs waits.

    The members of its group answer, who are out of it 10 seconds after their last heartbeat; so this is for Kafka, as an embedded log
    knows no members. Without a pong the exit code is 6. With --watch the line says missing instead, or hangs where something waits and
    nothing was taken since the ping before.
    """
    from qmtl.interfaces.liveness import EVERY_S, ping

    if every_s is not None and not watch:
        raise UsageError(
            "--every was given without --watch.", "Give both; without --watch there is one ping."
        )
    with looking(log_address) as log, stopped() as enough:
        if watch:
            ping_on(log, EVERY_S if every_s is None else every_s, enough, as_json)
        else:
            _tell("pong", ping(log), as_json)


def ping_on(log: Log, every_s: float, enough: Callable[[], bool], as_json: bool) -> None:
    """A line per ping until it is enough, which is asked several times in between."""
    from qmtl.interfaces.liveness import ping, stands_still

    before: Pong | None = None
    while not enough():
        due = time.monotonic() + every_s
        try:
            now = ping(log)
            _tell("hangs" if stands_still(before, now) else "pong", now, as_json)
            before = now
        except QmtlError as error:
            _tell_missing(error, as_json)
        sys.stdout.flush()
        while not enough() and (left := due - time.monotonic()) > 0:
            time.sleep(min(_LOOK_S, left))


def _tell(what: str, pong: Pong, as_json: bool) -> None:
    if as_json:
        row = {"slot": pong.slot, "host": pong.host, "waiting": pong.waiting, "bucket_ms": pong.bucket_ms}
        render.json_line({"answer": what, "at_ms": _now_ms(), **row})
        return
    closed = "no bucket" if pong.bucket_ms is None else render.instant(pong.bucket_ms)
    told = f"slot {pong.slot} on {pong.host}, {pong.waiting} records wait, closed {closed}"
    render.columns((render.instant(_now_ms()), what, told), _WIDTHS)


def _tell_missing(error: QmtlError, as_json: bool) -> None:
    if as_json:
        render.json_line({"answer": "missing", "at_ms": _now_ms(), "code": error.code, "what": error.what})
    else:
        render.columns((render.instant(_now_ms()), "missing", str(error)), _WIDTHS)


def _now_ms() -> int:
    return int(time.time() * 1000)
