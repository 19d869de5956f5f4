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


def read_everything(bootstrap: str, namespace: str, topics: Sequence[str], partitions: int) -> Lines | str:
    """Every committed record of the topics up to their high watermarks; a text where somebody's transaction stays open."""
    asked = places(namespace, topics, partitions)
    looker, consumer = reader(bootstrap, committed=False), reader(bootstrap)
    lines: Lines = {(one.topic[len(namespace) :], one.partition): [] for one in asked}
    try:
        ends = {(one.topic, one.partition): looker.get_watermark_offsets(one, timeout=10)[1] for one in asked}
        at = dict.fromkeys(ends, 0)
        consumer.assign(asked)
        deadline = time.monotonic() + OPEN_TRANSACTION_S
        while any(at[where] < ends[where] for where in ends):
            if time.monotonic() > deadline:
                return f"an open transaction hides records: {[w for w in ends if at[w] < ends[w]]}"
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
    return lines


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
    """What is wrong, by kind; all zero and empty is good.

    Attributes:
        torn: transactions of which a reader sees a part: tables that are no prefix at a stamp, stamps that differ.
        notes: the first few of what was found, in words.
    """

    lost: int = 0
    doubled: int = 0
    torn: int = 0
    alien: int = 0
    misordered: int = 0
    tables: int = 0
    positions: int = 0
    markers: int = 0
    unstable: int = 0
    input: int = 0
    notes: list[str] = field(default_factory=list)

    def wrong(self) -> dict[str, int]:
        names = (name for name in self.__slots__ if name != "notes")
        return {name: value for name in names if (value := getattr(self, name))}

    def note(self, text: str) -> None:
        if len(self.notes) < 12:
            self.notes.append(text[:300])


def judge(
    bootstrap: str, namespace: str, feed: Input, watched: Lines, partitions: int, since: int
) -> Verdict:
    """The verdict over a trial that has come to rest; `since` is where `end_of_commits` was before it."""
    lines = read_everything(bootstrap, namespace, [*OUTPUTS, "c.items", "c.bars"], partitions)
    if isinstance(lines, str):
        return Verdict(torn=1, notes=[lines])

    commits = read_commits(bootstrap, namespace, since)
    if isinstance(commits, str):
        return Verdict(torn=1, notes=[commits])
    return judge_lines(lines, commits, feed, watched, partitions)


def judge_lines(
    lines: Lines,
    commits: Commits,
    feed: Input,
    watched: Lines,
    partitions: int,
) -> Verdict:
    """The verdict over what lies in the topics.

    Args:
        commits: every position that the group of a stage has committed, in order.
        watched: what a reader saw along the way.
    """
    out = Verdict()
    _input(out, lines, feed)
    if out.input:
        return out
    _events(out, lines, "c.echo", feed.sums.answers, ("seq", "total", "open"))
    _events(out, lines, "c.late", feed.loop.answers, ("bucket_ms", "seq", "state", "before", "other"))
    for line in lines["dead.letters", 0]:
        out.alien += 1
        out.note(f"dead letter: {plain.decode(line.value or b'')[1]}")
    for partition in range(partitions):
        _prefixes_of_sums(out, lines, feed, partition)
        _prefixes_of_loop(out, lines, feed, partition, partitions)
        _markers(out, lines, feed, partition, partitions)
        _positions(out, commits, lines, partition)
    for where, seen in watched.items():
        if seen != lines[where][: len(seen)]:
            out.unstable += 1
            out.note(f"{where}: a reader saw during the trial what is not there after it")
    return out


def _input(out: Verdict, lines: Lines, feed: Input) -> None:
    for partition, puts in feed.items.items():
        found = [plain.decode(line.value or b"")[1] for line in lines["c.items", partition]]
        if found != [one._asdict() for one in puts]:
            out.input += 1
            out.note(f"c.items[{partition}] is not what the feed believes to have written")


def _events(
    out: Verdict,
    lines: Lines,
    topic: str,
    wanted: Mapping[str, Sequence[tuple[int, ...]]],
    fields: Sequence[str],
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
        out.lost += sum(lost.values())
        out.doubled += sum(doubled.values())
        out.alien += sum(alien.values())
        for kind, rows in (("lost", lost), ("doubled", doubled), ("alien", alien)):
            if rows:
                out.note(f"{topic} {name} {kind}: {sorted(rows)[:3]}")
        if not (lost or more) and list(wanted[name]) != found[name]:
            out.misordered += 1
            out.note(f"{topic} {name}: another order")


def _stamps(lines: Lines, tables: Sequence[str], partition: int) -> list[list[dict[str, Any]]]:
    """The stamps of each table partition, in order."""
    return [
        [
            plain.decode(line.value)[1]
            for line in lines[name, partition]
            if plain.is_stamp(line.key) and line.value is not None
        ]
        for name in tables
    ]


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
                out.torn += 1
                out.note(f"{topic}[{partition}]: rows without a stamp, or one that goes back: {stamp}")
                continue
            while taken < len(offsets) and offsets[taken] < at[0]:
                model.take(feed.items[partition][taken])
                taken += 1
            if rows != getattr(model, part):
                out.torn += 1
                out.note(f"{topic}[{partition}] at {at[0]}: {_difference(rows, getattr(model, part))}")
        whole = Sums()
        for item in feed.items[partition]:
            whole.take(item)
        if end.get(topic, {}) != getattr(whole, part):
            out.tables += 1
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
                out.torn += 1
                out.note(f"{topic}[{partition}] at bucket {bucket_ms}: {_difference(rows, wanted or {})}")
            before = max(before, bucket_ms)
        wanted = _mine(model[feed.loop.last], partition, partitions)
        if last != wanted:
            out.tables += 1
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
            out.markers += 1
            out.note(f"{topic}[{partition}]: {len(found)} markers, wanted {len(wanted)}: {found[-3:]}")


def _positions(out: Verdict, commits: Commits, lines: Lines, partition: int) -> None:
    """Each transaction commits the positions that its stamp says; stamps of its tables agree; in the end all was read."""
    for stage, tables in GROUPS.items():
        first, *others = _stamps(lines, tables, partition)
        if any(one != first for one in others):
            out.torn += 1
            out.note(f"{tables} [{partition}]: their stamps are not the same")
        stamped: dict[Where, list[int]] = {}
        for stamp in first:
            for one in stamp["positions"]:
                stamped.setdefault((one["topic"], one["partition"]), []).append(one["offset"])
        for where in sorted(INPUTS[stage]):
            have, found = stamped.get((where, partition), []), commits[stage].get((where, partition), [])
            if have != found:
                out.positions += 1
                at = next((n for n, (a, b) in enumerate(zip(have, found, strict=False)) if a != b), -1)
                some = (
                    f"{have[at : at + 3]} in the tables, {found[at : at + 3]} in the group, from commit {at}"
                )
                out.note(f"{stage}[{partition}] {where}: {len(have)} stamps, {len(found)} commits: {some}")
            read = lines[where, partition]
            if not have or (read and have[-1] <= read[-1].offset and where in ("c.items", "c.bars")):
                out.positions += 1
                out.note(f"{stage}[{partition}]: {where} was read up to {have[-1:]} only")
