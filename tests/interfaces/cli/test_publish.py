"""What is published gets the share that was asked for, and is the newest word however often it was said before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission
from qmtl.interfaces.client import submission_id
from tests.interfaces.cli.deployed import OTHER, SUBMISSIONS, WORLD, Deployed, client_on
from tests.interfaces.cli.running import assert_one_screen, call
from tests.interfaces.cli.test_dagmanager_commands import shares
from tests.services.graphs import crossing, strategy, text

NEWER = strategy(crossing(5, 21), "s2", version="v10")
(OLDER,) = [message for message, _ in SUBMISSIONS if message["strategy_id"] == "s2"]


def file(mine: Deployed, message: dict[str, Any]) -> str:
    path = mine.directory / f"{message['meta']['version']}.json"
    path.write_bytes(text(message))
    return str(path)


def of_s2(mine: Deployed) -> dict[str, int]:
    return {label: share for label, share in shares(mine).items() if label in (OTHER, "v10")}


def test_a_canary_is_published_and_stepped_and_each_word_is_a_new_one(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    publish = ("dag", "publish", "--world", WORLD, "--log", mine.address)
    newer, older = file(mine, NEWER), file(mine, OLDER)
    ran = call(capsys, *publish, newer, "--weight", "12.5", "--json")
    (told,) = ran.lines()
    assert (ran.code, told["traffic_weight"]) == (0, 1250)
    assert told["sentinel_id"] == mine.sentinel("v10").sentinel_id
    assert sorted(one["name"] for one in told["nodes"]) == sorted(one["name"] for one in NEWER["nodes"])
    assert of_s2(mine) == {OTHER: 8750, "v10": 1250}
    ran = call(capsys, *publish, newer, "--weight", "20")
    assert "it is a canary with 20 % of the traffic" in ran.out
    assert of_s2(mine) == {OTHER: 8000, "v10": 2000}
    for chosen, label in ((newer, "v10"), (older, OTHER), (newer, "v10"), (older, OTHER)):
        assert call(capsys, *publish, chosen).code == 0
        assert of_s2(mine) == {label: FULL_WEIGHT}
    sent = mine.messages("dag.submissions")
    assert call(capsys, *publish, older).code == 0
    assert mine.messages("dag.submissions") == sent  # it was said last


@pytest.mark.parametrize("percent", ["0", "0.001", "100.01", "-1", "all", ""])
def test_a_share_that_is_none_is_refused_before_anything_is_published(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, percent: str
) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "dag", "publish", "no.json", "--world", WORLD, "--log", log, "--weight", percent)
    assert_one_screen(ran, "QMTL-801", 2, says=["--weight was", "0.01 to 100"])
    assert not (tmp_path / "log").exists()


def test_what_waits_is_not_the_last_word_once_an_older_version_is_published_again(tmp_path: Path) -> None:
    """No topic is made here, so every version waits."""
    old, new = text(OLDER), text(NEWER)
    with client_on(tmp_path, ["dagmanager"]) as client:

        def say(data: bytes, share: int = FULL_WEIGHT) -> str:
            name = client.next_submission_id(WORLD, "s2", data, share)
            sent = DagSubmission(name, WORLD, data, 1, share, execution_domain="live")
            client.publish_once("dag.submissions", sent, lambda other: other.submission_id == name)
            client.wait("it", lambda: client.view("dag.diffs").get(name))
            return name

        ids = [say(old), say(old), say(new, 1000), say(new, 1000), say(new), say(old), say(old)]
    first, second = submission_id(WORLD, old), submission_id(WORLD, new, 1000)
    assert ids[:5] == [first, first, second, second, submission_id(WORLD, new)]
    assert ids[5] == ids[6] == submission_id(WORLD, old, turn=1)
