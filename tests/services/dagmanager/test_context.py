"""The context in which a log computes: said once it can be granted, told to diffs, and what crosses it holds promotions up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.context import (
    ClearContextHits,
    LogContext,
    NodeContext,
    SaidContext,
    SetComputeContext,
)
from qmtl.foundation.contracts.dag import AdminAct, DagCommandOutcome, DagOutcome, SetTrafficWeight
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_diffing import a_desk, chunks, request
from tests.services.dagmanager.test_versions import publish
from tests.services.graphs import T0, crossing, strategy, submission

LIVE = SaidContext("w", ExecutionDomain.LIVE, "", "", "")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def said(desk: Desk, message: Any) -> DagCommandOutcome:
    desk.send(message)
    found: DagCommandOutcome = desk.table("dag.outcomes").get(message.command_id)
    return found


def set_to(desk: Desk, name: str = "c1", **parts: str) -> DagCommandOutcome:
    asked = {"world_id": "w", "execution_domain": "live", **parts}
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
        ({"world_id": " "}, "world_id was empty"),
        ({"execution_domain": "backtest"}, "(missing_as_of)"),
        ({"execution_domain": "paper", "as_of": "  "}, "(missing_as_of)"),
        ({"partition": "p" * 401}, "partition was a text of 401 characters"),
    ],
)
def test_a_context_that_can_be_granted_in_safe_mode_only_is_refused(
    desk: Desk, parts: dict[str, str], told: str
) -> None:
    outcome = set_to(desk, **parts)
    assert (outcome.accepted, outcome.code) == (False, "QMTL-602")
    assert told in outcome.detail
    assert desk.rows("dag.context") == []


def test_a_context_is_kept_by_its_domain_and_said_twice_changes_nothing(desk: Desk) -> None:
    assert set_to(desk, execution_domain="paper", as_of="2026-11").accepted
    known = row(desk)
    assert known.context == SaidContext("w", ExecutionDomain.DRYRUN, "2026-11", "", "")
    desk.tick(T0)
    assert "already" in set_to(desk, "c2", execution_domain="dryrun", as_of="2026-11").detail
    assert row(desk) == known


@pytest.mark.parametrize(
    ("asked", "safe_mode"),
    [
        ({"execution_domain": "dryrun", "as_of": "A"}, ""),
        ({"execution_domain": "dryrun", "as_of": "A", "world_id": "another"}, ""),
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


# ---- what is published in a context of its own --------------------------------------------------------------------------

PUBLISHED: list[dict[str, Any]] = [
    {"execution_domain": "dryrun", "as_of": "A"},
    {"execution_domain": "paper", "as_of": "A"},
    {"execution_domain": "dryrun", "as_of": "B"},
    {"execution_domain": "dryrun", "as_of": "A", "partition": "p"},
    {"execution_domain": "dryrun", "as_of": "A", "dataset_fingerprint": "f"},
    {"execution_domain": "dryrun"},
    {"execution_domain": "backtest", "as_of": " "},
    {"execution_domain": "live"},
    {"as_of": "A"},
    {"partition": "p"},
]


@pytest.mark.parametrize("here", ["", "A"])
def test_a_submission_in_safe_mode_changes_nothing_and_is_in_it_where_a_diff_is(
    desk: Desk, here: str
) -> None:
    if here:
        set_to(desk, execution_domain="dryrun", as_of=here)
    known = publish(desk, 8)
    modes = set()
    for number, context in enumerate(PUBLISHED):
        for fast in (3, 5):  # the message of the version that is there, and another one
            message, name = strategy(crossing(fast, 8)), f"{fast} in {number}"
            desk.send(request(message, name, **{"execution_domain": "", **context}))
            (asked,) = chunks(desk, name)
            before, told = desk.all_rows(), len(desk.emitted)
            desk.send(replace(submission(message), submission_id=name, **context))
            found: DagOutcome = desk.table("dag.diffs").get(name)
            assert (found.accepted, found.safe_mode) == (True, asked.safe_mode)
            modes.add(found.safe_mode)
            if not found.safe_mode:
                assert found.sentinel_id == asked.sentinel_id
                continue
            assert found == DagOutcome(
                name,
                "w1",
                "s1",
                True,
                "",
                found.detail,
                safe_mode=asked.safe_mode,
                decided_ms=found.decided_ms,
            )
            after = desk.all_rows()
            assert [one for one in after.pop("dag.diffs") if one not in before["dag.diffs"]] == [found]
            before.pop("dag.diffs")
            assert after == before
            notes = [(one.act, one.subject, one.detail) for _, one in desk.emitted[told:]]
            assert notes == [
                (AdminAct.DIFFED, name, "request"),
                (AdminAct.DIFFED, name, f"response: {found.detail}"),
            ]
    assert modes == {"", "missing_as_of", "decision_unavailable", *(["other_context"] if here else [])}
    assert known.sentinel_id in {one.sentinel_id for one in desk.rows("dag.sentinels")}


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
        ("the other down", stable, 8_500, "QMTL-604"),
        ("same", canary, 1_000, ""),
        ("down", canary, 500, ""),
        ("the other up", stable, 9_800, ""),
    ]:
        outcome = said(desk, SetTrafficWeight(name, sentinel_id, weight, T0))
        assert (outcome.code, outcome.accepted) == (code, not code), name
    assert said(desk, ClearContextHits("no", " ", T0)).code == "QMTL-602"
    cleared = said(desk, ClearContextHits("yes", "the bars were those of last year", T0))
    assert cleared.accepted
    assert "3 cross-context hits" in cleared.detail
    assert said(desk, SetTrafficWeight("up again", canary, 10_000, T0)).accepted


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
