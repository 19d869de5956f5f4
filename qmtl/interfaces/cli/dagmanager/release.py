"""`release`: a DAG message on its way from its backtests to all of its strategy's traffic."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render, session
from qmtl.interfaces.cli.options import format_option, log_option, looking, rows_options, wait_option

if TYPE_CHECKING:
    from qmtl.foundation.contracts.dag import DagCommandOutcome

_file_option: Final = click.option(
    "--file",
    type=click.Path(path_type=Path),
    required=True,
    help="A DAG message, as `qmtl dag publish` takes it.",
)
_release_option: Final = click.option(
    "--release", "release_id", metavar="ID", required=True, help="As `release show` tells it."
)


@click.group()
def release() -> None:
    """Deploy a strategy step by step: 20 backtests, a tenth of its traffic, a day later half, a day later all.

    Days are those of the log's clock. Whatever else is done to the strategy's versions meanwhile ends the release, and stays as it is.
    """


@release.command("start")
@_file_option
@click.option("--world", "world_id", required=True, help="The world to deploy in.")
@log_option
@wait_option
@format_option
def start(file: Path, world_id: str, log_address: str, wait_s: float, as_json: bool) -> None:
    """Begin the release of a DAG message, which is refused as its publication would be; nothing of it is created yet."""
    from qmtl.foundation.common.canonical import blake3_hex
    from qmtl.foundation.contracts.release import StartRelease
    from qmtl.interfaces.cli.dag_file import read_dag
    from qmtl.services.dagmanager.admission import admit

    message = read_dag(file)
    admit(message, 0)
    with session.client(log_address, wait_s) as client:
        client.require_world(world_id)
        wish = client.next_command_id("release", world_id, blake3_hex(message))
        _tell(client.dag_command(StartRelease(wish, world_id, message, session.now_ms())), wish, as_json)


@release.command("backtest")
@_release_option
@click.option("--run", "run_id", required=True, help="The id of the backtest; each counts once.")
@click.option("--passed/--failed", default=None, help="What became of it.")
@_file_option
@click.option("--detail", default="", help="Why it failed.")
@log_option
@wait_option
@format_option
def backtest(
    release_id: str,
    run_id: str,
    passed: bool | None,
    file: Path,
    detail: str,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Tell what became of a backtest of the DAG message in --file, which has to be the release's, byte by byte.

    With the 20th that passed the message is deployed; one that failed ends the release, in any stage.
    """
    from qmtl.foundation.common.canonical import blake3_hex
    from qmtl.foundation.contracts.release import ReportBacktest
    from qmtl.interfaces.cli.dag_file import read_dag

    if passed is None:
        raise UsageError("neither --passed nor --failed was given; a backtest does one of them.", "Give one.")
    digest = blake3_hex(read_dag(file))
    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("backtest", release_id, run_id, digest, passed, detail)
        told = ReportBacktest(wish, release_id, run_id, digest, passed, session.now_ms(), detail)
        _tell(client.dag_command(told), release_id, as_json)


@release.command("abandon")
@_release_option
@click.option("--reason", required=True, help="Why.")
@log_option
@wait_option
@format_option
def abandon(release_id: str, reason: str, log_address: str, wait_s: float, as_json: bool) -> None:
    """Go no further with a release. Its version keeps its share of the traffic: `weight` and `redo-diff` change that."""
    from qmtl.foundation.contracts.release import AbandonRelease

    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("abandon", release_id, reason)
        _tell(
            client.dag_command(AbandonRelease(wish, release_id, reason, session.now_ms())),
            release_id,
            as_json,
        )


@release.command("show")
@click.option("--world", "world_id", help="Only releases in this world.")
@click.option("--strategy", "strategy_id", help="Only releases of this strategy.")
@rows_options
@log_option
@format_option
def show(
    world_id: str | None, strategy_id: str | None, limit: int | None, log_address: str, as_json: bool
) -> None:
    """The releases, by world and strategy and the newest first, and how far each is.

    SINCE is the first tick that found it in its stage, with its version active. DETAIL says why it was abandoned, or what it waits for.
    """
    from qmtl.engine.view import TableView
    from qmtl.foundation.wire.registry import codec
    from qmtl.services.dagmanager.release import BACKTESTS

    with looking(log_address) as log:
        rows = TableView(log, "dag.releases", codec).refresh().rows()
    found = [
        one for one in rows if world_id in (None, one.world_id) and strategy_id in (None, one.strategy_id)
    ]
    found.sort(key=lambda one: (one.world_id, one.strategy_id, -one.started_at_ms, one.release_id))
    shown = found[:limit]
    if as_json:
        for one in shown:
            render.json_line(asdict(one))
    else:
        render.table(
            ("RELEASE", "WORLD", "STRATEGY", "VERSION", "STAGE", "BACKTESTS", "SHARE", "SINCE", "DETAIL"),
            [
                (
                    one.release_id,
                    one.world_id,
                    one.strategy_id,
                    one.version,
                    one.stage.value,
                    f"{len(one.backtests)}/{BACKTESTS}",
                    f"{one.share / 100:g} %",
                    "-" if one.since_ms is None else render.instant(one.since_ms),
                    one.detail or "-",
                )
                for one in shown
            ],
            numbers=("BACKTESTS", "SHARE"),
        )
    render.left_off(len(shown), len(found), "releases", as_json=as_json)


def _tell(outcome: DagCommandOutcome, release_id: str, as_json: bool) -> None:
    if as_json:
        render.json_line(
            {"command_id": outcome.command_id, "release_id": release_id, "detail": outcome.detail}
        )
    else:
        render.line(outcome.detail)
