"""What an operator commands of the DAG Manager is decided once, answered, and done; and what is refused ends with its code."""

from __future__ import annotations

import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.foundation.common.errors import NoAnswer
from qmtl.foundation.contracts.dag import (
    AdminAct,
    AdminEntry,
    CollectGarbage,
    SentinelStatus,
    StrategyStatus,
)
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.cli.dagmanager.commands import asked_for, basis_points, told_of
from qmtl.interfaces.client import Client
from tests.interfaces.cli.deployed import (
    CANARY,
    OLD,
    OTHER,
    STABLE,
    WORLD,
    Deployed,
    client_on,
    feed_bars,
    settle,
)
from tests.interfaces.cli.running import Ran, assert_one_screen, call
from tests.replay.logs import Row, commit, row

ROOT = Path(__file__).parents[3]


def manage(capsys: pytest.CaptureFixture[str], place: Deployed, *args: str) -> Ran:
    return call(capsys, "service", "dagmanager", *args, "--log", place.address)


def shares(place: Deployed) -> dict[str, int]:
    """The share of every version that has traffic."""
    rows = place.rows("dag.sentinels")
    return {one.version: one.traffic_weight for one in rows if one.status is SentinelStatus.ACTIVE}


# ---- each does what it says -----------------------------------------------------------------------------------------


