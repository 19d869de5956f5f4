"""A ping is answered while somebody has the DAG Manager's task, and while nobody has, that is said."""

from __future__ import annotations

import json
import re

import pytest

from qmtl.engine.log.port import TopicPartition
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.foundation.common.errors import NoAnswer
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.cli.dagmanager.ping import _tell, ping_on
from qmtl.interfaces.liveness import Pong, ping, stands_still
from tests.contract.driving import Joined, join
from tests.interfaces.cli.deployed import Deployed
from tests.interfaces.cli.running import assert_one_screen, call
from tests.replay.logs import commit, tombstone

COMMAND = ("service", "dagmanager", "ping")


def test_a_ping_is_answered_by_who_has_the_task_and_by_nobody_else() -> None:
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)
    with pytest.raises(NoAnswer, match="nobody runs"):
        ping(log)
    other = join(log, "qmtl.topicadmin", "dag.tasks")
    with pytest.raises(NoAnswer, match="nobody runs"):
        ping(log)
    joined = join(log, "qmtl.dagmanager", "dag.submissions", "7")
    at_rest = ping(log)
    assert (at_rest.slot, at_rest.waiting, at_rest.bucket_ms) == ("7", 0, None)
    commit(log, [tombstone("dag.commands", "c")])
    commit(log, [("dag.commands", 0, b"k", b"v")])
    assert ping(log).waiting == 2  # the ends of transactions have offsets, and are nothing that waits
    joined.membership.close()
    other.membership.close()


@pytest.mark.parametrize(
    ("before", "now", "stands"),
    [
        (None, (3, 5), False),
        ((3, 5), (3, 5), True),
        ((3, 5), (9, 5), True),
        ((3, 5), (3, 6), False),
        ((0, 5), (3, 5), False),
        ((3, 5), (0, 5), False),
    ],
)
def test_it_hangs_if_something_waited_all_the_time_and_nothing_was_taken(
    before: tuple[int, int] | None, now: tuple[int, int], stands: bool
) -> None:
    def pong(waiting: int, position: int) -> Pong:
        return Pong("0", "h", waiting, None, {TopicPartition("dag.commands", 0): position})

    assert stands_still(None if before is None else pong(*before), pong(*now)) == stands


def test_what_an_embedded_log_cannot_know_is_said(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    where = ("--log", seen_deployed.address)
    assert_one_screen(call(capsys, *COMMAND, *where), "QMTL-603", 6, says=["embedded", "/healthz"])
    refused = call(capsys, *COMMAND, *where, "--every", "3")
    assert_one_screen(refused, "QMTL-801", 2, says=["--every", "--watch"])


def test_pings_go_on_whatever_they_find_until_it_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)

    def answers() -> list[str]:
        return [json.loads(line)["answer"] for line in told]

    def enough() -> bool:
        told.extend(capsys.readouterr().out.splitlines())
        if answers() == ["missing"]:
            joined.append(join(log, "qmtl.dagmanager", "dag.submissions"))
            commit(log, [("dag.commands", 0, b"k", b"v")])
        return len(told) >= 3

    told, joined = list[str](), list[Joined]()
    ping_on(log, 0.0, enough, as_json=True)
    assert answers() == ["missing", "pong", "hangs"]
    joined[0].membership.close()


def test_a_pong_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        _tell("hangs", Pong("7", "/10.0.0.1", 3, 60_000, {}), as_json)
    line, json_line = capsys.readouterr().out.splitlines()
    at = r"\d{4}-\d\d-\d\dT[\d:.]+Z"
    told = r"slot 7 on /10\.0\.0\.1, 3 records wait, closed 1970-01-01T00:01:00\.000Z"
    assert re.fullmatch(rf"{at} +hangs +{told}", line)
    assert re.fullmatch(
        r'\{"answer": "hangs", "at_ms": \d+, "bucket_ms": 60000, "host": "/10.0.0.1", "slot": "7", "waiting": 3\}',
        json_line,
    )
