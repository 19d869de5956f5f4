"""Asked again under one id: the same content has the same answer, other content is refused, noted and never answered with another's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.errors import ReusedId
from qmtl.foundation.contracts.context import ClearContextHits, SetComputeContext
from qmtl.foundation.contracts.dag import (
    AdminAct,
    AdminEntry,
    CollectGarbage,
    DagCommand,
    DagOutcome,
    DagSubmission,
    RedoDiff,
    RetireStrategy,
    RollBack,
    SetTrafficWeight,
)
from qmtl.foundation.contracts.diff import AckChunk, DiffRequest
from qmtl.foundation.contracts.release import AbandonRelease, ReportBacktest, StartRelease
from qmtl.foundation.contracts.retention import SetRetention
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import HOUR_MS
from qmtl.services.dagmanager.repeats import content_digest, id_of, require_same
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_diffing import a_desk, chunks
from tests.services.graphs import T0, crossing, strategy, text

DAGS = [text(strategy(crossing(3, slow))) for slow in (8, 21)]
TEXTS = st.sampled_from(["", "w1", "live", "a"])
INSTANTS = ("submitted_at_ms", "requested_at_ms", "issued_at_ms")

ASKED: list[Any] = [
    DagSubmission("x", "w1", DAGS[0], T0, execution_domain="live"),
    DiffRequest("x", "s1", DAGS[0], T0, "w1", "live"),
    SetTrafficWeight("x", "v1", 1000, T0),
    RollBack("x", "v1", T0),
    RedoDiff("x", "v1", "v2", T0),
    RetireStrategy("x", "w1", "s1", T0),
    CollectGarbage("x", "", T0),
    SetComputeContext("x", "w1", "live", T0),
    ClearContextHits("x", "why", T0),
    StartRelease("x", "w1", DAGS[0], T0),
    ReportBacktest("x", "r", "run", "d", True, T0, "", "data", 1, 2, "result"),
    AbandonRelease("x", "r", "why", T0),
    SetRetention("x", 7, T0),
]
"""One request of each kind."""


def other_values(request: Any) -> Iterator[tuple[str, Any]]:
    """Each field of a request with another value."""
    for one in fields(request):
        value = getattr(request, one.name)
        match value:
            case bool():
                yield one.name, not value
            case int():
                yield one.name, value + 1
            case bytes():
                yield one.name, value + b" "
            case str():
                yield one.name, value + "b"
            case _:
                raise AssertionError(f"{one.name} is of another kind")


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as made:
        yield made


@pytest.mark.parametrize("request_", ASKED, ids=lambda one: type(one).__name__)
def test_content_is_all_that_is_said_but_the_id_and_the_instant(request_: Any) -> None:
    digest = content_digest(request_)
    seen = {digest}
    for name, value in other_values(request_):
        other = replace(request_, **{name: value})
        if name in INSTANTS or name.endswith(("submission_id", "command_id", "request_id")):
            assert content_digest(other) == digest
            require_same(digest, other)
            continue
        seen.add(content_digest(other))
        with pytest.raises(ReusedId, match="under which something else was asked"):
            require_same(digest, other)
    assert len(seen) == 1 + sum(
        name not in (*INSTANTS, "submission_id", "command_id", "request_id")
        for name, _ in other_values(request_)
    )
    require_same("", request_)  # an answer of old does not tell


def test_no_two_kinds_share_a_content() -> None:
    assert {type(one) for one in ASKED} == {DagSubmission, DiffRequest, *get_args(DagCommand)}
    assert len({content_digest(one) for one in ASKED}) == len(ASKED)
    assert {id_of(one) for one in ASKED} == {"x"}


def answers(desk: Desk) -> dict[str, list[Any]]:
    return {name: rows for name, rows in desk.all_rows().items() if name != "dag.context"}


SAID = st.builds(
    DagSubmission,
    st.sampled_from(["x", "y"]),
    st.sampled_from(["w1", "w2"]),
    st.sampled_from(DAGS),
    st.sampled_from([T0, T0 + 1]),
    st.sampled_from([10_000, 1_000, 0]),
    st.sampled_from(["live", ""]),
)
DIFFED = st.builds(
    DiffRequest,
    st.sampled_from(["x", "y"]),
    st.just("s1"),
    st.sampled_from([*DAGS, b"no json"]),
    st.sampled_from([T0, T0 + 1]),
    st.just("w1"),
    st.sampled_from(["live", ""]),
)
COMMANDED = st.builds(
    RetireStrategy, st.sampled_from(["x", "y"]), st.just("w1"), TEXTS, st.just(T0)
) | st.builds(SetComputeContext, st.sampled_from(["x", "y"]), st.just("w1"), TEXTS, st.just(T0))
TABLE = {DagSubmission: "dag.diffs", DiffRequest: "dag.diff.streams"}


@settings(max_examples=40, deadline=None)
@given(st.lists(SAID | DIFFED | COMMANDED, max_size=12))
def test_an_answer_is_of_the_content_that_came_first_and_other_content_is_noted_and_changes_nothing(
    asked: list[Any],
) -> None:
    first: dict[tuple[str, str], str] = {}
    with a_desk() as desk:
        for one in asked:
            table = TABLE.get(type(one), "dag.outcomes")
            digest = first.setdefault((table, id_of(one)), content_digest(one))
            is_known = desk.table(table).get(id_of(one)) is not None
            before, noted = desk.all_rows(), len(desk.emitted)
            desk.send(one)
            assert desk.table(table).get(id_of(one)).request_digest == digest
            if not is_known:
                continue
            assert desk.all_rows() == before
            told: list[AdminEntry] = [entry for _, entry in desk.emitted[noted:]]
            if content_digest(one) == digest:
                assert told == []
                continue
            (entry,) = told
            assert (entry.act, entry.subject, entry.cause) == (AdminAct.REPEATED, id_of(one), id_of(one))
            assert entry.detail.startswith("refused: [QMTL-608] ")
            assert content_digest(one) in entry.detail
            assert entry.digest == blake3_hex(codec.encode(one))
        for name in "xy":
            assert {chunk.request_digest for chunk in chunks(desk, name)} <= {
                first.get(("dag.diff.streams", name), "")
            }


def test_a_request_that_is_forgotten_leaves_its_id_to_others(desk: Desk) -> None:
    one, other = (DiffRequest("x", "s1", dag, T0, "w1", "live") for dag in DAGS)
    desk.tick(T0)
    desk.send(one, AckChunk("x", 0))
    for hours in (0, 1, 2):
        desk.tick(T0 + hours * HOUR_MS + 1)
    desk.send(other)
    assert {chunk.request_digest for chunk in chunks(desk, "x")} == {content_digest(other)}


def test_an_answer_of_old_that_names_no_content_is_everybodys(desk: Desk) -> None:
    desk.table("dag.diffs").put(DagOutcome("x", "w1", "s1", True, "", "", "v"))
    desk.send(DagSubmission("x", "w1", DAGS[0], T0, execution_domain="live"))
    assert desk.table("dag.diffs").get("x") == DagOutcome("x", "w1", "s1", True, "", "", "v")
    assert desk.told("dag.admin.log") == []


def test_a_command_that_submits_under_an_id_of_a_submission_is_refused_and_not_answered_with_its_answer(
    desk: Desk,
) -> None:
    desk.send(DagSubmission("x", "w1", DAGS[0], T0, execution_domain="live"))
    desk.report_all()
    (version,) = desk.rows("dag.sentinels")
    desk.send(RedoDiff("x", version.sentinel_id, "v1-hotfix", T0))
    outcome = desk.table("dag.outcomes").get("x")
    assert (outcome.accepted, outcome.code) == (False, "QMTL-602")
    assert "QMTL-608" in outcome.detail
    assert [one.version for one in desk.rows("dag.sentinels")] == ["v1"]


@pytest.mark.parametrize("field", ["world_id", "weight_bp", "as_of", "submitted_at_ms", "dag_json"])
def test_the_audits_digest_is_of_the_whole_submission(desk: Desk, field: str) -> None:
    """Two submissions that differ in anything have two digests, and so have their answers."""
    other: dict[str, Any] = {
        "world_id": "w2",
        "weight_bp": 9_999,
        "as_of": "a",
        "submitted_at_ms": T0 + 1,
        "dag_json": DAGS[1],
    }
    one = DagSubmission("x", "w1", DAGS[0], T0, execution_domain="live")
    change: dict[str, Any] = {field: other[field]}
    two = replace(one, **change)
    digests = []
    for sent in (one, two):
        with a_desk() as alone:
            alone.send(sent)
            asked, answered = [e for e in alone.told("dag.admin.log") if e.act is AdminAct.DIFFED]
            assert asked.digest == blake3_hex(codec.encode(sent))
            assert answered.digest == blake3_hex(codec.encode(alone.table("dag.diffs").get("x")))
            digests.append(asked.digest)
    assert digests[0] != digests[1]
