"""What an index finds is what a look at every row would, and it looks at none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.contracts.dag import ComputeNode, Queue, TopicClass
from qmtl.foundation.wire.registry import MESSAGES
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.services.dagmanager.indexes import INDEXES, KAFKA_TOPIC, QUEUE_INTERVAL, QUEUE_TAGS, Index, Lookup

QUEUE = Queue("q", "n", TopicClass.INDICATOR, 1, 60, 1, 1, 0)
TAGS = ("crypto", "raw", "sma")

ROWS = st.builds(
    lambda topic, tags, kind, interval: replace(
        QUEUE, topic=topic, tags=tuple(sorted(tags)), topic_class=kind, interval=interval
    ),
    st.sampled_from("abcdef"),
    st.frozensets(st.sampled_from(TAGS)),
    st.sampled_from(TopicClass),
    st.sampled_from([60, 3600]),
)
ACTS = st.lists(st.one_of(ROWS, st.sampled_from("abcdef")), max_size=20)


@given(
    ACTS,
    ACTS,
    st.frozensets(st.sampled_from([*TAGS, "indicator"])),
    st.sampled_from([None, 60, 3600, 7]),
    st.sampled_from([None, 1, 3]),
)
def test_a_lookup_finds_what_a_look_at_every_row_would(
    acts: Sequence[Any], more: Sequence[Any], tags: frozenset[str], interval: int | None, limit: int | None
) -> None:
    lookup: Lookup[Queue] = Lookup(KAFKA_TOPIC, QUEUE_TAGS, QUEUE_INTERVAL)
    rows: dict[str, Queue] = {}
    for batch in (acts, more):
        for act in batch:
            if isinstance(act, Queue):
                assert lookup.put(act) == rows.get(act.topic)
                rows[act.topic] = act
            else:
                assert lookup.drop(act) == rows.pop(act, None)
        wanted: list[tuple[Index, Any]] = [(QUEUE_TAGS, tag) for tag in tags]
        if interval is not None:
            wanted.append((QUEUE_INTERVAL, interval))
        found = lookup.matching(wanted)
        expected = [
            rows[topic]
            for topic in sorted(rows)
            if tags <= {*rows[topic].tags, rows[topic].topic_class.value}
            and interval in (None, rows[topic].interval)
        ]
        assert (len(found), lookup.first(found, limit)) == (len(expected), expected[:limit])
        assert (len(lookup), [lookup.get(one) for one in "abcdef"]) == (
            len(rows),
            list(map(rows.get, "abcdef")),
        )


@dataclass
class Shy:
    """A row that counts who looks at it."""

    name: str
    group: int
    looks: int = 0

    def __getattribute__(self, field: str) -> Any:
        if field == "group":
            self.looks += 1
        return super().__getattribute__(field)


def test_to_find_rows_none_is_looked_at() -> None:
    by_group = Index("group", "t", ("group",))
    lookup: Lookup[Shy] = Lookup(Index("name", "t", ("name",), unique=True), by_group)
    rows = [Shy(f"r{at:03}", at % 50) for at in range(500)]
    for one in rows:
        lookup.put(one)
    before = [one.looks for one in rows]
    assert [one.name for one in lookup.first(lookup.matching([(by_group, 7)]), 3)] == ["r007", "r057", "r107"]
    assert lookup.get("r123") is rows[123]
    assert [one.looks for one in rows] == before


def test_every_index_is_of_fields_of_a_table_and_a_unique_one_of_its_key() -> None:
    tables = {spec.name: spec for spec in CATALOGUE}
    assert len({one.name for one in INDEXES}) == len(INDEXES)
    for index in INDEXES:
        spec = tables[index.table]
        (message,) = spec.messages
        assert spec.is_table
        assert message in MESSAGES
        assert set(index.on) <= {one.name for one in fields(message)}
        assert index.unique == (index.on == spec.key)


def test_those_of_the_seed_are_there() -> None:
    assert {one.name for one in INDEXES} >= {
        "compute_pk",
        "kafka_topic",
        "compute_tags",
        "queue_interval",
        "compute_buffering_since",
    }
    node = ComputeNode("n", "sma", 60, 3, "c", "s", "{}", (), tags=("a", "b"))
    by_name = {one.name: one for one in INDEXES}
    assert by_name["compute_tags"].values(node) == ("a", "b")
    assert by_name["compute_buffering_since"].values(node) == ()
    assert by_name["compute_buffering_since"].values(replace(node, buffering_since_ms=0)) == (0,)
    assert by_name["queue_tags"].values(replace(QUEUE, tags=("a", "indicator"))) == ("a", "indicator")
