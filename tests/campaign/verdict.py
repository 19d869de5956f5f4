"""Reads the topics of a trial with a plain client and holds them to the oracle: nothing lost, doubled, torn or out of order."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Place

from tests.campaign import plain
from tests.campaign.oracle import Loop, Put, Rows, Sums

OUTPUTS: Final = ("c.sums", "c.open", "c.echo", "c.state", "c.mirror", "c.late", "c.after", "dead.letters")
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "sums": ("c.sums", "c.open"),
    "late": ("c.state", "c.mirror"),
    "after": ("c.after",),
}
"""The tables of each stage; its group is `qmtl.` and its name."""

INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "sums": ("c.items",),
    "late": ("c.bars", "c.after"),
    "after": ("c.state",),
}
"""What each stage reads that is not its own."""

COMMITS: Final = "__consumer_offsets"
"""Where the broker writes committed positions; test brokers give it one partition."""

ANYWHERE: Final = -1
"""The lane of a finding that lies in no partition."""

OPEN_TRANSACTION_S: Final = 40.0

Where = tuple[str, int]
Positions = dict[Where, int]
Commits = dict[str, dict[Where, list[int]]]
"""By stage and partition every committed position, in order."""


class Input(Protocol):
    """What was put in, and what must come out."""

    sums: Sums
    loop: Loop
    items: dict[int, list[Put]]
    buckets: list[int]


class Line(NamedTuple):
    """One committed record."""

    offset: int
    key: bytes
    value: bytes | None


Lines = dict[Where, list[Line]]


def reader(bootstrap: str, *, committed: bool = True, group: str = "campaign.verdict") -> Any:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
    )


def places(namespace: str, topics: Iterable[str], partitions: int) -> list[Any]:
    return [
        Place(namespace + name, number, 0)
        for name in topics
        for number in range(1 if name == "dead.letters" else partitions)
    ]


class Watcher(threading.Thread):
    """Reads along while the trial runs, as any other reader of committed records would.

    Attributes:
        lines: what it has seen so far.
        moved_at: when it last saw anything, by the monotonic clock.
        longest_gap_s: the longest time in which nothing new came while `pending` was set.
    """

    def __init__(self, bootstrap: str, namespace: str, partitions: int) -> None:
        super().__init__(name="watcher", daemon=True)
        self._namespace = namespace
        self._consumer = reader(bootstrap)
        self._consumer.assign(places(namespace, OUTPUTS, partitions))
        self.lines: Lines = {
            (one.topic[len(namespace) :], one.partition): [] for one in places(namespace, OUTPUTS, partitions)
        }
        self.moved_at = time.monotonic()
        self.longest_gap_s = 0.0
        self.pending = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            for message in self._consumer.consume(500, 0.05):
                if message.error() is None:
                    where = (message.topic()[len(self._namespace) :], message.partition())
                    self.lines[where].append(Line(message.offset(), message.key() or b"", message.value()))
                    self._moved()
            if not self.pending.is_set():
                self.moved_at = time.monotonic()
        self._consumer.close()

    def _moved(self) -> None:
        now = time.monotonic()
        if self.pending.is_set():
            self.longest_gap_s = max(self.longest_gap_s, now - self.moved_at)
        self.moved_at = now

    def count(self, topic: str) -> int:
        """Different keys of an event topic."""
        return len(
            {one.key for (name, _), lines in self.lines.items() if name == topic for one in list(lines)}
        )

    def stop(self) -> None:
        self._over.set()
        self.join()


def _end_of(looker: Consumer, place: Place) -> int:
    """Where a partition ends, from its leader, which may just have changed."""
    deadline = time.monotonic() + OPEN_TRANSACTION_S
    while True:
        try:
            found: int = looker.get_watermark_offsets(place, timeout=10)[1]
            return found
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def read_everything(
    bootstrap: str, namespace: str, topics: Sequence[str], partitions: int
) -> tuple[Lines, list[Where]]:
    """Every committed record of the topics up to their high watermarks, and where somebody's transaction stays open."""
    asked = places(namespace, topics, partitions)
    looker, consumer = reader(bootstrap, committed=False), reader(bootstrap)
    lines: Lines = {(one.topic[len(namespace) :], one.partition): [] for one in asked}
    try:
        ends = {(one.topic, one.partition): _end_of(looker, one) for one in asked}
        at = dict.fromkeys(ends, 0)
        consumer.assign(asked)
        deadline = time.monotonic() + OPEN_TRANSACTION_S
        while any(at[where] < ends[where] for where in ends):
            if time.monotonic() > deadline:
                break
            for message in consumer.consume(1000, 0.1):
                where = (message.topic(), message.partition())
                error = message.error()
                if error is None:
                    line = Line(message.offset(), message.key() or b"", message.value())
                    lines[where[0][len(namespace) :], where[1]].append(line)
                    at[where] = message.offset() + 1
                elif error.name() == "_PARTITION_EOF":
                    at[where] = max(at[where], message.offset())
    finally:
        looker.close()
        consumer.close()
    hidden = [
        (topic[len(namespace) :], number) for topic, number in ends if at[topic, number] < ends[topic, number]
    ]
    return lines, hidden


