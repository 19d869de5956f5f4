"""The queues that carry data are shown as a real DAG Manager tells of them, once or as they come and go."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.contracts.dag import DagSubmission, QueueUpdated, RetireStrategy
from qmtl.interfaces.cli.dagmanager.ready import tell
from qmtl.interfaces.client import Client
from qmtl.interfaces.queue_watch import (
    Cause,
    Choice,
    EventUnread,
    QueueWatch,
    SetChanged,
    SetKey,
    read_ready_sets,
)
from tests.interfaces.cli.deployed import Deployed, client_on, settle
from tests.interfaces.cli.running import assert_one_screen, call, start
from tests.interfaces.cli.test_topic import Following
from tests.replay.logs import START_MS
from tests.services.graphs import Node, crossing, strategy, text

COMMAND = ("service", "dagmanager", "queues")
SMA = Choice(frozenset({"sma", "crypto"}), 60)
SAID = ("--tag", "sma", "--tag", "crypto", "--interval", "1m")


def publish(client: Client, nodes: Sequence[Node], version: str) -> None:
    data = text(strategy(nodes, "s1", version=version))
    sent = DagSubmission(version, "w1", data, START_MS, execution_domain="live")
    client.publish_once("dag.submissions", sent, lambda other: other.submission_id == version)
    settle(client)


def averages(client: Client, *periods: int) -> list[str]:
    """The topics of the averages over so many bars, sorted."""
    wanted = {
        one.node_id
        for one in client.view("dag.nodes").rows()
        if one.node_type == "sma" and one.period in periods
    }
    return sorted(one.topic for one in client.view("dag.queues").rows() if one.node_id in wanted)


def test_queues_that_become_ready_and_go_are_told_until_a_signal(tmp_path: Path) -> None:
    with client_on(tmp_path, ("dagmanager", "topicadmin")) as client:
        watch = QueueWatch(client.log, SMA)
        publish(client, crossing(3, 8), "v1")
        where = ("--log", f"embedded:{tmp_path / 'log'}")
        following = Following(start(tmp_path, *COMMAND, *SAID, "--watch", "--json", *where))
        heard, printed = watch.poll(0), following.take(1)
        publish(client, crossing(5, 8), "v2")
        heard, printed = [*heard, *watch.poll(0)], [*printed, *following.take(1)]
        (present,) = watch.present()
        assert read_ready_sets(client.log, SMA) == [present]
        client.dag_command(RetireStrategy("retire", "w1", "s1", START_MS))
        heard, printed = [*heard, *watch.poll(0)], [*printed, *following.take(1)]
        code, err, left = following.end(signal.SIGTERM)
        watch.close()
        changes = [
            (averages(client, 3, 8), []),
            (averages(client, 5), averages(client, 3)),
            ([], averages(client, 5, 8)),
        ]
        (row,) = [one for one in client.view("dag.tags").rows() if "sma" in one.tags]
        assert (read_ready_sets(client.log, SMA)[0].changes, watch.present()) == (row.changes, [])
    assert (code, err, left) == (0, "", 0)
    assert [(one["added"], one["removed"]) for one in printed] == changes
    assert [one["cause"] for one in printed] == ["seeded", "event", "event"]
    told = [one for one in heard if isinstance(one, SetChanged)]
    assert [([*one.added], [*one.removed]) for one in told] == changes
    assert [one.cause for one in told] == [Cause.EVENT] * 3
    assert [one.etag for one in told] == [one["etag"] for one in printed]


def newest(place: Deployed) -> dict[tuple[tuple[str, ...], int], QueueUpdated]:
    """What was told last, per key."""
    events = [one for one in place.messages("queue") if isinstance(one, QueueUpdated)]
    return {(one.tags, one.interval): one for one in events}


def test_the_sets_that_are_shown_are_those_that_were_told_last(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    where = ("--log", seen_deployed.address)
    told = [one for key, one in sorted(newest(seen_deployed).items()) if one.queues]
    assert {one.tags for one in told} == {("crypto", "price"), ("crypto", "sma")}

    def shown(*options: str) -> list[Any]:
        return call(capsys, *COMMAND, *options, *where, "--json").lines()

    assert shown("--tag", "crypto") == [
        {"tags": [*one.tags], "interval": one.interval, "queues": [*one.queues], "etag": one.etag}
        for one in told
    ]
    assert [one["tags"] for one in shown(*SAID)] == [["crypto", "sma"]]
    assert shown("--tag", "crypto", "--interval", "1h") == shown("--tag", "indicator") == []
    ran = call(capsys, *COMMAND, "--tag", "price", *where)
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.out.splitlines()[2:] if line.strip()] == [
        [*one.tags, str(one.interval), *one.queues, one.etag] for one in told if "price" in one.tags
    ]


def test_a_change_is_a_line_and_what_could_not_be_used_a_remark(capsys: pytest.CaptureFixture[str]) -> None:
    change = SetChanged(SetKey(("a", "b"), 60), ("q1", "q2"), ("q0",), "q:a.b:60:3", Cause.RECONCILED)
    for as_json in (False, True):
        tell(change, as_json)
        tell(EventUnread(7, "QMTL-101", "the etag was\x07 'x'."), as_json)
    out, err = capsys.readouterr()
    line, json_line = out.splitlines()
    assert line.split() == ["reconciled", "60", "a", "b", "+q1", "+q2", "-q0", "q:a.b:60:3"]
    assert json_line == (
        '{"added": ["q1", "q2"], "cause": "reconciled", "etag": "q:a.b:60:3", "interval": 60, "removed": ["q0"], "tags": ["a", "b"]}'
    )
    assert err.splitlines() == ["queue offset 7: not used: [QMTL-101] the etag was\\x07 'x'."] * 2


@pytest.mark.parametrize(
    "options, says",
    [
        ([], ["--tag"]),
        (["--tag", "a", "--interval", "1.5h"], ["--interval", "15m"]),
        (["--tag", "a", "--reconcile", "60"], ["--reconcile", "without --watch"]),
        (["--tag", "a", "--watch", "--reconcile", "0.5"], ["--reconcile", "0.5"]),
        (["--tag", "a", "--watch", "--reconcile", "nan"], ["--reconcile"]),
        (["--tag", "a", "--watch", "--log", "elsewhere"], ["--log", "elsewhere"]),
    ],
)
def test_a_command_line_that_means_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, options: list[str], says: list[str]
) -> None:
    ran = call(capsys, *COMMAND, "--log", seen_deployed.address, *options)
    assert_one_screen(ran, "QMTL-801", 2, says=says)
