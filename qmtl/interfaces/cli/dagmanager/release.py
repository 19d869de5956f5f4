"""`release`: a DAG message on its way from its backtests to all of its strategy's traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qmtl.foundation.common.errors import CommandRefused, NotApproved, UsageError
from qmtl.interfaces.cli import render, session
from qmtl.interfaces.cli.options import format_option, instant, log_option, looking, rows_options, wait_option

if TYPE_CHECKING:
    from qmtl.foundation.contracts.dag import DagCommandOutcome
    from qmtl.foundation.contracts.release import Release, ReportBacktest
    from qmtl.interfaces.client import Client

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
    """Deploy a strategy step by step: 20 distinct backtests, a tenth of its traffic, a day later half, a day later all.

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
@_file_option
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Report many at once: a JSON array of runs, or JSON Lines; instead of the options below.",
)
@click.option("--run", "run_id", help="The id of the backtest; each counts once.")
@click.option("--passed/--failed", default=None, help="What became of it.")
@click.option("--fingerprint", "dataset_fingerprint", default="", help="Of the data that it ran over.")
@click.option(
    "--from", "from_ms", metavar="ISO|MS", callback=instant, help="Where the range that it ran over begins."
)
@click.option("--to", "to_ms", metavar="ISO|MS", callback=instant, help="Where that ends, not a part of it.")
@click.option("--result-digest", metavar="HEX", default="", help="BLAKE3 of its result, as `b3sum` tells it.")
@click.option("--detail", default="", help="Why it failed.")
@log_option
@wait_option
@format_option
def backtest(
    release_id: str,
    file: Path,
    results: Path | None,
    run_id: str | None,
    passed: bool | None,
    dataset_fingerprint: str,
    from_ms: int | None,
    to_ms: int | None,
    result_digest: str,
    detail: str,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Tell what became of backtests of the DAG message in --file, which has to be the release's, byte by byte.

    One that passed says what it ran (--fingerprint, --from, --to) and what came of it (--result-digest). It counts once by its id, and
    once by its data and range. With the 20th that counts the message is deployed; one that failed ends the release, in any stage.

    A run in --results has `run_id`, `passed`, `dataset_fingerprint`, `from_ms`, `to_ms`, `result_digest` and, if it likes, `detail`. The file
    is checked whole before anything of it is reported, and those that failed come first.
    """
    from qmtl.foundation.common.canonical import blake3_hex
    from qmtl.foundation.contracts.release import ReportBacktest
    from qmtl.interfaces.backtest_results import read_results
    from qmtl.interfaces.cli.dag_file import read_dag
    from qmtl.services.dagmanager.backtests import require_told

    digest = blake3_hex(read_dag(file))
    if results is None:
        if run_id is None:
            raise UsageError(
                "neither --run nor --results was given; a report is of one of them.", "Give one."
            )
        if passed is None:
            raise UsageError(
                "neither --passed nor --failed was given; a backtest does one of them.", "Give one."
            )
        ran = (dataset_fingerprint, from_ms or 0, to_ms or 0, result_digest)
        told = [ReportBacktest("", release_id, run_id, digest, passed, session.now_ms(), detail, *ran)]
        try:
            require_told(told[0])
        except CommandRefused as error:
            raise UsageError(error.what, error.remedy) from None
    else:
        of_one = (run_id, passed, dataset_fingerprint or None, from_ms, to_ms, result_digest or None)
        if detail or any(one is not None for one in of_one):
            raise UsageError(
                "--results was given with options of one run; the file says all of its runs.", "Give one."
            )
        told = read_results(results, release_id, digest, session.now_ms())
    is_over = results is not None and not told[0].passed
    with session.client(log_address, wait_s) as client:
        _report_all(client, told[:1] if is_over else told, as_json)
    if is_over:
        raise NotApproved(
            f"backtest {told[0].run_id!a} failed, which ends release {release_id}; the others were not reported.",
            "Release a message that passes.",
        )


def _report_all(client: Client, told: Sequence[ReportBacktest], as_json: bool) -> None:
    """Report, and tell what became of each.

    Raises:
        CommandRefused: the first one that was refused; the others were reported.
    """
    from qmtl.interfaces.client import require_accepted

    ids = client.next_command_ids([_content(one) for one in told])
    reports = [replace(one, command_id=wish) for one, wish in zip(told, ids, strict=True)]
    outcomes = client.dag_commands(reports) if len(told) > 1 else [client.dag_command(reports[0])]
    for one in outcomes:
        if one.accepted:
            _tell(one, told[0].release_id, as_json)
    for one in outcomes:
        require_accepted(one)


def _content(one: ReportBacktest) -> tuple[str | int, ...]:
    ran = (one.dataset_fingerprint, one.from_ms, one.to_ms, one.result_digest)
    return "backtest", one.release_id, one.run_id, one.digest, one.passed, one.detail, *ran


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


@release.command("check")
@_release_option
@log_option
@format_option
def check(release_id: str, log_address: str, as_json: bool) -> None:
    """Whether a release has passed its gate; if not, the exit code is 6, and why is said.

    It has once its version was deployed: all its backtests count, and nothing has ended it since.
    """
    from qmtl.foundation.contracts.release import ReleaseStage
    from qmtl.services.dagmanager.release import BACKTESTS

    found = [one for one in _releases(log_address) if one.release_id == release_id]
    if not found:
        raise CommandRefused(
            f"release_id was the text {release_id!a:.200}; no release has that id.",
            "`qmtl service dagmanager release show` shows what there is.",
        )
    (one,) = found
    if one.stage is ReleaseStage.ABANDONED:
        raise NotApproved(f"release {release_id} was abandoned: {one.detail}.", "Begin another one.")
    if one.stage is ReleaseStage.BACKTESTS:
        why = f"; it {one.detail}" if one.detail else ""
        raise NotApproved(
            f"{len(one.runs)} of {BACKTESTS} backtests of release {release_id} count{why}.",
            "Report the others, or see to what it waits for.",
        )
    if as_json:
        render.json_line(
            {
                "release_id": release_id,
                "stage": one.stage.value,
                "sentinel_id": one.sentinel_id,
                "share": one.share,
            }
        )
    else:
        render.line(
            f"release {release_id} is approved ({one.stage.value}): version {one.sentinel_id} gets {one.share / 100:g} %"
        )


@release.command("show")
@click.option(
    "--release", "release_id", metavar="ID", help="This release alone, with the backtests that count."
)
@click.option("--world", "world_id", help="Only releases in this world.")
@click.option("--strategy", "strategy_id", help="Only releases of this strategy.")
@rows_options
@log_option
@format_option
def show(
    release_id: str | None,
    world_id: str | None,
    strategy_id: str | None,
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The releases, by world and strategy and the newest first, and how far each is.

    BACKTESTS are those that count. SINCE is the first tick that found it in its stage, with its version active. DETAIL says why it was
    abandoned, or what it waits for. UNREAD are nodes that nothing in the message reads: each costs a topic.
    """
    from qmtl.services.dagmanager.release import BACKTESTS

    found = [
        one
        for one in _releases(log_address)
        if release_id in (None, one.release_id)
        and world_id in (None, one.world_id)
        and strategy_id in (None, one.strategy_id)
    ]
    found.sort(key=lambda one: (one.world_id, one.strategy_id, -one.started_at_ms, one.release_id))
    shown = found[:limit]
    if as_json:
        for one in shown:
            render.json_line(asdict(one))
    else:
        render.table(
            (
                "RELEASE",
                "WORLD",
                "STRATEGY",
                "VERSION",
                "STAGE",
                "BACKTESTS",
                "SHARE",
                "SINCE",
                "DETAIL",
                "UNREAD",
            ),
            [
                (
                    one.release_id,
                    one.world_id,
                    one.strategy_id,
                    one.version,
                    one.stage.value,
                    f"{len(one.runs)}/{BACKTESTS}",
                    f"{one.share / 100:g} %",
                    "-" if one.since_ms is None else render.instant(one.since_ms),
                    one.detail or "-",
                    " ".join(one.unread) or "-",
                )
                for one in shown
            ],
            numbers=("BACKTESTS", "SHARE"),
        )
        for one in shown if release_id is not None else ():
            _show_runs(one)
    render.left_off(len(shown), len(found), "releases", as_json=as_json)


def _show_runs(one: Release) -> None:
    render.line()
    rows = [
        (
            run.run_id,
            run.dataset_fingerprint,
            render.instant(run.from_ms),
            render.instant(run.to_ms),
            run.result_digest,
        )
        for run in one.runs
    ]
    render.table(("RUN", "DATA", "FROM", "TO", "RESULT"), rows, title="backtests that count")


def _releases(log_address: str) -> list[Release]:
    from qmtl.engine.view import TableView
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as log:
        return TableView(log, "dag.releases", codec).refresh().rows()


def _tell(outcome: DagCommandOutcome, release_id: str, as_json: bool) -> None:
    if as_json:
        render.json_line(
            {"command_id": outcome.command_id, "release_id": release_id, "detail": outcome.detail}
        )
    else:
        render.line(outcome.detail)
