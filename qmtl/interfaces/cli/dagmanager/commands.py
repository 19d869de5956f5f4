"""Commands to the DAG Manager: sent once, answered, and told; a refusal ends with the exit code of its error."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import click

from qmtl.foundation.common.errors import InvalidValue, UsageError
from qmtl.foundation.common.money import parse_decimal
from qmtl.interfaces.cli import render, session
from qmtl.interfaces.cli.options import format_option, log_option, wait_option

ADMIN_LOG: Final = "dag.admin.log"

NAMED: Final = 10
"""So many of the topics that were made are named."""

if TYPE_CHECKING:
    from qmtl.engine.log.port import TopicPartition
    from qmtl.foundation.contracts.dag import DagCommandOutcome, StrategyVersion
    from qmtl.interfaces.client import Client


_sentinel_option: Final = click.option(
    "--sentinel",
    "sentinel_id",
    metavar="ID|VERSION|TAG",
    required=True,
    help="The version that is meant; by its version or release tag where no other one has it.",
)


@click.command("redo-diff")
@_sentinel_option
@click.option("--rollback", is_flag=True, help="Make it its strategy's only version again.")
@click.option(
    "--as", "version", metavar="VERSION", help="Deploy its graph anew as this version, v1.2.3-hotfix for one."
)
@log_option
@wait_option
@format_option
def redo_diff(
    sentinel_id: str, rollback: bool, version: str | None, log_address: str, wait_s: float, as_json: bool
) -> None:
    """Go back to a version, or deploy its graph anew with the code of today, and wait until its nodes run.

    At the end it tells which topics were made for that, if any.
    """
    from qmtl.foundation.contracts.dag import DagOutcome, RedoDiff, RollBack

    if rollback == (version is not None):
        raise UsageError(
            f"{'both' if rollback else 'neither'} --rollback and --as were given; redo-diff does one of them.",
            "Give --rollback to go back to the version, or --as VERSION to deploy it anew.",
        )
    with session.client(log_address, wait_s) as client:
        now_ms = session.now_ms()
        before = client.tail(ADMIN_LOG).end()
        sentinel_id = _id_of(client, sentinel_id)
        if version is None:
            wish = client.next_command_id("rollback", sentinel_id)
            outcome = client.dag_command(RollBack(wish, sentinel_id, now_ms))
            row = client.view("dag.sentinels").get(
                sentinel_id
            )  # what was decided on its submission may be forgotten
            decided = DagOutcome(row.submission_id, row.world_id, row.strategy_id, True, "", "", sentinel_id)
        else:
            wish = client.next_command_id("redo", sentinel_id, version)
            outcome = client.dag_command(RedoDiff(wish, sentinel_id, version, now_ms))
            decided = client.view("dag.diffs").get(wish)
        deployed = client.deployed(decided)
        topics = asked_for(client, before, wish)
    _tell(outcome, as_json, deployed, topics)


def asked_for(client: Client, since: dict[TopicPartition, int], wish: str) -> list[str]:
    """The topics that a command had made, in the order of their names, by the admin log from a place on."""
    from qmtl.foundation.contracts.dag import AdminAct, AdminEntry
    from qmtl.foundation.wire.keys import is_reserved
    from qmtl.foundation.wire.registry import codec

    found = []
    for record in client.tail(ADMIN_LOG).read(since):
        if record.value is not None and not is_reserved(record.key):
            entry: AdminEntry = codec.decode(record.value)
            if entry.act is AdminAct.REQUESTED and entry.cause == wish:
                found.append(entry.subject)
    return sorted(found)


@click.command()
@_sentinel_option
@click.option(
    "--percent", required=True, help="Its share of the traffic, 0 to 100, with two decimals at most."
)
@log_option
@wait_option
@format_option
def weight(sentinel_id: str, percent: str, log_address: str, wait_s: float, as_json: bool) -> None:
    """Give a version that is active or on its way a share of its strategy's traffic.

    The other version of the strategy gets the rest. With 0 the version is retired, with 100 the other one is.
    """
    from qmtl.foundation.contracts.dag import SetTrafficWeight

    share = basis_points(percent)
    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("weight", sentinel_id, share)
        _tell(client.dag_command(SetTrafficWeight(wish, sentinel_id, share, session.now_ms())), as_json)


def basis_points(percent: str, option: str = "--percent", least: int = 0) -> int:
    """Percent as people write them, in hundredths of a percent.

    Args:
        option: by which they are given.
        least: hundredths of a percent.

    Raises:
        UsageError: no number from the least one to 100 with two decimals at most.
    """
    try:
        points = parse_decimal(percent, option) * 100
    except InvalidValue:
        points = Decimal(-1)
    if not least <= points <= 10_000 or points != int(points):
        raise UsageError(
            f"{option} was the text {percent[:40]!a}; a number from {least / 100:g} to 100 with two decimals at most is required.",
            "Give 12.5 for an eighth of the traffic.",
        )
    return int(points)


def _id_of(client: Client, text: str) -> str:
    """The id of the version that a text means, if it means one; else the text, which is refused with the reason."""
    from qmtl.foundation.contracts.dag import SentinelStatus

    rows = client.view("dag.sentinels").rows()
    named = [one for one in rows if text in (one.version, one.release_tag)]
    named = [one for one in named if one.status is not SentinelStatus.FAILED] or named
    is_id = any(one.sentinel_id == text for one in rows)
    return str(named[0].sentinel_id) if len(named) == 1 and not is_id else text


@click.command()
@click.option("--world", "world_id", required=True)
@click.option("--strategy", "strategy_id", required=True)
@log_option
@wait_option
@format_option
def retire(world_id: str, strategy_id: str, log_address: str, wait_s: float, as_json: bool) -> None:
    """Take a strategy out of a world: nothing is computed for it any more; its versions stay to go back to."""
    from qmtl.foundation.contracts.dag import RetireStrategy

    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("retire", world_id, strategy_id)
        _tell(client.dag_command(RetireStrategy(wish, world_id, strategy_id, session.now_ms())), as_json)


@click.command()
@click.option(
    "--sentinel",
    metavar="ID|VERSION|TAG",
    default="",
    help="Only what versions that are retired, or failed, with this id, version or release tag have.",
)
@log_option
@wait_option
@format_option
def gc(sentinel: str, log_address: str, wait_s: float, as_json: bool) -> None:
    """Remove what nobody needs any more now, instead of at the next tick of the clock.

    A topic goes once its time as an orphan is over, by the clock of the log; what is held or still computed never goes. One to which a
    version can go back is archived first, soon after it became an orphan.
    """
    from qmtl.foundation.contracts.dag import CollectGarbage

    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("gc", sentinel)
        _tell(client.dag_command(CollectGarbage(wish, sentinel, session.now_ms())), as_json)


def _tell(
    outcome: DagCommandOutcome,
    as_json: bool,
    deployed: StrategyVersion | None = None,
    topics: Sequence[str] = (),
) -> None:
    if as_json:
        facts: dict[str, Any] = {"command_id": outcome.command_id, "detail": outcome.detail}
        if deployed is not None:
            facts |= {
                "world_id": deployed.world_id,
                "strategy_id": deployed.strategy_id,
                "sentinel_id": deployed.sentinel_id,
                "version": deployed.version,
                "new_topics": topics,
            }
        render.json_line(facts)
        return
    render.line(outcome.detail)
    if deployed is not None:
        render.line(
            f"strategy {deployed.strategy_id} in world {deployed.world_id} runs {deployed.sentinel_id}"
        )
        render.line(told_of(topics))


def told_of(topics: Sequence[str]) -> str:
    if not topics:
        return "no new topics"
    shown = ", ".join(topics[:NAMED]) + (f" and {len(topics) - NAMED} more" if len(topics) > NAMED else "")
    return f"{len(topics)} new topics: {shown}"
