"""The checker is checked: a right history has no finding, and each thing that is done to it has its own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.keys import encode_key, marker_key, partition_for
from tests.campaign import plain
from tests.campaign.histories import BUCKETS, PARTITIONS, History
from tests.campaign.oracle import Put
from tests.campaign.pipeline import CODEC, Echo, Item, Row, Seen
from tests.campaign.verdict import Line, Verdict, judge_lines

Harm = Callable[[History], object]


def verdict(history: History, watched: bool = False) -> Verdict:
    seen = {where: list(lines) for where, lines in history.lines.items()} if watched else {}
    return judge_lines(history.lines, history.commits, history, seen, PARTITIONS)


def index(history: History, topic: str, kind: str, nth: int = 0) -> int:
    """Where the nth record of a kind lies: `row`, `gone`, `stamp`, `marker`."""
    kinds = {"stamp": plain.is_stamp, "marker": plain.is_marker}
    found = [
        at
        for at, line in enumerate(history.lines[topic, 0])
        if (
            kinds[kind](line.key)
            if kind in kinds
            else line.key[:1] != b"\x00" and (line.value is None) == (kind == "gone")
        )
    ]
    return found[nth]


def without(topic: str, kind: str, nth: int = 0) -> Harm:
    return lambda history: history.lines[topic, 0].pop(index(history, topic, kind, nth))


def twice(topic: str, kind: str, nth: int = 0) -> Harm:
    def harm(history: History) -> None:
        at = index(history, topic, kind, nth)
        history.lines[topic, 0].insert(at, history.lines[topic, 0][at])

    return harm


def swapped(history: History) -> None:
    """Two answers of one name change places."""
    lines = history.lines["c.echo", 0]
    names = [plain.decode(line.value or b"")[1]["name"] for line in lines]
    first = 0
    second = next(at for at in range(1, len(names)) if names[at] == names[first])
    lines[first], lines[second] = lines[second], lines[first]


def changed(topic: str, kind: str, field: str, nth: int = 0) -> Harm:
    """A field of a record is one more than it should be."""

    def harm(history: History) -> None:
        at = index(history, topic, kind, nth)
        line = history.lines[topic, 0][at]
        name, fields = plain.decode(line.value or b"")
        value = plain.encode(name, {**fields, field: fields[field] + 1})
        history.lines[topic, 0][at] = Line(line.offset, line.key, value)

    return harm


def other_end(history: History) -> None:
    """The first stamp that says with which earlier one the other table ends says another one."""
    lines = history.lines["c.sums", 0]
    for at, line in enumerate(lines):
        if plain.is_stamp(line.key):
            name, fields = plain.decode(line.value or b"")
            if any(one["digest"] for one in fields["tables"]):
                said = [{**one, "digest": one["digest"] and "0" * 16} for one in fields["tables"]]
                lines[at] = Line(line.offset, line.key, plain.encode(name, {**fields, "tables": said}))
                return
    raise AssertionError("every stamp ends both tables")


def group_back(history: History) -> None:
    history.commits["sums"]["c.items", 0][-1] -= 1


def group_back_for_a_while(history: History) -> None:
    history.commits["late"]["c.bars", 0][2] = history.commits["late"]["c.bars", 0][1]


def group_ahead_of_tables(history: History) -> None:
    history.commits["after"]["c.state", 0].append(history.commits["after"]["c.state", 0][-1] + 1)


def repeated(history: History) -> None:
    """The positions of a transaction are written again, as a client does whose answer was lost."""
    for commits in history.commits["late"].values():
        commits.insert(2, commits[1])
        commits.append(commits[-1])


def unread(history: History) -> None:
    """One more item is in the topic than was ever taken."""
    put = Put(history.items[0][0].name, 99, 3)
    history.items[0].append(put)
    history.sums.take(put)
    history.add("c.items", 0, plain.key(put.name, 99), plain.encode("Item", put._asdict()))


def dead(history: History) -> None:
    letter = {"processor": "sums", "topic": "c.items", "code": "X", "cause": "x", "key": b"", "value": None}
    value = plain.encode("DeadLetter", {**letter, "partition": 0, "offset": 0})
    history.lines["dead.letters", 0].append(Line(0, b"", value))


def other_input(history: History) -> None:
    history.lines["c.items", 0].pop()


HARMS: dict[str, tuple[Harm, set[str]]] = {
    "an answer is missing": (without("c.echo", "row"), {"lost"}),
    "an answer is there twice": (twice("c.echo", "row"), {"doubled"}),
    "an answer says something else": (changed("c.echo", "row", "total"), {"lost", "alien"}),
    "answers of a name change places": (swapped, {"misordered"}),
    "a late answer is missing": (without("c.late", "row"), {"lost"}),
    "a late answer is there twice": (twice("c.late", "row"), {"doubled"}),
    "a delayed edge saw another cut": (changed("c.late", "row", "before"), {"lost", "alien"}),
    "a row is missing in the middle": (without("c.sums", "row"), {"torn"}),
    "the last row is missing": (without("c.sums", "row", -1), {"torn", "tables"}),
    "a tombstone is missing": (without("c.open", "gone"), {"torn"}),
    "a row says something else": (changed("c.state", "row", "amount"), {"torn"}),
    "the next stage's row says something else": (changed("c.after", "row", "amount", -1), {"torn", "tables"}),
    "the mirror misses its last row": (without("c.mirror", "row", -1), {"torn", "tables"}),
    "a stamp is missing in one of two tables": (without("c.open", "stamp", 3), {"torn"}),
    "a stamp says that the other table ends with another one": (other_end, {"torn"}),
    "the last stamp of both tables is missing": (
        lambda history: [without(name, "stamp", -1)(history) for name in ("c.sums", "c.open")],
        {"torn", "positions"},
    ),
    "the group is behind its tables": (group_back, {"positions"}),
    "the group was behind its tables for a while": (group_back_for_a_while, {"positions"}),
    "the group is ahead of its tables": (group_ahead_of_tables, {"positions"}),
    "an item was never taken": (unread, {"lost", "positions", "tables"}),
    "a bucket is not closed": (without("c.state", "marker", 2), {"markers"}),
    "a bucket is closed twice": (twice("c.after", "marker", 1), {"markers"}),
    "something was refused": (dead, {"alien"}),
    "the input is not what was written": (other_input, {"input"}),
}


def test_a_right_history_has_no_finding() -> None:
    found = verdict(History(), watched=True)
    assert found.wrong() == {}, found.notes


def test_positions_that_were_sent_again_are_one_commit() -> None:
    history = History()
    repeated(history)
    found = verdict(history)
    assert found.wrong() == {}, found.notes


@pytest.mark.parametrize("name", HARMS)
def test_what_is_done_to_a_history_is_found_by_its_name(name: str) -> None:
    history = History()
    harm, kinds = HARMS[name]
    harm(history)
    found = verdict(history)
    assert found.wrong().keys() == kinds, found.notes


def test_what_a_reader_saw_and_is_gone_is_found() -> None:
    history = History()
    watched = {where: list(lines) for where, lines in history.lines.items()}
    watched["c.echo", 1].append(Line(999, b"k", b"v"))
    found = judge_lines(history.lines, history.commits, history, watched, PARTITIONS)
    assert found.wrong() == {"unstable": 1}


def test_the_strangers_wire_is_the_wire() -> None:
    for message in (Item, Row, Echo, Seen):
        path = plain.FOLDERS[1] / f"{message.__name__}.v1.avsc"
        assert json.loads(path.read_text(encoding="utf-8")) == avro_schema(message)
    seen = {"bucket_ms": BUCKETS[0], "name": "ü\x00", "seq": 0, "state": -1, "before": 2**40, "other": 3}
    assert plain.encode("Seen", seen) == CODEC.encode(Seen(**seen))  # type: ignore[arg-type] # by their names
    for parts in (("a", 0), ("ü\x00b", 255, 256), ("", 2**40)):
        assert plain.key(*parts) == encode_key(parts)
    assert plain.marker_key("late", 3, BUCKETS[0]) == marker_key("late", 3, BUCKETS[0])
    assert [plain.partition_of(f"n{n}", 4) for n in range(9)] == [
        partition_for(encode_key((f"n{n}",)), 4) for n in range(9)
    ]