def end_of_commits(bootstrap: str) -> int:
    """Where the next committed position will be written to."""
    looker = reader(bootstrap, committed=False)
    try:
        found: int = looker.get_watermark_offsets(Place(COMMITS, 0), timeout=10)[1]
    except KafkaException:
        found = 0  # the topic comes with the first group
    finally:
        looker.close()
    return found


def read_commits(bootstrap: str, namespace: str, since: int) -> Commits | str:
    """Every position that the groups of a namespace have committed, in order; a text where that can't be read."""
    end = end_of_commits(bootstrap)
    consumer = reader(bootstrap)
    out: Commits = {stage: {} for stage in GROUPS}
    stages = {f"{namespace}qmtl.{stage}": stage for stage in GROUPS}
    try:
        consumer.assign([Place(COMMITS, 0, since)])
        at, deadline = since, time.monotonic() + OPEN_TRANSACTION_S
        while at < end:
            if time.monotonic() > deadline:
                return f"an open transaction hides committed positions behind {at} of {end}"
            for message in consumer.consume(1000, 0.1):
                error = message.error()
                if error is not None:
                    at = max(at, message.offset()) if error.name() == "_PARTITION_EOF" else at
                    continue
                at = message.offset() + 1
                found = plain.committed_position(message.key() or b"", message.value())
                if found is not None and found[0] in stages:
                    group, topic, partition, offset = found
                    mine = out[stages[group]].setdefault((topic[len(namespace) :], partition), [])
                    mine.append(offset)
    finally:
        consumer.close()
    return out


@dataclass(slots=True)
class Verdict:
    """What is wrong; nothing counted is good.

    Kinds: lost, doubled, alien, misordered answers; torn, transactions of which a reader sees a part (tables that are no prefix
    at a stamp, stamps that differ, or an open transaction that hides the rest); tables, positions, markers; unstable, what a
    reader saw and is gone; input, which is nobody's fault but the feed's.

    Attributes:
        by_lane: how often each kind, by the partition it is in: a task reads and writes only its own. `ANYWHERE` has no partition.
        notes: the first few of what was found, in words.
    """

    by_lane: dict[int, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, lane: int, count: int = 1) -> None:
        self.by_lane.setdefault(lane, Counter())[kind] += count

    def wrong(self) -> dict[str, int]:
        """How often each kind was found."""
        return dict(sum(self.by_lane.values(), Counter()))

    def note(self, text: str) -> None:
        if len(self.notes) < 12:
            self.notes.append(text[:300])


def judge(
    bootstrap: str, namespace: str, feed: Input, watched: Lines, partitions: int, since: int
) -> Verdict:
    """The verdict over a trial that has come to rest; `since` is where `end_of_commits` was before it."""
    lines, hidden = read_everything(bootstrap, namespace, [*OUTPUTS, "c.items", "c.bars"], partitions)
    commits = read_commits(bootstrap, namespace, since)
    out = judge_lines(lines, {} if isinstance(commits, str) else commits, feed, watched, partitions)
    for topic, number in hidden:
        out.add("torn", number)
        out.notes.insert(0, f"an open transaction hides records of {topic}[{number}]")
    if isinstance(commits, str):
        out.add("positions", ANYWHERE)
        out.notes.insert(0, commits)
    return out


def judge_lines(
    lines: Lines,
    commits: Commits,
    feed: Input,
    watched: Lines,
    partitions: int,
) -> Verdict:
    """The verdict over what lies in the topics.

    Args:
        commits: every position that the group of a stage has committed, in order; empty where that is not known.
        watched: what a reader saw along the way.
    """
    out = Verdict()
    _input(out, lines, feed)
    if out.by_lane:
        return out
    _events(out, lines, "c.echo", feed.sums.answers, ("seq", "total", "open"), partitions)
    seen = ("bucket_ms", "seq", "state", "before", "other")
    _events(out, lines, "c.late", feed.loop.answers, seen, partitions)
    for line in lines["dead.letters", 0]:
        out.add("alien", ANYWHERE)
        out.note(f"dead letter: {plain.decode(line.value or b'')[1]}")
    for partition in range(partitions):
        _prefixes_of_sums(out, lines, feed, partition)
        _prefixes_of_loop(out, lines, feed, partition, partitions)
        _markers(out, lines, feed, partition, partitions)
        _positions(out, commits, lines, partition)
    for where, before in watched.items():
        if before != lines[where][: len(before)]:
            out.add("unstable", where[1])
            out.note(f"{where}: a reader saw during the trial what is not there after it")
    return out


