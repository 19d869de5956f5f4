"""Files that nodes compute with: what they are is a part of the node, where they lie is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import Artifact, RedoDiff, Relation
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.prescan import Prescan
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, crossing, strategy, submission, text

ONE, TWO = "blake3:" + "1" * 64, "blake3:" + "2" * 64


def file(checksum: str = ONE, **more: Any) -> dict[str, Any]:
    return {"path": "s3://models/one", "checksum": checksum, "size": 7} | more


def message(files: list[dict[str, Any]], *used: str, version: str = "v1") -> dict[str, Any]:
    """A strategy whose slow mean uses artifacts."""
    nodes = [one | ({"artifacts": list(used)} if one["name"] == "slow" else {}) for one in crossing(3, 8)]
    return strategy(nodes, version=version) | {"artifacts": files}


def ids(found: dict[str, Any]) -> dict[str, str]:
    graph = admit(text(found), T0)
    assert Prescan().admit(text(found), T0) == graph
    return {one.name: one.node.node_id for one in graph.nodes}


names = st.from_regex(r"\A[a-z]{1,9}\Z")


@given(st.text("abc/:. ", min_size=1, max_size=20), names, names, st.booleans(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_only_the_checksums_of_its_artifacts_make_a_node_another_one(
    path: str, name: str, framework: str, by_name: bool, turned: bool
) -> None:
    files = [file(path=path, name=name, framework=framework, dtype="f4"), file(TWO)]
    used = [name if by_name else ONE, TWO]
    found = ids(message(files[::-1] if turned else files, *(used[::-1] if turned else used), used[0]))
    assert found == ids(message([file(), file(TWO)], ONE, TWO))
    assert (
        len({found["slow"], ids(message([file()], ONE))["slow"], ids(strategy(crossing(3, 8)))["slow"]}) == 3
    )
    assert found["fast"] == ids(message([file()]))["fast"] == ids(strategy(crossing(3, 8)))["fast"]


@pytest.mark.parametrize(
    ("files", "used", "reasons"),
    [
        ([file("1" * 64)], [], [("QMTL-505", "artifacts[0].checksum")]),
        ([file(ONE + "1" * 64)], [], [("QMTL-505", "artifacts[0].checksum")]),
        ([file(size=-1)], [], [("QMTL-500", "artifacts[0].size")]),
        ([file(size=1.5)], [], [("QMTL-500", "artifacts[0].size")]),
        ([file(path="")], [], [("QMTL-508", "artifacts[0].path")]),
        ([file(path="x" * 1025)], [], [("QMTL-508", "artifacts[0].path")]),
        ([file(path="a\0b")], [], [("QMTL-508", "artifacts[0].path")]),
        (
            [file(), file(path="", size=-1)],
            [],
            [("QMTL-508", "artifacts[1].path"), ("QMTL-500", "artifacts[1].size")],
        ),
        ([file(), file(size=8)], [], [("QMTL-500", "artifacts[1].size")]),
        ([file(name="m"), file(TWO, name="m")], ["m"], [("QMTL-507", "artifacts[1].name")]),
        ([file()], ["model"], [("QMTL-504", "nodes[2].artifacts[0]")]),
        ([file()], [ONE, TWO], [("QMTL-504", "nodes[2].artifacts[1]")]),
        ([file(colour="red")], [], [("QMTL-500", "artifacts[0].colour")]),
        ([7], [], [("QMTL-500", "artifacts[0]")]),
    ],
)
def test_what_is_wrong_with_an_artifact_is_told(
    files: list[Any], used: list[str], reasons: list[tuple[str, str]]
) -> None:
    for judge in (admit, Prescan().admit):
        with pytest.raises(InvalidDag) as caught:
            judge(text(message(files, *used)), T0)
        assert [(one.code, one.path) for one in caught.value.reasons] == reasons


def test_an_author_says_no_artifacts_among_the_parameters() -> None:
    found = message([file()])
    found["nodes"][2]["params"] = {"artifacts": [ONE]}
    for judge in (admit, Prescan().admit):
        with pytest.raises(InvalidDag) as caught:
            judge(text(found), T0)
        assert [(one.code, one.path) for one in caught.value.reasons] == [
            ("QMTL-506", "nodes[2].params.artifacts")
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def used_by(desk: Desk) -> set[tuple[str, str]]:
    rows = desk.rows("dag.edges")
    return {(row.source, row.target) for row in rows if row.relation is Relation.USED_BY}


def test_an_artifact_is_a_row_by_its_checksum_and_an_edge_to_each_node_that_uses_it(desk: Desk) -> None:
    files = [file(name="model", framework="torch"), file(TWO, size=0)]
    desk.send(submission(message(files, "model")))
    desk.report_all()
    assert desk.rows("dag.artifacts") == [
        Artifact(ONE, "s3://models/one", 7, "torch"),
        Artifact(TWO, "s3://models/one", 0),
    ]
    slow = ids(message(files, "model"))["slow"]
    assert used_by(desk) == {(ONE, slow)}

    desk.again()
    desk.send(submission(message([file(path="/elsewhere")], ONE)))
    assert [row.path for row in desk.rows("dag.artifacts")] == ["/elsewhere", "s3://models/one"]
    other = submission(message([file(size=8)], ONE, version="v2"))
    before = desk.rows("dag.artifacts")
    desk.send(other)
    assert desk.table("dag.diffs").get(other.submission_id).detail.count("artifacts[0].size") == 1
    assert desk.rows("dag.artifacts") == before
    assert used_by(desk) == {(ONE, slow)}


def test_a_version_that_is_deployed_anew_has_its_artifacts(desk: Desk) -> None:
    desk.send(submission(message([file(name="model")], "model")))
    desk.report_all()
    (version,) = desk.rows("dag.sentinels")
    desk.send(RedoDiff("c1", version.sentinel_id, "v9", T0))
    assert desk.table("dag.outcomes").get("c1").accepted
    (again,) = [row for row in desk.rows("dag.sentinels") if row.version == "v9"]
    assert again.node_ids == version.node_ids
