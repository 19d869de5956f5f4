"""The context in which a log computes: said once it can be granted, told to diffs, and what crosses it holds promotions up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain, compute_key, domain_of
from qmtl.foundation.common.ids import fault_of
from qmtl.foundation.contracts.context import (
    ALL_WORLDS,
    THE_CONTEXT,
    ClearContextHits,
    LogContext,
    NodeContext,
    SaidContext,
    SetComputeContext,
)
from qmtl.foundation.contracts.dag import (
    AdminAct,
    DagCommandOutcome,
    DagOutcome,
    RedoDiff,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
)
from qmtl.foundation.contracts.diff import DiffChunk
from qmtl.foundation.contracts.release import ReportBacktest, StartRelease
from qmtl.services.dagmanager.catalogue import HOLDING
from qmtl.services.dagmanager.context import SHUT_OUT
from qmtl.services.dagmanager.release import BACKTESTS
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_diffing import a_desk, chunks, request
from tests.services.dagmanager.test_versions import publish
from tests.services.graphs import T0, crossing, strategy, submission, text

ROOT = Path(__file__).parents[3]
LIVE = SaidContext("w1", ExecutionDomain.LIVE, "", "", "", False)
BLANK: dict[str, Any] = {
    "world_id": "w1",
    "execution_domain": "",
    "as_of": "",
    "partition": "",
    "dataset_fingerprint": "",
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def said(desk: Desk, message: Any) -> DagCommandOutcome:
    desk.send(message)
    found: DagCommandOutcome = desk.table("dag.outcomes").get(message.command_id)
    return found


def set_to(desk: Desk, name: str = "c1", **parts: Any) -> DagCommandOutcome:
    asked = {"world_id": "w1", "execution_domain": "live", **parts}
    return said(desk, SetComputeContext(name, issued_at_ms=T0, **asked))


def row(desk: Desk) -> LogContext:
    found: LogContext = desk.table("dag.context").get("compute")
    return found


# ---- what is said -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"execution_domain": "production"}, "execution_domain was the text 'production'"),
        ({"execution_domain": ""}, "execution_domain was the text ''"),
        ({"execution_domain": "backtest"}, "(missing_as_of)"),
        ({"execution_domain": "paper", "as_of": "  "}, "(missing_as_of)"),
        ({"partition": "p" * 401}, "partition was a text of 401 characters"),
        ({"shared_worlds": True}, "world_id was the text 'w1' and shared_worlds was true"),
    ],
)
def test_a_context_that_can_be_granted_in_safe_mode_only_is_refused(
    desk: Desk, parts: dict[str, Any], told: str
) -> None:
    outcome = set_to(desk, **parts)
    assert (outcome.accepted, outcome.code) == (False, "QMTL-602")
    assert told in outcome.detail
    assert desk.rows("dag.context") == []


def test_a_context_is_kept_by_its_domain_and_said_twice_changes_nothing(desk: Desk) -> None:
    assert set_to(desk, execution_domain="paper", as_of="2026-11").accepted
    known = row(desk)
    assert known.context == SaidContext("w1", ExecutionDomain.DRYRUN, "2026-11", "", "", False)
    desk.tick(T0)
    assert "already" in set_to(desk, "c2", execution_domain="dryrun", as_of="2026-11").detail
    assert row(desk) == known


@pytest.mark.parametrize(
    ("asked", "safe_mode"),
    [
        ({"execution_domain": "dryrun", "as_of": "A"}, ""),
        ({"execution_domain": "dryrun", "as_of": "A", "world_id": "w2"}, "other_context"),
        ({"execution_domain": "dryrun", "as_of": "B"}, "other_context"),
        ({"execution_domain": "backtest", "as_of": "A"}, "other_context"),
        ({"execution_domain": "live"}, "other_context"),
        ({"execution_domain": "dryrun", "as_of": "A", "dataset_fingerprint": "f"}, "other_context"),
        ({"execution_domain": "dryrun", "as_of": "A", "partition": "p"}, "other_context"),
        ({"execution_domain": "dryrun"}, "missing_as_of"),
        ({"execution_domain": ""}, "decision_unavailable"),
    ],
)
def test_a_diff_in_another_context_is_told_that_nothing_is_to_be_reused(
    desk: Desk, asked: dict[str, str], safe_mode: str
) -> None:
    set_to(desk, execution_domain="dryrun", as_of="A")
    desk.send(request(strategy(crossing()), **asked))
    (found,) = chunks(desk)
    assert (found.accepted, found.safe_mode) == (True, safe_mode)
    assert bool(found.sentinel_id) is not bool(safe_mode)


# ---- a diff and a submission of the same message agree -----------------------------------------------------------------

MESSAGES: dict[str, dict[str, Any] | bytes] = {
    "first": strategy(crossing(3, 8)),
    "second": strategy(crossing(5, 13), version="v2"),
    "broken": strategy([{**node, "interval": -1} for node in crossing()]),
    "unread": b"no json",
}
CONTEXTS = st.fixed_dictionaries(
    {
        "world_id": st.sampled_from(["w1", "w1", "w2", "", " ", "w/1", "w" * 201]),
        "execution_domain": st.sampled_from(
            ["live", "dryrun", "paper", "backtest", "shadow", "", " ", "LIVE"]
        ),
        "as_of": st.sampled_from(["", " ", "A", "A", "B", "a" * 401]),
        "partition": st.sampled_from(["", "", "", "p"]),
        "dataset_fingerprint": st.sampled_from(["", "", "", "f"]),
    }
)
SHARED = {"world_id": "", "shared_worlds": True}
LOGS = st.none() | st.sampled_from(
    [
        said | shared
        for said in ({"as_of": "A", "execution_domain": "dryrun"}, dict[str, str]())
        for shared in (SHARED, dict[str, object]())
    ]
)


def answer(chunk: DiffChunk | DagOutcome) -> tuple[object, ...]:
    return chunk.accepted, chunk.code, chunk.detail if chunk.code else "", chunk.safe_mode, chunk.sentinel_id


@settings(max_examples=60, deadline=None)
@given(LOGS, st.lists(st.tuples(st.sampled_from(sorted(MESSAGES)), CONTEXTS), max_size=4))
@example(None, [("first", BLANK), ("first", BLANK | {"execution_domain": "live"}), ("first", BLANK)])
@example({}, [("first", BLANK)])
def test_what_a_diff_says_and_what_a_submission_of_it_does_agree(
    log: dict[str, Any] | None, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    """Whatever the message and its context are: the same is refused in the same words, the same is in safe mode and leaves the graph as it
    is, and what is deployed is of the context of the log, which the first of it has said in its own step."""
    with a_desk() as desk:
        if log is not None:
            assert set_to(desk, **log).accepted
        for number, (name, context) in enumerate(asked):
            desk.send(request(MESSAGES[name], f"r{number}", **context))
            (told,) = chunks(desk, f"r{number}")
            before, noted = desk.all_rows(), len(desk.emitted)
            sent = replace(submission(MESSAGES[name]), submission_id=f"s{number}", **context)
            desk.send(sent)
            found: DagOutcome = desk.table("dag.diffs").get(f"s{number}")
            assert answer(found) == answer(told)
            if found.accepted and not found.safe_mode:
                said = row(desk).context
                assert (said.world_id == ALL_WORLDS) is said.shared_worlds
                whose = context["world_id"] if said.shared_worlds else said.world_id
                assert replace(said, world_id=whose).read() == context_of(context)
                if not before["dag.context"]:
                    assert said.world_id == context["world_id"]
                    (_, response) = [one for _, one in desk.emitted[noted:] if one.act is AdminAct.DIFFED]
                    assert "from now on" in response.detail
                continue
            after = desk.all_rows()
            assert [one for one in after.pop("dag.diffs") if one not in before["dag.diffs"]] == [found]
            before.pop("dag.diffs")
            assert after == before
            notes = [(one.act, one.subject) for _, one in desk.emitted[noted:]]
            assert notes == [(AdminAct.DIFFED, f"s{number}")] * 2


OLD = SaidContext("w1", ExecutionDomain.LIVE, "", "", "")
"""As a row of old is read, in which no word was said of other worlds."""


@pytest.mark.parametrize("log", ["own", "shared", "old"])
@pytest.mark.parametrize("world_id", ["w1", "w2"])
def test_another_world_has_a_part_in_what_is_computed_only_where_that_was_said(
    desk: Desk, log: str, world_id: str
) -> None:
    if log == "shared":
        assert set_to(desk, world_id="", shared_worlds=True).accepted
        assert row(desk).context == SaidContext(ALL_WORLDS, ExecutionDomain.LIVE, "", "", "", True)
    elif log == "old":
        desk.table("dag.context").put(LogContext(THE_CONTEXT, OLD, T0))
        desk.again()
    publish(desk, 8)
    before = {name: desk.rows(name) for name in ("dag.nodes", "dag.queues", "dag.sentinels", "dag.tasks")}
    sent = replace(submission(MESSAGES["first"], world_id), submission_id="x", execution_domain="live")
    desk.send(request(MESSAGES["first"], world_id=world_id, execution_domain="live"), sent)
    found: DagOutcome = desk.table("dag.diffs").get("x")
    is_out = (log, world_id) == ("own", "w2")
    assert (found.accepted, found.safe_mode) == (True, "other_context" if is_out else "")
    assert chunks(desk)[0].safe_mode == found.safe_mode
    assert bool(found.reused_nodes) is not is_out
    if is_out:
        assert found.detail.endswith(
            f"what is computed on this log is world w1's own, not world w2's. {SHUT_OUT}"
        )
        assert before == {name: desk.rows(name) for name in before}


def test_keys_of_a_log_whose_worlds_share_are_those_of_no_world() -> None:
    node_id, parts = "blake3:" + "1" * 64, (ExecutionDomain.LIVE, "", "", "")
    keys = {
        whose: compute_key(node_id, SaidContext(whose, *parts).read()) for whose in ("w1", "w2", ALL_WORLDS)
    }
    assert len(set(keys.values())) == 3
    assert fault_of("world_id", ALL_WORLDS) is not None


@pytest.mark.parametrize("status", [SentinelStatus.PENDING, SentinelStatus.ACTIVE])
def test_no_context_is_a_worlds_own_while_something_of_another_one_is_deployed(
    desk: Desk, status: SentinelStatus
) -> None:
    """What is deployed would go on in it. What was retired does not, nor does it come back."""
    set_to(desk, world_id="", shared_worlds=True)
    for world_id in ("w1", "w2"):
        sent = submission(MESSAGES["first"], world_id)
        desk.send(replace(sent, submission_id=world_id, execution_domain="live"))
        desk.send(request(MESSAGES["first"], f"r-{world_id}", world_id=world_id, execution_domain="live"))
    if status is SentinelStatus.ACTIVE:
        desk.report_all()
    assert {one.status for one in desk.rows("dag.sentinels")} == {status}
    before = row(desk)
    refused = set_to(desk, "own")
    assert (refused.code, row(desk)) == ("QMTL-602", before)
    assert "of another world than w1 is deployed" in refused.detail
    assert said(desk, RetireStrategy("out", "w2", "s1", T0)).accepted
    assert set_to(desk, "own-again").accepted
    assert row(desk).context == LIVE
    gone = desk.table("dag.diffs").get("w2").sentinel_id
    for command in (
        RollBack("back", gone, T0),
        RedoDiff("redo", gone, "v9", T0),
        StartRelease("release", "w2", text(strategy(crossing(3, 21), version="v21")), T0),
    ):
        outcome = said(desk, command)
        assert (outcome.accepted, outcome.code) == (False, "QMTL-602"), command
        assert "is world w1's own, not world w2's" in outcome.detail
    held = {one.world_id for one in desk.rows("dag.sentinels") if one.status in HOLDING}
    assert held == {"w1"}


@pytest.mark.parametrize("old", [False, True])
def test_that_worlds_share_is_said_once_and_is_another_context_than_a_worlds_own(
    desk: Desk, old: bool
) -> None:
    if old:
        desk.table("dag.context").put(LogContext(THE_CONTEXT, OLD, T0))
        desk.again()
    else:
        set_to(desk, world_id="", shared_worlds=True)
    before = row(desk)
    assert "already" in set_to(desk, "c2", world_id="", shared_worlds=True).detail
    assert row(desk) == before
    assert "already" not in set_to(desk, "c3").detail
    assert row(desk).context == LIVE
    assert "from now on" in set_to(desk, "c4", world_id="", shared_worlds=True).detail
    assert row(desk).context == SaidContext(ALL_WORLDS, ExecutionDomain.LIVE, "", "", "", True)


def test_a_release_waits_while_its_log_is_another_worlds_own(desk: Desk) -> None:
    set_to(desk, world_id="", shared_worlds=True)
    desk.tick(T0)
    message = text(strategy(crossing(3, 21), version="v21"))
    assert said(desk, StartRelease("release", "w2", message, T0)).accepted
    assert set_to(desk, "own").accepted
    for number in range(BACKTESTS):
        run = f"run-{number}"
        report = ReportBacktest(
            run, "release", run, blake3_hex(message), True, T0, "", "d", number, T0, "0" * 64
        )
        assert said(desk, report).accepted
    (release,) = desk.rows("dag.releases")
    assert "waits: what is computed on this log is world w1's own" in release.detail
    assert desk.rows("dag.sentinels") == []


def test_who_may_use_what_is_decided_at_one_place() -> None:
    """Beside the module that has the rule, one function asks it."""
    callers = [
        (path.name, name.name)
        for path in sorted((ROOT / "qmtl").rglob("*.py"))
        if path.name != "compute_context.py"
        for name in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(name, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(name)
        if isinstance(node, ast.Attribute | ast.Name)
        and getattr(node, "attr", getattr(node, "id", "")) == "evaluate_safe_mode"
    ]
    assert callers == [("context.py", "granted")]


def context_of(parts: dict[str, Any]) -> ComputeContext:
    domain = domain_of(parts["execution_domain"])
    return ComputeContext(
        parts["world_id"], domain, parts["as_of"], parts["partition"], parts["dataset_fingerprint"]
    )


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ({}, "decision_unavailable"),
        ({"execution_domain": "dryrun"}, "missing_as_of"),
        ({"execution_domain": "live"}, "other_context"),
        ({"execution_domain": "dryrun", "as_of": "A", "world_id": ""}, "decision_unavailable"),
    ],
)
def test_what_lacks_of_a_context_is_not_filled_in_from_the_logs(
    desk: Desk, context: dict[str, Any], why: str
) -> None:
    set_to(desk, execution_domain="dryrun", as_of="A")
    desk.send(replace(submission(strategy(crossing())), submission_id="x", **(BLANK | context)))
    found: DagOutcome = desk.table("dag.diffs").get("x")
    assert (found.accepted, found.safe_mode, found.sentinel_id) == (True, why, "")
    assert desk.rows("dag.sentinels") == desk.rows("dag.nodes") == desk.rows("dag.queues") == []


def test_of_two_who_say_the_first_context_one_is_deployed_and_the_other_one_told(desk: Desk) -> None:
    """There is no step between the submission and its context in which the other one could be the first."""
    one = replace(submission(strategy(crossing())), submission_id="one", execution_domain="live")
    two = replace(one, submission_id="two", execution_domain="backtest", as_of="A")
    desk.send(one, two)
    assert [desk.table("dag.diffs").get(name).safe_mode for name in ("one", "two")] == ["", "other_context"]
    assert row(desk) == LogContext("compute", LIVE, T0)
    desk.again()
    desk.send(replace(two, submission_id="three"))
    assert desk.table("dag.diffs").get("three").safe_mode == "other_context"


@pytest.mark.parametrize("domain", ["dryrun", ""])
def test_what_is_refused_or_in_safe_mode_says_no_context(desk: Desk, domain: str) -> None:
    for number, message in enumerate(MESSAGES.values()):
        desk.send(replace(submission(message), submission_id=f"s{number}", execution_domain=domain))
    assert desk.rows("dag.context") == []


def test_what_the_dag_manager_deploys_itself_is_of_the_logs_context(desk: Desk) -> None:
    first: dict[str, Any] = {
        "execution_domain": "paper",
        "as_of": "A",
        "partition": "p",
        "dataset_fingerprint": "f",
    }
    desk.send(replace(submission(strategy(crossing())), submission_id="first", **first))
    desk.report_all()
    known = desk.table("dag.diffs").get("first").sentinel_id
    assert said(desk, RedoDiff("redo", known, "v1-hotfix", T0)).accepted
    assert desk.table("dag.diffs").get("redo").safe_mode == ""


def test_nothing_is_deployed_by_the_dag_manager_itself_where_nobody_has_said_a_context(desk: Desk) -> None:
    """As on a log of old, on which things were deployed in none."""
    known = publish(desk, 8).sentinel_id
    desk.table("dag.context").delete("compute")
    desk.again()
    before = desk.all_rows()
    message = text(strategy(crossing(3, 21), version="v21"))
    for command in (RedoDiff("redo", known, "v9", T0), StartRelease("release", "w1", message, T0)):
        outcome = said(desk, command)
        assert (outcome.accepted, outcome.code) == (False, "QMTL-602")
        assert "no context was said" in outcome.detail
        assert "context set" in outcome.detail
    after = desk.all_rows()
    assert after.pop("dag.outcomes") != before.pop("dag.outcomes")
    assert after == before


def test_a_submission_in_no_domain_that_there_is_is_refused_with_its_other_faults(desk: Desk) -> None:
    broken = strategy([{**node, "interval": -1} for node in crossing()])
    desk.send(replace(submission(broken), submission_id="x", execution_domain="production"))
    found: DagOutcome = desk.table("dag.diffs").get("x")
    assert (found.accepted, found.safe_mode) == (False, "")
    assert "execution_domain" in found.detail
    assert "interval" in found.detail
    desk.send(replace(submission(strategy(crossing())), submission_id="y", execution_domain="production"))
    assert not desk.table("dag.diffs").get("y").accepted
    assert desk.rows("dag.sentinels") == []


# ---- what crosses it ----------------------------------------------------------------------------------------------------


def hits(shard: int, count: int) -> NodeContext:
    return NodeContext(shard, LIVE, count, ("blake3:" + "1" * 64,))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5) | st.just(-1)), max_size=20))
def test_hits_are_the_most_that_each_shard_has_told_and_held_until_they_are_cleared(
    heard: list[tuple[int, int]],
) -> None:
    with a_desk() as desk:
        set_to(desk)
        most, cleared = dict.fromkeys(range(4), 0), 0
        for number, (shard, count) in enumerate(heard):
            if count < 0:
                outcome = said(desk, ClearContextHits(f"k{number}", "looked at", T0))
                assert outcome.accepted is (sum(most.values()) > cleared)
                cleared = sum(most.values())
            else:
                desk.send(hits(shard, count))
                most[shard] = max(most[shard], count)
            assert (sum(row(desk).hits), row(desk).uncleared) == (
                sum(most.values()),
                sum(most.values()) - cleared,
            )
            desk.again()
        crossed = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.CROSSED]
        assert sum(int(one.detail.split()[3]) for one in crossed) == sum(most.values())


def test_no_version_gets_more_traffic_until_somebody_has_looked(desk: Desk) -> None:
    set_to(desk)
    stable, canary = publish(desk, 8).sentinel_id, publish(desk, 21, weight=1_000).sentinel_id
    desk.send(hits(2, 3))
    for name, sentinel_id, weight, code in [
        ("up", canary, 5_000, "QMTL-604"),
        ("all", canary, 10_000, "QMTL-604"),
        ("the-other-down", stable, 8_500, "QMTL-604"),
        ("same", canary, 1_000, ""),
        ("down", canary, 500, ""),
        ("the-other-up", stable, 9_800, ""),
    ]:
        outcome = said(desk, SetTrafficWeight(name, sentinel_id, weight, T0))
        assert (outcome.code, outcome.accepted) == (code, not code), name
    assert said(desk, ClearContextHits("no", " ", T0)).code == "QMTL-602"
    cleared = said(desk, ClearContextHits("yes", "the bars were those of last year", T0))
    assert cleared.accepted
    assert "3 cross-context hits" in cleared.detail
    assert said(desk, SetTrafficWeight("up-again", canary, 10_000, T0)).accepted


def test_hits_of_a_log_without_a_context_are_nobodys(desk: Desk) -> None:
    desk.send(hits(0, 3))
    assert desk.rows("dag.context") == []
    assert said(desk, ClearContextHits("c", "why", T0)).code == "QMTL-602"


def test_another_context_keeps_what_was_counted(desk: Desk) -> None:
    set_to(desk)
    desk.send(hits(1, 2))
    assert set_to(desk, "c2", execution_domain="shadow").accepted
    assert row(desk) == replace(
        row(desk), context=replace(LIVE, execution_domain=ExecutionDomain.SHADOW), hits=(0, 2), cleared=0
    )
