"""Ids from outside: what breaks the rule is refused under its id, and where nothing can be kept under it, it is a dead letter that says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qmtl.engine.handling import FAILURES_IN_A_ROW
from qmtl.foundation.contracts.context import SetComputeContext
from qmtl.foundation.contracts.control import DeadLetter
from qmtl.foundation.contracts.dag import CollectGarbage, DagSubmission, RetireStrategy
from qmtl.foundation.contracts.diff import AckChunk, DiffRequest
from qmtl.foundation.contracts.release import StartRelease
from qmtl.services.dagmanager.admission import admit
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_diffing import a_desk, chunks
from tests.services.graphs import T0, crossing, sma, strategy, text

DAG = text(strategy(crossing()))
UNANSWERABLE = ["", "  ", "\n", "i" * 201, "i" * 5_000]
NO_IDS = ["a b", "a\x00b", "\x1b[2J", "a:b", "a/b", "..", "-a", "ä", "a\n"]


def asked(name: str) -> list[Any]:
    """A request of each kind with this id, with the field that has it."""
    return [
        ("submission_id", DagSubmission(name, "w1", DAG, T0, execution_domain="live")),
        ("request_id", DiffRequest(name, "s1", DAG, T0, "w1", "live")),
        ("request_id", AckChunk(name, 0)),
        ("command_id", CollectGarbage(name, "", T0)),
        ("command_id", StartRelease(name, "w1", DAG, T0)),
    ]


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as made:
        yield made


@pytest.mark.parametrize("name", UNANSWERABLE, ids=lambda name: f"{len(name)} characters")
def test_an_id_under_which_nothing_can_be_kept_is_a_dead_letter_with_its_cause(desk: Desk, name: str) -> None:
    before = desk.all_rows()
    for field, message in asked(name):
        desk.emitted.clear()
        desk.send(message)
        (told,) = desk.emitted
        topic, letter = told
        assert (topic, type(letter), letter.code) == ("dead.letters", DeadLetter, "QMTL-508")
        assert letter.cause.startswith(f"{field} was ")
        assert "1 to 200 characters" in letter.cause
        assert letter.cause.endswith("Say it under another id.")
        assert len(letter.cause) < 400
    assert desk.all_rows() == before


def test_any_number_of_such_records_stops_nobody(desk: Desk) -> None:
    for _ in range(FAILURES_IN_A_ROW + 5):
        desk.send(DagSubmission("", "w1", DAG, T0, execution_domain="live"))
    assert len(desk.told("dead.letters")) == FAILURES_IN_A_ROW + 5


@pytest.mark.parametrize("name", NO_IDS, ids=ascii)
def test_what_is_no_id_is_refused_under_it_with_field_kind_rule_and_remedy(desk: Desk, name: str) -> None:
    for field, message in asked(name):
        desk.send(message)
        match message:
            case DagSubmission():
                found = desk.table("dag.diffs").get(name)
            case DiffRequest():
                (found,) = chunks(desk, name)
            case AckChunk():
                continue  # of an answer that there is none of
            case _:
                found = desk.table("dag.outcomes").get(name)
        assert (found.accepted, found.code) == (False, "QMTL-508")
        assert f"{field} was the text " in found.detail
        assert "1 to 200 characters" in found.detail
        assert found.detail.isprintable() or "\n" not in found.detail
    assert desk.rows("dag.sentinels") == desk.rows("dag.releases") == desk.rows("dag.context") == []
    assert desk.told("dead.letters") == []


@pytest.mark.parametrize("world", [" ", "w 1", "w:1", "w" * 201, "w\x00"], ids=ascii)
def test_nothing_is_published_to_a_world_that_is_no_id(desk: Desk, world: str) -> None:
    sent: list[Any] = [
        DagSubmission("x", world, DAG, T0, execution_domain="live"),
        StartRelease("r", world, DAG, T0),
        SetComputeContext("c", world, "live", T0),
    ]
    desk.send(*sent, DiffRequest("x", "s1", DAG, T0, world, "live"))
    found = [desk.table("dag.diffs").get("x"), *chunks(desk, "x")]
    found += [desk.table("dag.outcomes").get(name) for name in "rc"]
    assert {one.code for one in found} == {"QMTL-508"}
    assert all("world_id was " in one.detail for one in found)
    assert desk.rows("dag.context") == []


def test_the_longest_ids_make_rows_and_keys(desk: Desk) -> None:
    name, message = "i" * 200, text(strategy(crossing(), "s" * 200))
    desk.send(DagSubmission(name, "w" * 200, message, T0, execution_domain="live"))
    assert desk.table("dag.diffs").get(name).accepted
    desk.report_all()
    assert desk.table("dag.strategies").get("w" * 200, admit(message, 0).strategy_id) is not None
    desk.send(RetireStrategy("r" * 200, "w" * 200, "s" * 200, T0))
    assert desk.table("dag.outcomes").get("r" * 200).accepted
    desk.seal()


@pytest.mark.parametrize("name", ["c", "a b"], ids=["sound id", "no id"])
@pytest.mark.parametrize("world", ["w1", "w:1"], ids=["sound world", "no world"])
def test_ids_that_are_none_hide_no_fault_of_a_message(desk: Desk, name: str, world: str) -> None:
    """A submission, a diff and a release are refused for the same reasons."""
    message = text(strategy([*crossing(), sma("round", 0, "round"), sma("a|b", 3, "nobody")]))
    desk.send(
        DagSubmission(name, world, message, T0, execution_domain="live"),
        DiffRequest(name, "s1", message, T0, world, "live"),
        StartRelease(name, world, message, T0),
    )
    said = [desk.table("dag.diffs").get(name), *chunks(desk, name), desk.table("dag.outcomes").get(name)]
    wrong = [
        *(["_id was the text 'a b'"] if name == "a b" else []),
        *(["world_id was the text 'w:1'"] if world == "w:1" else []),
        "nodes[5].period was ",
        "nodes[6].name was ",
        "nodes[6].inputs[0] was ",
        "nodes[5].inputs was a part of the cycle round -> round",
    ]
    assert len(said) == 3
    for one in said:
        assert not one.accepted
        reasons = [line for line in one.detail.splitlines() if "was sent" not in line]
        assert len(reasons) == len(wrong)
        assert all(fault in line for fault, line in zip(wrong, reasons, strict=True)), one.detail


def test_both_ids_of_a_command_are_told(desk: Desk) -> None:
    desk.send(SetComputeContext("a b", "w:1", "live", T0))
    outcome = desk.table("dag.outcomes").get("a b")
    assert (outcome.accepted, outcome.code) == (False, "QMTL-508")
    assert outcome.detail.index("command_id was ") < outcome.detail.index("world_id was ")
