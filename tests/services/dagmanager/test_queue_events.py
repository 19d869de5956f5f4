"""What is told of queues: exactly the fields that the seed gives, and an etag that no other set of queues ever has."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.dag import ComputeNode, Queue, TagSet, TopicClass, VersionSentinel
from qmtl.interfaces.queue_watch import changes_in
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.queues import queue_updated
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import price, sma, strategy, submission, target

SAMPLE = {
    "type": "QueueUpdated",
    "tags": ["BTC", "price"],
    "interval": 60,
    "queues": ["q1", "q2"],
    "etag": "q:BTC.price:60:77",
    "ts": "2025-08-28T09:00:00Z",
}
"""Of seed 003, part 3-B."""

TAGS = ["BTC", "b.x", "price"]


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


# ---- tags ------------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(*[st.permutations(["price", "BTC", "b.x", "BTC"])] * 3)
def test_tags_are_a_set_in_whatever_order_an_author_has_them(
    one: list[str], other: list[str], third: list[str]
) -> None:
    """What is sorted gives the same nodes, topics and events as before; in another order it gives these too."""
    nodes = [price(tags=one), sma("fast", 3, tags=other), sma("slow", 5, tags=third), target(source="fast")]
    plain = [price(tags=TAGS), sma("fast", 3, tags=TAGS), sma("slow", 5, tags=TAGS), target(source="fast")]
    found = []
    for said in (nodes, plain):
        with TemporaryDirectory() as folder:
            desk = Desk(Path(folder))
            desk.send(replace(submission(strategy(said)), submission_id="one"))
            desk.report_all()
            found.append((desk.rows("dag.nodes"), desk.rows("dag.queues"), desk.told("queue")))
            desk.close()
    assert found[0] == found[1]
    (event,) = found[0][2]
    assert (event.tags, len(event.queues)) == (tuple(TAGS), 3)


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