def test_a_weight_is_given_exactly_and_the_other_version_gets_the_rest(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    assert shares(mine) == {STABLE: 9_000, CANARY: 1_000, OTHER: 10_000}
    canary = mine.sentinel(CANARY).sentinel_id
    ran = manage(capsys, mine, "weight", "--sentinel", canary, "--percent", "12.34")
    assert (ran.code, ran.out) == (0, f"version {canary} has 12.34 %\n")
    assert shares(mine) == {STABLE: 8_766, CANARY: 1_234, OTHER: 10_000}
    assert manage(capsys, mine, "weight", "--sentinel", canary, "--percent", "0").code == 0
    assert shares(mine) == {STABLE: 10_000, OTHER: 10_000}


def test_a_rollback_makes_an_old_version_the_only_one_and_waits_until_it_runs(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    old = mine.sentinel(OLD).sentinel_id
    ran = manage(capsys, mine, "redo-diff", "--sentinel", old, "--rollback", "--json")
    (told,) = ran.lines()
    assert (ran.code, told["sentinel_id"], told["version"], told["new_topics"]) == (0, old, OLD, [])
    assert shares(mine) == {OLD: 10_000, OTHER: 10_000}
    deployed = {one.strategy.strategy_id: one.strategy for one in mine.rows("node.deployments")}
    assert deployed["s1"].sentinel_id == old


def test_a_version_is_deployed_anew_under_another_name(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    old = mine.sentinel(OLD)
    ran = manage(capsys, mine, "redo-diff", "--sentinel", old.sentinel_id, "--as", "v1-hotfix")
    assert ran.code == 0, ran
    assert f"strategy s1 in world {WORLD} runs {mine.sentinel('v1-hotfix').sentinel_id}" in ran.out
    assert ran.out.endswith("\nno new topics\n")
    assert shares(mine) == {"v1-hotfix": 10_000, OTHER: 10_000}


def test_the_topics_that_a_command_had_made_are_those_of_the_admin_log_that_say_so() -> None:
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)
    client = Client(log, [])

    def note(act: AdminAct, topic: str, cause: str) -> Row:
        return row("dag.admin.log", AdminEntry(act, topic, "node", cause, 1))

    commit(log, [note(AdminAct.REQUESTED, "before", "mine")])
    since = client.tail("dag.admin.log").end()
    entries = [("b", "mine"), ("c", "other"), ("a", "mine")]
    commit(log, [note(AdminAct.REQUESTED, *one) for one in entries])
    commit(log, [note(AdminAct.CREATED, "b", "mine"), note(AdminAct.COMMANDED, "mine", "mine")])
    assert asked_for(client, since, "mine") == ["a", "b"]
    assert asked_for(client, since, "mine") == []


@pytest.mark.parametrize(
    ("topics", "told"),
    [
        ([], "no new topics"),
        (["a", "b"], "2 new topics: a, b"),
        (
            [f"t{at:02}" for at in range(12)],
            "12 new topics: t00, t01, t02, t03, t04, t05, t06, t07, t08, t09 and 2 more",
        ),
    ],
)
def test_it_is_told_which_topics_were_made_or_that_none_were(topics: list[str], told: str) -> None:
    assert told_of(topics) == told


def test_a_strategy_is_retired_once(capsys: pytest.CaptureFixture[str], mine: Deployed) -> None:
    where = ("retire", "--world", WORLD, "--strategy", "s2")
    assert manage(capsys, mine, *where).code == 0
    assert shares(mine) == {STABLE: 9_000, CANARY: 1_000}
    (row,) = [one for one in mine.rows("dag.strategies") if one.strategy_id == "s2"]
    assert (row.status, row.nodes) == (StrategyStatus.RETIRED, ())
    assert_one_screen(manage(capsys, mine, *where), "QMTL-602", 6, says=["not deployed"])


def test_garbage_is_collected_as_often_as_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    before = len(mine.rows("dag.queues"))
    asked = [manage(capsys, mine, "gc", "--json").lines()[0] for _ in range(3)]
    assert all(one["detail"].startswith("0 queues are being removed") for one in asked)
    sent = [one.command_id for one in mine.messages("dag.commands")]
    assert sent == [one["command_id"] for one in asked]
    assert len(set(sent)) == 3
    assert len(mine.rows("dag.queues")) == before  # no orphan's time is over
    assert manage(capsys, mine, "gc", "--sentinel", OLD).code == 0
    assert mine.messages("dag.commands")[-1].sentinel == OLD


# ---- said again ------------------------------------------------------------------------------------------------------


def test_a_command_that_is_not_answered_yet_is_the_same_when_it_is_said_again(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics(CATALOGUE)
    alone = Client(log, [], timeout_s=0.1)

    def ask(client: Client) -> str:
        wish = client.next_command_id("gc", "")
        client.dag_command(CollectGarbage(wish, "", 1))
        return wish

    for _ in range(2):
        with pytest.raises(NoAnswer):
            ask(alone)
    log.close()
    with client_on(tmp_path) as client:
        ids = [ask(client) for _ in range(2)]
    sent = [one.command_id for one in Deployed(tmp_path).messages("dag.commands")]
    assert sent == ids  # the two that had no answer are one, and it is answered first


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("weight", "--percent", "50", "--sentinel"),
        ("redo-diff", "--rollback", "--sentinel"),
        ("redo-diff", "--as", "v2", "--sentinel"),
        ("gc", "--sentinel"),
    ],
)
def test_a_version_that_is_not_known_is_refused_with_the_code_of_a_refusal(
    capsys: pytest.CaptureFixture[str], mine: Deployed, command: tuple[str, ...]
) -> None:
    before = shares(mine)
    ran = manage(capsys, mine, *command, "no-such")
    assert_one_screen(ran, "QMTL-602", 6, says=["'no-such'", "sentinels` shows what there is"])
    assert ran.err.count("QMTL-602") == 1
    assert (ran.out, shares(mine)) == ("", before)


def test_the_only_version_can_not_have_a_part_alone(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    other = mine.sentinel(OTHER).sentinel_id
    ran = manage(capsys, mine, "weight", "--sentinel", other, "--percent", "50")
    assert_one_screen(ran, "QMTL-602", 6, says=["the only one of its strategy"])


@pytest.mark.parametrize("more", [(), ("--rollback", "--as", "v2")])
def test_redo_diff_does_one_thing(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, more: tuple[str, ...]
) -> None:
    ran = manage(capsys, seen_deployed, "redo-diff", "--sentinel", "any", *more)
    assert_one_screen(ran, "QMTL-801", 2, says=["--rollback", "--as"])


@pytest.mark.parametrize("text", ["-1", "100.01", "12.345", "ten", "", "nan", "1e9", "9" * 99])
def test_a_share_that_is_no_percentage_of_two_decimals_is_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, text: str
) -> None:
    ran = manage(capsys, seen_deployed, "weight", "--sentinel", "any", "--percent", text)
    assert_one_screen(ran, "QMTL-801", 2, says=["--percent", "0 to 100"])


@pytest.mark.parametrize(
    ("text", "points"), [("0", 0), ("100", 10_000), ("0.01", 1), ("12.5", 1250), ("33.30", 3330)]
)
def test_basis_points_are_exact(text: str, points: int) -> None:
    assert basis_points(text) == points


# ---- the other name --------------------------------------------------------------------------------------------------


def test_the_program_dagmanager_is_the_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seen_deployed: Deployed
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["dagmanager"].partition(":")
    program = getattr(import_module(module), name)
    monkeypatch.setattr(sys, "argv", ["dagmanager", "sentinels", "--json", "--log", seen_deployed.address])
    capsys.readouterr()
    assert program() == 0
    assert capsys.readouterr().out == manage(capsys, seen_deployed, "sentinels", "--json").out != ""


def test_a_context_is_said_shown_and_what_crossed_it_holds_a_weight_until_it_is_cleared(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    (first,) = manage(capsys, mine, "context", "show", "--json").lines()
    assert (first["context"]["world_id"], first["context"]["execution_domain"]) == (WORLD, "live")
    with client_on(mine.directory) as client:
        feed_bars(client, 3)
    kept = {one.node_id for one in mine.rows("node.windows")}
    assert kept
    said = ("context", "set", "--world", WORLD, "--domain")
    ran = manage(capsys, mine, *said, "backtest")
    assert_one_screen(ran, "QMTL-602", 6, says=["missing_as_of"])
    ran = manage(capsys, mine, *said, "paper", "--as-of", "A", "--partition", "p", "--fingerprint", "f")
    here = f"{WORLD}/dryrun, as_of A, partition p, dataset_fingerprint f"
    assert (ran.code, ran.out) == (0, f"all is computed in {here} from now on\n")
    with client_on(mine.directory) as client:
        settle(client)
    (shown,) = manage(capsys, mine, "context", "show", "--json").lines()
    assert sum(shown["hits"]) == len(kept)
    canary = mine.sentinel(CANARY).sentinel_id
    ran = manage(capsys, mine, "weight", "--sentinel", canary, "--percent", "50")
    assert_one_screen(ran, "QMTL-604", 6, says=["context clear"])
    assert shares(mine)[CANARY] == 1_000
    gate = ("world", "activation", "set", WORLD, "--strategy", "s1", "--side", "short", "--active")
    for _ in range(2):
        ran = call(capsys, *gate, "true", "--log", mine.address)
        assert_one_screen(ran, "QMTL-604", 6, says=["context clear"])
    cleared = manage(capsys, mine, "context", "clear", "--reason", "meant", "--json").lines()
    assert cleared[0]["detail"] == f"{len(kept)} cross-context hits were cleared: meant"
    assert manage(capsys, mine, "weight", "--sentinel", canary, "--percent", "50").code == 0
    assert call(capsys, *gate, "true", "--log", mine.address).code == 0
    table = manage(capsys, mine, "context", "show").out.splitlines()[2].split()
    assert table[:5] == [WORLD, "no", "dryrun", "A", "p"]
    assert table[-2:] == [str(len(kept)), "0"]
    parts = ("--domain", "paper", "--as-of", "A", "--partition", "p", "--fingerprint", "f")
    ran = manage(capsys, mine, "context", "set", "--shared-worlds", *parts)
    here = here.replace(WORLD, "all worlds")
    assert (ran.code, ran.out) == (0, f"all is computed in {here} from now on\n")
    (shown,) = manage(capsys, mine, "context", "show", "--json").lines()
    assert (shown["context"]["world_id"], shown["context"]["shared_worlds"]) == ("all worlds", True)


@pytest.mark.parametrize("whose", [(), ("--world", WORLD, "--shared-worlds")])
def test_a_context_is_of_one_world_or_of_all(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, whose: tuple[str, ...]
) -> None:
    ran = manage(capsys, seen_deployed, "context", "set", *whose, "--domain", "live")
    assert_one_screen(ran, "QMTL-801", 2, says=["--world", "--shared-worlds"])
