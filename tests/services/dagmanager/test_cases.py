"""Every graph of `tests/cases/graphs`: what is submitted, and what it comes to.

A case is a file named for it. `submitted` is the message, or `submitted_text` its text, or `submitted_pieces` texts with how often each
stands one after the other. `canonical` holds the ids that it comes to, `refused` the code and, in order, the code and path of each
reason. `same_nodes_as` and `other_nodes_than` name cases that it says something about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import AdminAct, DagOutcome, DagSubmission
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.faults import MAX_PART, MAX_REASONS
from qmtl.services.dagmanager.graph import content_of
from qmtl.services.dagmanager.repeats import content_digest
from tests.services.dagmanager import oracle
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0

FOLDER = Path(__file__).resolve().parents[2] / "cases" / "graphs"
CASES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
SOUND = [name for name, case in CASES.items() if "canonical" in case]
REFUSED = [name for name, case in CASES.items() if "refused" in case]


def submitted(name: str) -> bytes:
    case = CASES[name]
    if "submitted" in case:
        return json.dumps(case["submitted"]).encode()
    if "submitted_text" in case:
        text: str = case["submitted_text"]
        return text.encode()
    return "".join(text * times for text, times in case["submitted_pieces"]).encode()


def test_there_are_cases_and_each_says_what_becomes_of_it() -> None:
    assert len(SOUND) >= 40
    assert len(REFUSED) >= 60
    assert sorted(SOUND + REFUSED) == sorted(CASES)
    assert all(case["case"].endswith(".") for case in CASES.values())


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_graph_has_the_ids_of_the_written_rule(name: str) -> None:
    graph = admit(submitted(name), T0)
    found = {
        "nodes": {one.name: one.node.node_id for one in graph.nodes},
        "signals": list(graph.signals),
        "commit": graph.commit_hash,
    }
    assert found == CASES[name]["canonical"]
    assert found == oracle.canonical(json.loads(submitted(name), parse_float=Decimal))


@pytest.mark.parametrize("name", SOUND)
def test_a_node_has_the_id_of_its_row_and_of_nothing_else(name: str) -> None:
    """Defaults are a part of what is hashed, and what is kept is what was hashed."""
    for one in admit(submitted(name), T0).nodes:
        assert one.node.node_id == "blake3:" + blake3(content_of(one.node)).hexdigest()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "same_nodes_as" in case])
def test_a_graph_in_disguise_has_the_same_nodes(name: str) -> None:
    other = CASES[name]["same_nodes_as"]
    assert sorted(CASES[name]["canonical"]["nodes"].values()) == sorted(
        CASES[other]["canonical"]["nodes"].values()
    )
    assert submitted(name) != submitted(other)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "other_nodes_than" in case])
def test_a_graph_that_computes_otherwise_has_other_nodes(name: str) -> None:
    other = CASES[CASES[name]["other_nodes_than"]]["canonical"]
    for node in CASES[name]["changed"]:
        assert CASES[name]["canonical"]["nodes"][node] not in other["nodes"].values()
    for node in set(other["nodes"]) - set(CASES[name]["changed"]):
        assert CASES[name]["canonical"]["nodes"].get(node, other["nodes"][node]) == other["nodes"][node]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_with_every_reason(name: str) -> None:
    expected = CASES[name]["refused"]
    with pytest.raises(InvalidDag) as caught:
        admit(submitted(name), T0)
    refusal = caught.value
    assert [[one.code, one.path] for one in refusal.reasons] == expected["reasons"]
    assert refusal.more == expected.get("more", 0)
    assert refusal.code == expected["code"]
    assert len(refusal.reasons) <= MAX_REASONS
    for one in refusal.reasons:
        assert one.was
        assert one.rule
        assert one.remedy
        assert max(map(len, (one.path, one.was, one.rule, one.remedy))) <= MAX_PART + 3
        assert one.what.isascii()
        assert one.what.isprintable()
    for word in expected.get("says", ()):
        assert word in str(refusal)


# ---- by the DAG Manager itself ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One on which a strategy runs: a refusal has something to spoil."""
    made = Desk(tmp_path_factory.mktemp("desk"))
    made.send(DagSubmission("sound", "w1", submitted("crossing"), T0, execution_domain="live"))
    made.report_all()
    yield made
    made.close()


@pytest.mark.parametrize("name", REFUSED)
def test_of_what_is_refused_there_is_the_outcome_and_the_note_and_nothing_else(desk: Desk, name: str) -> None:
    before, told = desk.all_rows(), len(desk.emitted)
    sent = DagSubmission(name, "w1", submitted(name), T0, execution_domain="live")
    desk.send(sent)
    outcome: DagOutcome = desk.table("dag.diffs").get(name)
    code, digest = CASES[name]["refused"]["code"], content_digest(sent)
    assert outcome == DagOutcome(
        name, "w1", "", False, code, outcome.detail, decided_ms=T0, request_digest=digest
    )
    reasons = [line for line in outcome.detail.splitlines() if line.startswith("[")]
    assert [line[1:].split("]")[0] for line in reasons] == [
        code for code, _ in CASES[name]["refused"]["reasons"]
    ]
    after = desk.all_rows()
    after["dag.diffs"].remove(outcome)
    assert after == before
    notes = desk.emitted[told:]
    assert [(topic, note.act, note.subject) for topic, note in notes] == 2 * [
        ("dag.admin.log", AdminAct.DIFFED, name)
    ]
