"""A version that is done anew keeps all that its author said of the graph, and only its code is today's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.identity import schema_hash
from qmtl.foundation.contracts.dag import DagOutcome, DagSubmission, RedoDiff, RollBack, VersionSentinel
from qmtl.foundation.contracts.node import PositionTarget
from qmtl.foundation.wire.versions import schema_dir, stored_versions
from qmtl.services.dagmanager.kinds import SCHEMA
from qmtl.services.dagmanager.message import parse_message
from qmtl.services.dagmanager.rewritten import message_of
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, crossing, price, sma, strategy, tag_query, target

UNHEARD = "blake3:" + "7" * 64
OLDER = schema_hash(stored_versions(schema_dir(), PositionTarget.__name__)[0][1])
FILE = {"name": "m", "path": "s3://models/é.onnx", "checksum": "blake3:" + "a" * 64, "size": 3}

MESSAGES: dict[str, dict[str, Any]] = {
    "plain": strategy(crossing(3, 8)),
    "with all that can be said": {
        **strategy(
            [
                price(schema_hash=SCHEMA["price"]),
                sma("fast", 3, tags=["a", "b"], artifacts=["m"]),
                target(source="fast", schema_hash=OLDER),
            ]
        ),
        "meta": {"version": "v1", "release_tag": "spring"},
        "artifacts": [FILE],
    },
    "that asks by tags": strategy([price(), tag_query(tags=("b", "c")), target(source="asked")]),
    "with content twice": strategy([price(), sma("one", 3), sma("two", 3), target(source="two")]),
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(T0)
    yield made
    made.close()


def publish(desk: Desk, message: dict[str, Any]) -> VersionSentinel:
    data = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    desk.send(DagSubmission("first", "w1", data, T0, execution_domain="live"))
    outcome = desk.table("dag.diffs").get("first")
    assert outcome.accepted, outcome.detail
    desk.report_all()
    found: VersionSentinel = desk.table("dag.sentinels").get(outcome.sentinel_id)
    return found


def redo(desk: Desk, version: VersionSentinel, label: str) -> DagOutcome:
    desk.send(RedoDiff(f"as-{label}", version.sentinel_id, label, T0))
    assert desk.table("dag.outcomes").get(f"as-{label}").accepted
    found: DagOutcome = desk.table("dag.diffs").get(f"as-{label}")
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_a_version_done_anew_under_its_own_name_is_the_same_version(desk: Desk, name: str) -> None:
    version = publish(desk, MESSAGES[name])
    nodes, files = desk.rows("dag.nodes"), desk.rows("dag.artifacts")
    outcome = redo(desk, version, "v1")
    assert (outcome.sentinel_id, outcome.new_nodes, outcome.buffering_nodes) == (version.sentinel_id, (), ())
    assert desk.table("dag.sentinels").get(version.sentinel_id) == version
    assert (desk.rows("dag.nodes"), desk.rows("dag.artifacts")) == (nodes, files)


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_written_anew_is_no_longer_than_it_was(desk: Desk, name: str) -> None:
    """So that what was short enough once is so again."""
    version = publish(desk, MESSAGES[name])
    written = message_of(desk._manager._catalogue, version, "v1")
    assert len(written) <= len(json.dumps(MESSAGES[name], ensure_ascii=False, separators=(",", ":")).encode())
    assert parse_message(written).strategy_id == version.strategy_id


def test_a_release_tag_means_the_version_of_which_it_was_said_also_after_it_was_done_anew(desk: Desk) -> None:
    version = publish(desk, MESSAGES["with all that can be said"])
    outcome = redo(desk, version, "v1-hotfix")
    tags = {row.sentinel_id: row.release_tag for row in desk.rows("dag.sentinels")}
    assert tags == {version.sentinel_id: "spring", outcome.sentinel_id: ""}
    desk.send(RollBack("back", "spring", T0))
    assert desk.table("dag.outcomes").get("back").accepted
    assert desk.table("dag.strategies").get("w1", "s1").sentinel_id == version.sentinel_id


def test_what_is_done_anew_has_the_schema_of_the_code_that_does_it(desk: Desk) -> None:
    """Also where what the graph has is one that this code has never heard of."""
    version = publish(desk, MESSAGES["plain"])
    crossed = version.node_ids[version.names.index("cross")]
    for schema in (UNHEARD, SCHEMA["cross"]):
        desk.upgrade({"cross": schema})
        outcome = redo(desk, version, f"v{schema[-1]}")
        assert outcome.buffering_nodes == (crossed,)
        assert desk.table("dag.nodes").get(crossed).schema_hash == schema
