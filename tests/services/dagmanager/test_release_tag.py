"""What people call a release: shown, kept with the version, a way to name it, and no part of what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import CollectGarbage, DagCommandOutcome, RollBack, VersionSentinel
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.prescan import Prescan
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, crossing, strategy, submission, text

NOON_MS = 1_700_000_000_000 // DAY_MS * DAY_MS


def tagged(tag: Any, version: str = "v1", name: str = "s1") -> dict[str, Any]:
    message = strategy(crossing(3, 8), name, version=version)
    message["meta"]["release_tag"] = tag
    return message


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Three versions, the first two of which are retired."""
    made = Desk(tmp_path)
    made.tick(NOON_MS)
    for message in (tagged("spring", "v1"), tagged("summer", "v2"), tagged("v1", "v3")):
        made.send(submission(message))
        made.report_all()
    made.tick(NOON_MS + 1)
    yield made
    made.close()


def version(desk: Desk, label: str) -> VersionSentinel:
    found: VersionSentinel
    (found,) = [row for row in desk.rows("dag.sentinels") if row.version == label]
    return found


def outcome(desk: Desk, name: str) -> DagCommandOutcome:
    found: DagCommandOutcome = desk.table("dag.outcomes").get(name)
    return found


def test_a_release_tag_is_no_part_of_any_id() -> None:
    plain = admit(text(strategy(crossing(3, 8))), T0)
    for memo in (Prescan().admit, admit):
        found = memo(text(tagged("spring")), T0)
        assert (found.nodes, found.commit_hash) == (plain.nodes, plain.commit_hash)
        assert (found.release_tag, plain.release_tag) == ("spring", "")


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 51, 7])
def test_a_release_tag_is_a_name(wrong: Any) -> None:
    with pytest.raises(InvalidDag) as caught:
        admit(text(tagged(wrong)), T0)
    assert [one.path for one in caught.value.reasons] == ["meta.release_tag"]


def test_a_version_keeps_its_tag_until_another_one_is_said(desk: Desk) -> None:
    assert version(desk, "v3").release_tag == "v1"
    without = strategy(crossing(3, 8), version="v3")
    desk.send(submission(without | {"meta": {"version": "v3", "description": "again"}}))
    assert version(desk, "v3").release_tag == "v1"
    desk.send(submission(tagged("autumn", "v3")))
    assert version(desk, "v3").release_tag == "autumn"
    before = desk.memory()
    desk.again()
    assert desk.memory() == before


def test_a_version_is_named_by_its_tag_where_that_means_one(desk: Desk) -> None:
    desk.send(RollBack("c1", "spring", T0))
    assert outcome(desk, "c1").accepted
    assert version(desk, "v1").status.value == "active"
    desk.send(CollectGarbage("c2", "summer", T0))
    assert outcome(desk, "c2").accepted
    desk.send(RollBack("c3", version(desk, "v2").sentinel_id, T0))
    assert version(desk, "v2").status.value == "active"


@pytest.mark.parametrize("command", [RollBack, CollectGarbage])
def test_a_text_that_means_several_is_refused_and_they_are_named(desk: Desk, command: Any) -> None:
    desk.send(command("c1", "v1", T0))
    found = outcome(desk, "c1")
    assert (found.accepted, found.code) == (False, "QMTL-602")
    for label in ("v1", "v3"):
        assert version(desk, label).sentinel_id in found.detail
    desk.send(command("c2", "winter", T0))
    assert not outcome(desk, "c2").accepted