def _input(out: Verdict, lines: Lines, feed: Input) -> None:
    for partition, puts in feed.items.items():
        found = [plain.decode(line.value or b"")[1] for line in lines["c.items", partition]]
        if found != [one._asdict() for one in puts]:
            out.add("input", partition)
            out.note(f"c.items[{partition}] is not what the feed believes to have written")


def _events(
    out: Verdict,
    lines: Lines,
    topic: str,
    wanted: Mapping[str, Sequence[tuple[int, ...]]],
    fields: Sequence[str],
    partitions: int,
) -> None:
    found: dict[str, list[tuple[int, ...]]] = {}
    for (name, _), mine in sorted(lines.items()):
        for line in mine if name == topic else ():
            row = plain.decode(line.value or b"")[1]
            found.setdefault(row["name"], []).append(tuple(row[one] for one in fields))
    for name in sorted({*wanted, *found}):
        want, have = Counter(wanted.get(name, ())), Counter(found.get(name, ()))
        lost, more = want - have, have - want
        doubled = {row: count for row, count in more.items() if row in want}
        alien = {row: count for row, count in more.items() if row not in want}
        lane = plain.partition_of(name, partitions)
        for kind, rows in (("lost", lost), ("doubled", doubled), ("alien", alien)):
            if rows:
                out.add(kind, lane, sum(rows.values()))
                out.note(f"{topic} {name} {kind}: {sorted(rows)[:3]}")
        if not (lost or more) and list(wanted[name]) != found[name]:
            out.add("misordered", lane)
            out.note(f"{topic} {name}: another order")


def _stamps(lines: Lines, table: str, partition: int) -> list[bytes]:
    """The stamps of a table partition, in order."""
    return [
        line.value for line in lines[table, partition] if plain.is_stamp(line.key) and line.value is not None
    ]


def _is_chained(first: Sequence[bytes], other: Sequence[bytes], name: str) -> bool:
    """Whether each stamp of the first table says with what the other table ended then: with the same stamp, or with one before."""
    left, end = list(other), None
    for stamp in first:
        said = {one["table"]: one["digest"] for one in plain.decode(stamp)[1]["tables"]}
        if said[name] == "":
            if not left or left.pop(0) != stamp:
                return False
            end = stamp
        elif end is None or said[name] != plain.short_digest(end):
            return False
    return not left


def _folds(lines: Sequence[Line]) -> Iterable[tuple[dict[str, Any], Rows]]:
    """Each stamp of a table partition with the table as it is there; the last one stands for the end."""
    rows: Rows = {}
    by_key: dict[bytes, str] = {}
    stamped = True
    for line in lines:
        if plain.is_marker(line.key):
            continue
        if plain.is_stamp(line.key):
            stamped = True
            yield plain.decode(line.value or b"")[1], dict(rows)
        elif line.value is None:
            rows.pop(by_key.get(line.key, ""), None)
            stamped = False
        else:
            row = plain.decode(line.value)[1]
            by_key[line.key] = row["name"]
            rows[row["name"]] = (row["amount"], row["seq"])
            stamped = False
    if not stamped:
        yield {}, rows


def _prefixes_of_sums(out: Verdict, lines: Lines, feed: Input, partition: int) -> None:
    offsets = [line.offset for line in lines["c.items", partition]]
    end: dict[str, Rows] = {}
    for topic, part in (("c.sums", "totals"), ("c.open", "open")):
        model, taken = Sums(), 0
        for stamp, rows in _folds(lines[topic, partition]):
            end[topic] = rows
            at = [one["offset"] for one in stamp.get("positions", ()) if one["topic"] == "c.items"]
            if not at or (taken and at[0] <= offsets[taken - 1]):
                out.add("torn", partition)
                out.note(f"{topic}[{partition}]: rows without a stamp, or one that goes back: {stamp}")
                continue
            while taken < len(offsets) and offsets[taken] < at[0]:
                model.take(feed.items[partition][taken])
                taken += 1
            if rows != getattr(model, part):
                out.add("torn", partition)
                out.note(f"{topic}[{partition}] at {at[0]}: {_difference(rows, getattr(model, part))}")
        whole = Sums()
        for item in feed.items[partition]:
            whole.take(item)
        if end.get(topic, {}) != getattr(whole, part):
            out.add("tables", partition)
            out.note(
                f"{topic}[{partition}] in the end: {_difference(end.get(topic, {}), getattr(whole, part))}"
            )


