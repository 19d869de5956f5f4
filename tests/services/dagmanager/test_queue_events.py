"""What is told of queues: exactly the fields that the seed gives, and an etag that no other set of queues ever has."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.dag import ComputeNode, Queue, TagSet, TopicClass, VersionSentinel
from qmtl.interfaces.queue_watch import changes_in
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.queues import queue_updated
from tests.services.dagmanager.desk import Desk

SAMPLE = {
    "type": "QueueUpdated",
    "tags": ["BTC", "price"],
    "interval": 60,
    "queues": ["q1", "q2"],
    "etag": "q:BTC.price:60:77",
    "ts": "2025-08-28T09:00:00Z",
}
"""Of seed 003, part 3-B."""


def test_an_event_is_that_of_the_seed_to_the_last_field(tmp_path: Path) -> None:
    desk, tags = Desk(tmp_path), ("BTC", "price")
    for name in ("q1", "q2"):
        desk.table("dag.nodes").put(ComputeNode(f"of {name}", "sma", 60, 2, "c", "s", "{}", (), tags))
        queue = Queue(name, f"of {name}", TopicClass.INDICATOR, 1, 60, 0, 0, 0, tags, ready=True)
        desk.table("dag.queues").put(queue)
    version = VersionSentinel("w1:s1:v1:x", "v1", "x", 0, "w1", "s1", ("of q1", "of q2"))
    desk.table("dag.sentinels").put(version)
    desk.table("dag.tags").put(TagSet(tags, 60, 77, 1_756_371_600_000, told=76))
    desk.again()
    desk.tick(1_756_371_660_000)
    (event,) = desk.told("queue")
    assert json.dumps(asdict(event)) == json.dumps(SAMPLE)
    desk.close()


# ---- etags -----------------------------------------------------------------------------------------------------------

tags = st.text("ab.:%2E", min_size=1, max_size=4)
sets = st.builds(
    TagSet,
    st.lists(tags, min_size=1, max_size=3).map(tuple),
    st.integers(1, 12),
    st.integers(1, 12),
    st.just(0),
)


def etag(row: TagSet) -> str:
    return queue_updated(Catalogue({}), row).etag


@settings(max_examples=60)
@given(st.lists(sets, min_size=1, max_size=12, unique=True))
@example([TagSet(("a.b",), 60, 1, 0), TagSet(("a", "b"), 60, 1, 0), TagSet(("a%2Eb",), 60, 1, 0)])
@example([TagSet(("a", "b:60"), 1, 1, 0), TagSet(("a", "b"), 60, 1, 0), TagSet(("a", "b"), 60, 11, 0)])
def test_two_sets_or_two_counts_never_share_an_etag(rows: list[TagSet]) -> None:
    assert len(set(map(etag, rows))) == len(rows)
    for row in rows:
        assert changes_in(queue_updated(Catalogue({}), row)) == row.changes


@settings(max_examples=60)
@given(sets)
def test_where_no_tag_has_a_point_the_tags_stand_there_as_they_are(row: TagSet) -> None:
    is_plain = not any(char in tag for tag in row.tags for char in ".:%")
    assert (etag(row) == f"q:{'.'.join(row.tags)}:{row.interval}:{row.changes}") is is_plain
