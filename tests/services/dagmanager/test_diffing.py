"""The laws of a diff: it says what a submission would do, refuses what a submission would be refused for, and does nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.contracts.dag import FULL_WEIGHT, AdminAct, DagSubmission
from qmtl.foundation.contracts.diff import DiffChunk, DiffRequest, NodeOrigin
from qmtl.foundation.wire.registry import codec
from qmtl.services.dagmanager.diff_stream import digest_of
from qmtl.services.dagmanager.repeats import content_digest
from tests.services.dagmanager.desk import AnyDesk, Desk
from tests.services.dagmanager.life_graphs import GRAPHS
from tests.services.dagmanager.lives import tried
from tests.services.dagmanager.test_life import OWNERS, Life
from tests.services.graphs import T0, cross, crossing, price, sma, strategy, submission, target, text

OWN = {"dag.diff.chunks", "dag.diff.streams"}


@contextmanager
def a_desk() -> Iterator[Desk]:
    with TemporaryDirectory() as name:
        made = Desk(Path(name))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as made:
        yield made


def request(message: dict[str, Any] | bytes, request_id: str = "r1", **more: Any) -> DiffRequest:
    """A complete context, unless something else is said."""
    data = message if isinstance(message, bytes) else text(message)
    asked = {"strategy_id": "s1", "world_id": "w1", "execution_domain": "live", **more}
    return DiffRequest(request_id=request_id, dag_json=data, requested_at_ms=T0, **asked)


def graph_of(desk: AnyDesk) -> dict[str, list[Any]]:
    """All tables but those of diffs."""
    return {name: rows for name, rows in desk.all_rows().items() if name not in OWN}


def chunks(desk: AnyDesk, request_id: str = "r1") -> list[DiffChunk]:
    return [row for row in desk.rows("dag.diff.chunks") if row.request_id == request_id]


def the_answer(desk: Desk, asked: DiffRequest) -> DiffChunk:
    desk.send(asked)
    (only,) = chunks(desk, asked.request_id)
    return only


# ---- what it says is what happens -----------------------------------------------------------------------------------


class Told(Life):
    """Any life of the graph, in which a diff comes before some of the submissions."""

    @rule(graph=st.sampled_from(range(len(GRAPHS))), owner=st.sampled_from(OWNERS), safe=st.booleans())
    def diff(self, graph: int, owner: tuple[str, str], safe: bool) -> None:
        """The tables and the topics of the graph are as before; after a submission and all reports its topics are those told of."""
        self.count += 1
        world, name = owner
        message = strategy(GRAPHS[graph], name, version=f"v{graph}")
        sent = DagSubmission(f"s{self.count}", world, text(message), self.now_ms, execution_domain="live")
        asked = DiffRequest(
            f"r{self.count}", name, sent.dag_json, self.now_ms, world, "backtest" if safe else "live"
        )
        at_length = self.desk.at_length(asked)
        before, memory, emitted = graph_of(self.desk), self.desk.memory(), len(self.desk.emitted)
        there = {
            topic: node_id for topic, node_id in self.broker.topics.items() if topic not in self.removing()
        }
        self.desk.send(asked)
        assert chunks(self.desk, asked.request_id) == at_length
        assert (graph_of(self.desk), self.desk.memory()) == (before, memory)
        assert {topic for topic, _ in self.desk.emitted[emitted:]} == {"dag.admin.log"}
        (only,) = chunks(self.desk, f"r{self.count}")
        told = {one.node_id: one for one in only.queue_map}
        assert {one.topic for one in told.values() if one.origin is NodeOrigin.NEW}.isdisjoint(there)
        reused = {one.topic for one in told.values() if one.origin is NodeOrigin.REUSED}
        assert reused <= {row.topic for row in before["dag.queues"] if not row.removing}

        self.keeping.learn(message)
        code = self.traffic.submit(owner, message, FULL_WEIGHT)
        self.say(sent, code)
        if code:  # promotions are held
            return
        outcome = self.desk.table("dag.diffs").get(sent.submission_id)
        assert only.sentinel_id == ("" if safe else outcome.sentinel_id)
        assert set(told) == {*outcome.new_nodes, *outcome.reused_nodes}
        for _ in range(2):  # what is being removed goes, and comes again
            self.report(choose=None, ok=True, code="", all_=True)
        queues = {node_id: queue.topic for node_id, queue in self.current().items()}
        assert {one: queues[one] for one in told} == {one: told[one].topic for one in told}


Told.TestCase.settings = tried(40, 25)
TestTold = Told.TestCase


def test_nodes_come_in_graph_order_with_their_names_and_equal_ones_share_a_topic(desk: Desk) -> None:
    nodes = [target(), cross(), sma("slow", 8), sma("twin", 8), sma("fast", 3), price()]
    found = the_answer(desk, request(strategy(nodes))).queue_map
    assert {one.name for one in found} == {one["name"] for one in nodes}
    place = {one.name: at for at, one in enumerate(found)}
    assert all(place[read] < place[one["name"]] for one in nodes for read in one.get("inputs", ()))
    by_name = {one.name: one for one in found}
    assert by_name["twin"] == replace(by_name["slow"], name="twin")
    assert len({one.topic for one in found}) == 5


def test_a_node_that_exists_is_reused_and_one_whose_history_is_of_an_older_schema_is_told_so(
    desk: Desk,
) -> None:
    desk.send(submission(strategy(crossing(3, 8))))
    desk.report_all()
    (slow,) = [row for row in desk.rows("dag.nodes") if row.period == 8]
    desk.table("dag.nodes").put(replace(slow, buffering_since_ms=T0))
    desk.again()
    found = {
        one.name: one.origin for one in the_answer(desk, request(strategy(crossing(3, 8, 0.3)))).queue_map
    }
    assert found == {
        "price": NodeOrigin.REUSED,
        "fast": NodeOrigin.REUSED,
        "slow": NodeOrigin.BUFFERING,
        "cross": NodeOrigin.REUSED,
        "target": NodeOrigin.NEW,
    }


# ---- safe mode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "safe_mode"),
    [
        ({"execution_domain": "live"}, ""),
        ({"execution_domain": "shadow"}, ""),
        ({"execution_domain": "backtest", "as_of": "commit-1"}, ""),
        ({"execution_domain": "paper", "as_of": "commit-1"}, ""),
        ({"execution_domain": "backtest"}, "missing_as_of"),
        ({"execution_domain": "dryrun", "as_of": "  "}, "missing_as_of"),
        ({"execution_domain": ""}, "decision_unavailable"),
        ({"execution_domain": "", "as_of": "commit-1"}, "decision_unavailable"),
        ({"execution_domain": "live", "world_id": ""}, "decision_unavailable"),
        ({"execution_domain": "backtest", "as_of": "commit-1", "world_id": ""}, "decision_unavailable"),
    ],
)
def test_a_context_that_is_not_complete_names_no_version_and_lends_nothing(
    desk: Desk, context: dict[str, str], safe_mode: str
) -> None:
    granted: dict[str, Any] = {"execution_domain": "live"} if safe_mode else {**context}
    desk.send(replace(submission(strategy(crossing())), **granted))
    (version,) = desk.rows("dag.sentinels")
    found = the_answer(desk, request(strategy(crossing()), **context))
    assert (found.accepted, found.safe_mode) == (True, safe_mode)
    assert found.sentinel_id == ("" if safe_mode else version.sentinel_id)
    assert {one.topic for one in found.queue_map} == {row.topic for row in desk.rows("dag.queues")}


def test_every_chunk_says_that_it_is_in_safe_mode(desk: Desk) -> None:
    wide = [price(), *(sma(f"n{at}", at + 2) for at in range(250)), target(source="n0")]
    desk.send(request(strategy(wide), execution_domain="backtest"))
    found = chunks(desk)
    assert [len(one.queue_map) for one in found] == [100, 100, 52]
    assert {(one.safe_mode, one.sentinel_id, one.version) for one in found} == {("missing_as_of", "", "v1")}


# ---- refusals -----------------------------------------------------------------------------------------------------------

BAD = {
    "no JSON": b"no json",
    "no nodes": text(strategy([])),
    "a cycle": text(strategy([price(), sma("a", 3, "b"), sma("b", 3, "a"), target(source="a")])),
    "several faults": text(strategy([price(), sma("a", 0, "b"), price(), target(source="c")])),
    "over 1 MiB": text(strategy(crossing())) + b" " * (1 << 20),
    "10,000 nodes, whose plan no row holds": text(
        strategy(
            [
                price(),
                *(sma(f"n{at}", at + 1, tags=[str(at % 2)]) for at in range(1, 9_999)),
                target(source="n1"),
            ]
        )
    )
    .replace(b", ", b",")
    .replace(b": ", b":"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_submission_is_refused_for_a_diff_is_refused_for_in_the_same_words(
    desk: Desk, name: str
) -> None:
    desk.send(DagSubmission("r1", "w1", BAD[name], T0, execution_domain="live"))
    outcome = desk.table("dag.diffs").get("r1")
    before = graph_of(desk)
    found = the_answer(desk, request(BAD[name]))
    assert (found.accepted, found.code, found.detail) == (False, outcome.code, outcome.detail)
    digest = content_digest(request(BAD[name]))
    assert found == DiffChunk(
        "r1", 0, True, (), "", "", "", True, False, outcome.code, outcome.detail, digest
    )
    assert found.code.startswith("QMTL-5")
    assert graph_of(desk) == before


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"strategy_id": "other"}, "QMTL-500", ["strategy_id was 'other' in the request and 's1'"]),
        ({"strategy_id": ""}, "QMTL-500", ["strategy_id was '' in the request and 's1'"]),
        ({"execution_domain": "prod"}, "QMTL-506", ["execution_domain was the text 'prod'", "shadow"]),
        ({"execution_domain": "LIVE"}, "QMTL-506", ["execution_domain was the text 'LIVE'"]),
        ({"world_id": "w" * 201}, "QMTL-508", ["world_id was the text", "200"]),
        ({"world_id": " "}, "QMTL-508", ["world_id was a text of 1 blanks"]),
        ({"as_of": "a" * 401}, "QMTL-506", ["as_of was the text", "at most 400 characters"]),
    ],
)
def test_a_request_at_odds_with_itself_is_refused_with_its_field_and_rule(
    desk: Desk, more: dict[str, str], code: str, says: list[str]
) -> None:
    found = the_answer(desk, request(strategy(crossing()), **more))
    assert (found.accepted, found.code) == (False, code)
    assert all(one in found.detail for one in says), found.detail


def test_all_reasons_come_at_once_those_of_the_request_and_those_of_its_message(desk: Desk) -> None:
    asked = request(BAD["several faults"], strategy_id="other", execution_domain="prod")
    detail = the_answer(desk, asked).detail
    desk.send(DagSubmission("s", "w1", BAD["several faults"], T0, execution_domain="live"))
    mine = detail.splitlines()
    assert len(mine) == 2 + len(desk.table("dag.diffs").get("s").detail.splitlines())
    assert set(desk.table("dag.diffs").get("s").detail.splitlines()) < set(mine)
    paths = [one.split(" was ")[0] for one in mine]
    assert paths[0] == "[QMTL-506] execution_domain"
    assert paths.count("[QMTL-500] strategy_id") == 1


# ---- the audit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [request(strategy(crossing())), request(b"no json")], ids=["good", "bad"])
def test_request_and_response_stand_in_the_admin_log_with_their_digests(
    desk: Desk, asked: DiffRequest
) -> None:
    found = the_answer(desk, asked)
    first, second = desk.told("dag.admin.log")
    assert {first.act, second.act} == {AdminAct.DIFFED}
    assert {first.subject, second.subject, first.cause, second.cause} == {"r1"}
    assert first.digest == blake3_hex(codec.encode(asked))
    assert second.digest == digest_of([found])
    assert (first.detail, second.detail.split(":")[0]) == ("request", "response")


def test_digests_tell_answers_apart(desk: Desk) -> None:
    desk.send(request(strategy(crossing(3, 8)), "r1"), request(strategy(crossing(3, 8)), "r2", as_of="x"))
    desk.send(request(strategy(crossing(3, 9)), "r3"))
    digests = [entry.digest for entry in desk.told("dag.admin.log")]
    assert len(set(digests)) == len(digests) == 6


# ---- how much it does ---------------------------------------------------------------------------------------------------------


def pipelines(numbers: Sequence[int]) -> dict[str, Any]:
    """Three nodes for each number, which no other number has."""
    parts = (
        (
            price(f"p{one}", [f"S{one}-USD"]),
            sma(f"s{one}", 3, f"p{one}"),
            cross(f"c{one}", f"s{one}", f"p{one}"),
        )
        for one in numbers
    )
    return strategy([*chain.from_iterable(parts), target("target", f"c{numbers[0]}")])


def calls_of(desk: Desk, asked: DiffRequest) -> int:
    """How many functions are called, Python's own among them, while a request is answered."""
    count = 0

    def note(frame: Any, event: str, what: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        desk.send(asked)
    finally:
        sys.setprofile(None)
    return count


def test_a_diff_does_as_much_as_is_asked_for_and_no_more_where_the_graph_is_large(desk: Desk) -> None:
    """Time is the bench's; here it is what is done. What one call of Python's does to a whole table would not be seen."""

    def ask(name: str, numbers: Sequence[int]) -> int:
        count = calls_of(desk, request(pipelines(numbers), name))
        told = [node.origin for chunk in chunks(desk, name) for node in chunk.queue_map]
        assert told == [NodeOrigin.REUSED] * (3 * len(numbers) + 1)
        return count

    desk.send(submission(pipelines(range(120)), "first"))
    desk.report_all()
    ask("warm", range(120))
    few, twice, four_times = (ask(f"few-{size}", range(size)) for size in (30, 60, 120))  # 1, 2 and 4 chunks
    desk.send(submission(pipelines(range(120, 500)), "second"))
    desk.report_all()
    ask("warm-again", range(120))
    assert four_times - twice == pytest.approx(2 * (twice - few), rel=0.2)
    assert ask("large", range(120)) == pytest.approx(four_times, rel=0.01)