def _prefixes_of_loop(out: Verdict, lines: Lines, feed: Input, partition: int, partitions: int) -> None:
    for topic, model in (
        ("c.state", feed.loop.state),
        ("c.mirror", feed.loop.mirror),
        ("c.after", feed.loop.after),
    ):
        last: Rows = {}
        before = -1
        for stamp, rows in _folds(lines[topic, partition]):
            last = rows
            bucket_ms = stamp["buckets"][-1] if stamp.get("buckets") else 0
            wanted = _mine(model[bucket_ms], partition, partitions) if bucket_ms in model else None
            if rows != wanted or not stamp or bucket_ms < before:
                out.add("torn", partition)
                out.note(f"{topic}[{partition}] at bucket {bucket_ms}: {_difference(rows, wanted or {})}")
            before = max(before, bucket_ms)
        wanted = _mine(model[feed.loop.last], partition, partitions)
        if last != wanted:
            out.add("tables", partition)
            out.note(f"{topic}[{partition}] in the end: {_difference(last, wanted)}")


def _mine(rows: Rows, partition: int, partitions: int) -> Rows:
    return {name: row for name, row in rows.items() if plain.partition_of(name, partitions) == partition}


def _difference(found: Rows, wanted: Rows) -> str:
    names = sorted({*found, *wanted})
    return ", ".join(
        f"{name} is {found.get(name)}, wanted {wanted.get(name)}"
        for name in names
        if found.get(name) != wanted.get(name)
    )


def _markers(out: Verdict, lines: Lines, feed: Input, partition: int, partitions: int) -> None:
    for topic in ("c.state", "c.after"):
        markers = [
            plain.decode(line.value)[1]
            for line in lines[topic, partition]
            if plain.is_marker(line.key) and line.value is not None
        ]
        found = [(one["bucket_ms"], one["task"], one["tasks"]) for one in markers]
        wanted = [(bucket_ms, partition, partitions) for bucket_ms in (0, *feed.buckets)]
        if found != wanted:
            out.add("markers", partition)
            out.note(f"{topic}[{partition}]: {len(found)} markers, wanted {len(wanted)}: {found[-3:]}")


def _once(found: Sequence[int], have: Sequence[int]) -> list[int]:
    """Commits without those that only repeat the one before them.

    A client whose answer was lost sends the positions of its transaction again, and the broker writes them again: it has no sequence
    numbers for them (`test_positions_whose_answer_is_lost_are_written_twice_in_their_transaction`).
    """
    out: list[int] = []
    for offset in found:
        if not (out and out[-1] == offset and list(have[len(out) : len(out) + 1]) != [offset]):
            out.append(offset)
    return out


def _positions(out: Verdict, commits: Commits, lines: Lines, partition: int) -> None:
    """Each transaction commits the positions that its stamp says; stamps of its tables are of the same ones; in the end all was read."""
    for stage, tables in GROUPS.items():
        first, *others = ((name, _stamps(lines, name, partition)) for name in tables)
        if not all(_is_chained(first[1], stamps, name) for name, stamps in others):
            out.add("torn", partition)
            out.note(f"{tables} [{partition}]: their stamps are not of the same transactions")
        stamped: dict[Where, list[int]] = {}
        for stamp in (plain.decode(one)[1] for one in first[1]):
            for one in stamp["positions"]:
                stamped.setdefault((one["topic"], one["partition"]), []).append(one["offset"])
        for where in sorted(INPUTS[stage]):
            have = stamped.get((where, partition), [])
            found = _once(commits[stage].get((where, partition), []), have) if commits else have
            if have != found:
                out.add("positions", partition)
                at = next((n for n, (a, b) in enumerate(zip(have, found, strict=False)) if a != b), -1)
                some = (
                    f"{have[at : at + 3]} in the tables, {found[at : at + 3]} in the group, from commit {at}"
                )
                out.note(f"{stage}[{partition}] {where}: {len(have)} stamps, {len(found)} commits: {some}")
            read = lines[where, partition]
            if not have or (read and have[-1] <= read[-1].offset and where in ("c.items", "c.bars")):
                out.add("positions", partition)
                out.note(f"{stage}[{partition}]: {where} was read up to {have[-1:]} only")
