"""How long rows stay that nobody needs is said and shown; and what was decided long ago, and is forgotten, stops nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.view import all_partitions
from qmtl.foundation.contracts.dag import CollectGarbage, DagSubmission, RetireStrategy
from qmtl.foundation.contracts.world import CreateWorld
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.interfaces.cli.dagmanager.server import say_retention
from qmtl.interfaces.client import Client
from qmtl.services.dagmanager.processor import DagManager
from tests.interfaces.cli.deployed import OLD, WORLD, Deployed, client_on, settle
from tests.interfaces.cli.running import Ran, assert_one_screen, call
from tests.replay.logs import SETTINGS, START_MS, commit, marker
from tests.services.graphs import crossing, strategy, text


def manage(capsys: pytest.CaptureFixture[str], place: Deployed, *args: str) -> Ran:
    return call(capsys, "service", "dagmanager", "retention", *args, "--log", place.address)


def tick(client: Client, days: float) -> None:
    commit(client.log, [marker("clock", START_MS + round(days * DAY_MS))], "clock")
    settle(client)


def test_it_is_said_once_and_shown_with_what_there_is(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    assert (
        manage(capsys, mine, "show").out.splitlines()[0]
        == "Rows that nobody needs stay for 30 days of the log's clock."
    )
    for told in ("what nobody needs is kept for 7 days", "what nobody needs is kept for 7 days already"):
        assert manage(capsys, mine, "set", "--days", "7").out == f"{told}\n"
    ran = manage(capsys, mine, "set", "--days", "1")
    assert_one_screen(ran, "QMTL-602", 6, says=["keep_days", "2 to 3650"])
    (shown,) = manage(capsys, mine, "show", "--json").lines()
    assert (shown["keep_days"], shown["forgotten_until_ms"]) == (7, None)
    tables: list[dict[str, Any]] = shown["tables"]
    assert [one["table"] for one in tables] == sorted(DagManager.tables)
    for one in tables:
        assert one["rows"] == len(mine.rows(one["table"]))
        assert one["offsets"] >= one["rows"]
    unneeded = {one["table"]: one["unneeded"] for one in tables if one["unneeded"] is not None}
    assert unneeded == {"dag.nodes": 0, "dag.artifacts": 0, "dag.readers": 0} | {
        name: len(mine.rows(name)) for name in ("dag.diffs", "dag.outcomes")
    }


def test_what_was_decided_and_is_forgotten_stops_nobody_who_says_it_again(tmp_path: Path) -> None:
    """By hand the same thing has the same id, and lies on the log for good."""
    data = text(strategy(crossing(), "s1"))
    with client_on(tmp_path, ["dagmanager", "worldservice"]) as client:

        def publish(days: float) -> str:
            name = client.next_submission_id(WORLD, "s1", data)
            at_ms = START_MS + round(days * DAY_MS)
            assert client.submit(DagSubmission(name, WORLD, data, at_ms, execution_domain="live")).accepted
            return name

        def collect(days: float) -> str:
            name = client.next_command_id("gc", "")
            client.dag_command(CollectGarbage(name, "", START_MS + round(days * DAY_MS)))
            return name

        client.command(CreateWorld("make", WORLD, SETTINGS, START_MS))
        tick(client, 0)
        published, collected = publish(0), collect(0)
        assert publish(0) == published
        client.dag_command(RetireStrategy("out", WORLD, "s1", START_MS))
        tick(client, 31)
        assert client.view("dag.diffs").rows() == client.view("dag.outcomes").rows() == []
        assert (publish(31), collect(31)) == (published, collected)
        sent = client.log.end_offsets(all_partitions(client.log, "dag.submissions"))
        assert client.view("dag.diffs").get(published).decided_ms == START_MS + 31 * DAY_MS
        assert publish(31) == published  # that it was published is remembered now
        assert client.log.end_offsets(all_partitions(client.log, "dag.submissions")) == sent


def test_a_rollback_needs_nothing_that_is_forgotten(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    with client_on(mine.directory) as client:
        tick(client, 31)
        assert client.view("dag.diffs").rows() == []
    old = mine.sentinel(OLD).sentinel_id
    ran = call(
        capsys, "service", "dagmanager", "redo-diff", "--sentinel", old, "--rollback", "--log", mine.address
    )
    assert (ran.code, ran.out.splitlines()[-2]) == (0, f"strategy s1 in world {WORLD} runs {old}")


def test_a_server_says_what_its_file_says_until_it_holds(tmp_path: Path) -> None:
    with client_on(tmp_path, ["dagmanager"]) as client:
        for days, count in ((30, 0), (7, 1), (7, 1), (30, 2)):
            say_retention(client.log, days)
            say_retention(client.log, days)  # it lies there to be heard
            settle(client)
            assert len(client.view("dag.outcomes").rows()) == count
        assert client.view("dag.pace").get("retention").keep_ms == 30 * DAY_MS
