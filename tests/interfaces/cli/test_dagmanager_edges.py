"""The relationships of the graph are found from either end, and are those that its other tables tell of."""

from __future__ import annotations

from typing import Any

import pytest

from qmtl.foundation.contracts.dag import Artifact, Edge, Relation
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.cli.dagmanager.edges import HOLDERS
from tests.interfaces.cli.deployed import CANARY, Deployed
from tests.interfaces.cli.running import Ran, assert_one_screen, call
from tests.replay.logs import commit, log_in, row, tombstone

MODEL = Artifact("blake3:m", "models/m", 3)
UNUSED = Artifact("blake3:u", "models/u", 3)
EDGES = (
    Edge(Relation.EMITS, "n1", "t1"),
    Edge(Relation.EMITS, "n2", "n1"),  # a topic that is called as a node is
    Edge(Relation.HAS, "v1", "n1"),
    Edge(Relation.HAS, "v1", "n2"),
    Edge(Relation.HAS, "v2", "n1"),
    Edge(Relation.USED_BY, MODEL.checksum, "n1"),
)


def look(capsys: pytest.CaptureFixture[str], address: str, *args: str) -> Ran:
    return call(capsys, "service", "dagmanager", "edges", *args, "--log", address)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("edges") / "log"
    with log_in(directory, specs=[topic(name) for name in ("dag.edges", *HOLDERS)]) as log:
        commit(log, [row("dag.edges", one) for one in (*EDGES, Edge(Relation.HAS, "v0", "n1"))])
        commit(log, [tombstone("dag.edges", "HAS", "v0", "n1")])
        commit(log, [row("dag.artifacts", one) for one in (MODEL, UNUSED)])
    return f"embedded:{directory}"


@pytest.mark.parametrize(
    ("args", "places"),
    [
        (("--from", "v1"), (2, 3)),
        (("--from", "n1"), (0,)),
        (("--to", "n1"), (1, 2, 4, 5)),
        (("--to", "n1", "--relation", "has", "--relation", "EMITS"), (1, 2, 4)),
        (("--from", MODEL.checksum, "--relation", "HAS"), ()),
        (("--from", UNUSED.checksum), ()),
    ],
)
def test_the_edges_of_an_end_are_those_that_are_there(
    capsys: pytest.CaptureFixture[str], address: str, args: tuple[str, ...], places: tuple[int, ...]
) -> None:
    ran = look(capsys, address, *args, "--json")
    wanted = [(EDGES[at].relation.value, EDGES[at].source, EDGES[at].target) for at in places]
    assert [(one["relation"], one["from"], one["to"]) for one in ran.lines()] == wanted
    assert (ran.code, ran.err) == (0, "")


def test_a_deployed_graph_has_the_edges_of_its_versions_and_topics(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    def ends(which: str, *args: str) -> list[Any]:
        return [one[which] for one in look(capsys, seen_deployed.address, *args, "--json").lines()]

    version = seen_deployed.sentinel(CANARY).sentinel_id
    nodes = seen_deployed.rows("dag.nodes")
    brought = [one.node_id for one in nodes if one.owner == version]
    assert ends("to", "--from", version, "--relation", "has") == sorted(brought) != []
    topics = {one.node_id: one.topic for one in seen_deployed.rows("dag.queues")}
    assert ends("from", "--to", topics[brought[0]]) == [brought[0]]
    assert ends("from", "--to", brought[0]) == [version]
    ran = look(capsys, seen_deployed.address, "--from", version, "--limit", "1")
    assert ("HAS" in ran.out, brought[0] in ran.out) == (True, True)
    assert (f"1 of {len(brought)} edges" in ran.err) == (len(brought) > 1)


@pytest.mark.parametrize(
    ("args", "code", "exit_code", "says"),
    [
        ((), "QMTL-801", 2, ["neither", "--from", "--to"]),
        (("--from", "v1", "--to", "n1"), "QMTL-801", 2, ["both", "--from", "--to"]),
        (("--from", "v1", "--relation", "LIKES"), "QMTL-801", 2, ["--relation", "used_by"]),
        (("--from", ""), "QMTL-809", 6, ["--from", "''"]),
        (("--to", "v0", "--relation", "HAS"), "QMTL-809", 6, ["--to", "v0", "sentinels"]),
    ],
)
def test_what_means_nothing_is_refused(
    capsys: pytest.CaptureFixture[str],
    address: str,
    args: tuple[str, ...],
    code: str,
    exit_code: int,
    says: list[str],
) -> None:
    assert_one_screen(look(capsys, address, *args), code, exit_code, says=says)
