"""The journal: with its pack or without, torn, old or another one's, it says the same; and it says what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import CatalogueDamaged, NotInCatalogue
from qmtl.runtime.data.catalogue import Catalogue, writing
from qmtl.runtime.data.journal import Commit, Journal
from qmtl.runtime.data.shelf import Part, Shelf
from tests.runtime.data.walk import SYMBOL, walk

PACK = Path("journal/commits.jsonl")

SYMBOLS = ["A", 'B"digest": "', "ß/€"]


def part(symbol: str, number: int, from_ms: int, to_ms: int) -> Part:
    return Part(symbol, 60, f"{number:064x}", 1, 1, from_ms, to_ms)


PARTS = st.lists(
    st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 30), st.integers(0, 30)), min_size=0, max_size=3
)


def written(directory: Path, commits: list[list[tuple[str, int, int]]]) -> Journal:
    """A journal with these parts per commit, and its pack."""
    directory.mkdir(parents=True)
    journal = Journal(directory)
    before: Commit | None = None
    for number, parts in enumerate(commits):
        made = tuple(part(symbol, number, begin, begin + width) for symbol, begin, width in parts)
        before = Commit.after(before, {"kind": '"digest": "blake3:'}, "test", made, None)
        journal.path(before.number).write_bytes(before.text().encode())
        journal.pack()
    return journal


def told(directory: Path) -> tuple[object, ...]:
    """All that a journal answers, as of each of its commits."""
    journal = Journal(directory)
    commits = journal.commits()
    return (
        commits,
        [journal.find(one.digest) == journal.find(one.number) == one for one in commits],
        {
            (symbol, number): list(shelf.meeting(10, 20, number))
            for (symbol, _), shelf in sorted(journal.shelves().items())
            for number in range(1, len(commits) + 1)
        },
    )


@settings(max_examples=60)
@given(st.lists(PARTS, min_size=1, max_size=6), st.data())
def test_with_the_pack_or_without_or_with_any_part_of_it_the_answers_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[str, int, int]]], data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("journal") / "j"
    journal = written(place, commits)
    pack = place / PACK.name
    whole = pack.read_bytes()
    assert whole == b"".join(journal.path(at + 1).read_bytes() for at in range(len(commits)))
    with_it = told(place)
    assert [len(one.parts) for one in journal.commits()] == list(map(len, commits))
    pack.unlink()
    assert told(place) == with_it
    at = data.draw(st.integers(0, len(whole)))
    for torn in (whole[:at], whole[:at] + bytes(7), whole[:at] + whole[at + 1 :], b"\n" + whole):
        pack.write_bytes(torn)
        assert told(place) == with_it
        # The next writer mends it.
        Journal(place).pack()
        assert pack.read_bytes() == whole
        assert told(place) == with_it


def test_a_pack_of_another_journal_is_passed_over(tmp_path: Path) -> None:
    one = written(tmp_path / "one", [[("A", 0, 1)], [("A", 2, 1)]])
    written(tmp_path / "other", [[("A", 0, 1)], [("A", 3, 1)], [("A", 5, 1)]])
    shutil.copy(tmp_path / "other" / PACK.name, tmp_path / "one" / PACK.name)
    assert Journal(tmp_path / "one").commits() == one.commits()


def test_a_line_of_the_pack_is_held_to_its_digest_and_to_the_one_before(tmp_path: Path) -> None:
    one = written(tmp_path / "one", [[("A", at, 1)] for at in range(3)])
    written(tmp_path / "other", [[("A", at + 1, 1)] for at in range(3)])
    pack = tmp_path / "one" / PACK.name
    mine, theirs = (
        (tmp_path / name / PACK.name).read_bytes().splitlines(keepends=True) for name in ("one", "other")
    )
    changed = mine[0].replace(b'"bars": 1', b'"bars": 7')
    assert changed != mine[0]
    # Each ends in the commit that the journal has.
    for lines in (
        [changed, *mine[1:]],
        [mine[0], theirs[1], mine[2]],
        [theirs[0], *mine[1:]],
        [mine[0], mine[0], mine[2]],
    ):
        pack.write_bytes(b"".join(lines))
        assert Journal(tmp_path / "one").commits() == one.commits()


def test_the_pack_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "j", [[("A", at, 1)] for at in range(50)])
    read: list[str] = []
    original = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    assert len(Journal(tmp_path / "j").commits()) == 50
    # The last one is held to its file, and the next one is looked for.
    assert sorted(read) == ["000000050.json", "000000051.json", PACK.name]


def test_a_pack_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / PACK).mkdir(parents=True)
    for begin in (0, 10):
        with writing(tmp_path) as writer:
            writer.add(SYMBOL, 60, [walk(begin, begin + 5)], {})
    assert len(Catalogue(tmp_path).commits()) == 2


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("harm", [flip, os.remove])
def test_a_commit_that_is_missing_or_changed_is_told_by_its_name(
    tmp_path: Path, harm: Callable[[Path], None], number: int, packed: bool
) -> None:
    written(tmp_path / "j", [[("A", at, 1)] for at in range(3)])
    pack = tmp_path / "j" / PACK.name
    whole = Journal(tmp_path / "j").commits()
    if not packed:
        pack.unlink()
    harm(Journal(tmp_path / "j").path(number))
    newest_is_gone = (harm, number) == (os.remove, 3)
    if newest_is_gone:  # nothing says that there was one
        assert Journal(tmp_path / "j").commits() == whole[:2]
        return
    with pytest.raises(CatalogueDamaged, match=f"00000000{number}"):
        Journal(tmp_path / "j").audit()
    if packed and harm is flip and number < 3:
        assert Journal(tmp_path / "j").commits() == whole
    else:
        with pytest.raises(CatalogueDamaged, match=f"00000000{number}"):
            Journal(tmp_path / "j").commits()


def test_a_commit_written_in_other_words_is_the_same_commit(tmp_path: Path) -> None:
    journal = written(tmp_path / "j", [[("A", 0, 1)], [("A", 2, 1)]])
    path = journal.path(1)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    (tmp_path / "j" / PACK.name).unlink()
    assert Journal(tmp_path / "j").commits() == journal.commits()


@pytest.mark.parametrize("number", ["0", "4", "-1", "00000004"])
def test_no_commit_has_a_number_that_none_has(tmp_path: Path, number: str) -> None:
    journal = written(tmp_path / "j", [[("A", at, 1)] for at in range(3)])
    with pytest.raises(NotInCatalogue, match="3"):
        journal.find(number)


def test_a_reader_learns_of_commits_that_come(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        reader = Catalogue(tmp_path)
        assert reader.commits() == ()
        for begin in (0, 10, 20):
            writer.add(SYMBOL, 60, [walk(begin, begin + 5)], {})
            assert reader.commits() == writer.catalogue.commits() == Catalogue(tmp_path).commits()


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8),
    st.none() | st.integers(-1, 85),
    st.none() | st.integers(-1, 85),
    st.none() | st.integers(0, 8),
)
def test_a_shelf_gives_the_parts_that_meet_a_range(
    widths: list[tuple[int, int]], start: int | None, end: int | None, number: int | None
) -> None:
    shelf = Shelf()
    parts = [part("A", at, begin, begin + width) for at, (begin, width) in enumerate(widths)]
    for at, one in enumerate(parts):
        shelf.put(at + 1, one)
    expected = [
        one
        for at, one in enumerate(parts)
        if (start is None or one.to_ms >= start)
        and (end is None or one.from_ms < end)
        and (number is None or at + 1 <= number)
    ]
    found = list(shelf.meeting(start, end, number))
    assert found == sorted(expected, key=lambda one: (one.from_ms, one.to_ms, one.digest))
