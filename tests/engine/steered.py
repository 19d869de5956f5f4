"""A processor whose inputs come and go, and a world of two sources around it on a log in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.embedded_topics import position_key
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import put
from tests.engine.driving import Bench, closed, messages
from tests.engine.models import minute
from tests.engine.toys import A_MIRROR, A_OUT, CODEC, SIDE, Feed, Item, Seen, Total, Toy, X, Y, make_topics


class Steered(Toy):
    """Which of its inputs are read is what the last item of `toy.side` says: `x`, `y`, both or none."""

    name = "steered"
    anchor = SIDE.name
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def __init__(self) -> None:
        self._read: tuple[str, ...] = ()

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name), *(Input(f"toy.{name}", bucketed=True) for name in self._read))

    def closes(self) -> tuple[TopicSpec, ...]:
        return (A_OUT,)

    def restore(self, tables: Mapping[str, object]) -> None:
        mirror = tables[A_MIRROR.name]
        self._read = tuple(sorted(row.name for row in mirror.items()))  # type: ignore[attr-defined] # it is a table

    def on_record(self, step: Step, arrival: Arrival) -> None:
        mirror = step.table(A_MIRROR.name)
        for name in ("x", "y"):
            mirror.delete(name)
        for name in arrival.message.name:
            mirror.put(Total(name, 1))
        self._read = tuple(sorted(arrival.message.name))

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        for topic in sorted(bucket.arrivals):
            for arrival in bucket.arrivals[topic]:
                step.emit(
                    A_OUT.name, Seen(bucket.bucket_ms, topic, arrival.message.seq, arrival.message.amount)
                )


class TwoSources:
    """Sources x and y, of which the side topic says which ones are read."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.log = log
        make_topics(log)
        self.feeds = {"x": Feed(log, X), "y": Feed(log, Y)}

    def read(self, names: str, number: int) -> None:
        """Say which sources are read from now on."""
        item = Item(names, number, 1)
        spot = TopicPartition(SIDE.name, 0)
        put(self.log, [(spot, encode_key(SIDE.key_of(item)), CODEC.encode(item))], writer="side")

    def give(self, names: str, *numbers: int) -> None:
        """A bucket with one item, of each of these numbers, in these sources."""
        for number in numbers:
            for name in names:
                self.feeds[name].bucket(minute(number), {0: [Item("n", number, 1)]})

    def reach(self, runs: Bench, names: str, number: int) -> None:
        self.give(names, number)
        runs.settle()
        assert closed(self.log, A_OUT.name)[-1:] == [minute(number)]

    def seen(self) -> list[tuple[str, int]]:
        """What came out: of which source, of which bucket."""
        return [(one.name.removeprefix("toy."), one.seq) for one in messages(self.log, A_OUT.name)]

    def change(self, topic: str, **facts: object) -> None:
        """Make the log say something else of a topic."""
        row = json.loads(self.log._db.get(b"t" + topic.encode()))
        self.log._db.put(b"t" + topic.encode(), json.dumps({**row, **facts}).encode())
        self.log._load_catalogue()

    def make_anew(self, topic: str) -> None:
        """Delete a topic and make it again, as Kafka does: another id, no records, no positions of any group."""
        row = json.loads(self.log._db.get(b"t" + topic.encode()))
        for number in range(row["partitions"]):
            self.forget(topic, number)
        self.change(topic, id=f"{row['id']}-again", number=row["number"] + 1000)
        self.feeds[topic.removeprefix("toy.")] = Feed(self.log, {X.name: X, Y.name: Y}[topic])

    def forget(self, topic: str, number: int = 0) -> None:
        """Take away what the group has committed of a partition."""
        self.log._db.delete(position_key("qmtl.steered", TopicPartition(topic, number)))
