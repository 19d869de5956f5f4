"""What only the embedded log shows: sudden death, one holder, a view from outside, and its own compaction."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log import embedded_directory
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Record, TopicPartition, partitions_of
from qmtl.engine.log.rocks import options
from qmtl.foundation.common.errors import LogError, LogLocked, LogUnreachable, OffsetGone
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import events, gather, put, read_all, table, until, values
from tests.contract.endless_writer import ONE, records_of

ROOT = Path(__file__).resolve().parents[2]
A0 = TopicPartition("a", 0)


# ---- sudden death -----------------------------------------------------------------------------------------------


def test_after_sigkill_at_any_instant_whole_transactions_are_there_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(20)
    said = 0
    for _ in range(20):
        command = [sys.executable, "-m", "tests.contract.endless_writer", str(tmp_path / "log")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for _ in range(chance.randrange(1, 120)):  # it writes on while the kill is on its way
                said = int(running.stdout.readline())
            running.kill()
        log = EmbeddedLog(tmp_path / "log")
        numbers = [int(record.value or b"") for record in log.read(ONE, 0)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= said  # what was confirmed is there
        assert log.committed("group", [ONE]) == {ONE: len(numbers)}
        many = Counter(
            int(record.value or b"") for where in partitions_of("many", 3) for record in log.read(where, 0)
        )
        assert many == {number: records_of(number) for number in numbers}
        log.close()


# ---- who holds it -----------------------------------------------------------------------------------------------


def test_a_second_process_is_told_that_the_log_is_held(embedded_log: EmbeddedLog) -> None:
    source = (
        "import sys; from pathlib import Path; from qmtl.engine.log.embedded import EmbeddedLog;"
        " EmbeddedLog(Path(sys.argv[1]))"
    )
    tried = subprocess.run(
        [sys.executable, "-c", source, str(embedded_log.directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 1
    assert LogLocked.code in tried.stderr.splitlines()[-1]
    with pytest.raises(LogLocked):
        EmbeddedLog(embedded_log.directory)


def test_a_log_is_the_same_after_it_was_closed_and_opened(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a", 3)])
    put(log, [(A0, b"k", b"1"), (A0, b"k", None)], positions={A0: 3})
    before = (log.log_id, log.topics(), log.end_offsets([A0]), log.committed("", [A0]), read_all(log, [A0]))
    log.close()
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a", 3), events("b")])
    after = (log.log_id, log.topics(), log.end_offsets([A0]), log.committed("", [A0]), read_all(log, [A0]))
    log.close()
    assert after == (before[0], ["a", "b"], *before[2:])


def test_two_logs_have_two_identities(tmp_path: Path) -> None:
    one, two = EmbeddedLog(tmp_path / "1"), EmbeddedLog(tmp_path / "2")
    assert one.log_id != two.log_id
    one.close()
    two.close()


def test_a_view_sees_what_the_holder_writes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.contract.endless_writer", str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = int(running.stdout.readline())
        view = EmbeddedLog(tmp_path / "log", read_only=True)
        for _ in range(3):
            until(lambda said=said: view.committed("group", [ONE])[ONE] >= said)  # type: ignore[misc] # a bound default
            end = view.end_offsets([ONE])[ONE]
            assert end >= 2 * said
            reader = view.reader()
            reader.assign({ONE: 0})
            numbers = [int(record.value or b"") for record in gather(reader, said, 1000)]
            assert numbers == list(range(1, len(numbers) + 1))
            reader.close()
            for _ in range(50):
                said = int(running.stdout.readline())
        running.kill()
    assert view.topics() == ["many", "one"]
    view.close()
    assert [place.name for place in tmp_path.iterdir()] == ["log"]


def test_a_view_of_nothing_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LogUnreachable):
        EmbeddedLog(tmp_path / "log", read_only=True)
    assert list(tmp_path.iterdir()) == []


# ---- damage -----------------------------------------------------------------------------------------------------


def test_a_damaged_log_is_not_read_as_a_shorter_one(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    put(log, [(A0, b"%d" % number, random.Random(number).randbytes(200)) for number in range(5000)])
    log._db.flush()
    log.close()
    (data,) = (tmp_path / "log").glob("*.sst")
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    data.write_bytes(raw)
    log = EmbeddedLog(tmp_path / "log")
    with pytest.raises(LogError, match="damaged"):
        list(log.read(A0, 0))
    log.close()


def test_a_log_whose_files_are_no_database_says_so_and_not_that_it_is_held(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "block")  # a directory's name may contain "lock"
    log.close()
    (tmp_path / "block" / "CURRENT").write_bytes(b"junk\n")
    with pytest.raises(LogUnreachable):
        EmbeddedLog(tmp_path / "block")


# ---- compaction -------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: int = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture(scope="module")
def aging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedLog, Clock]]:
    """A log whose clock the test moves."""
    clock = Clock()
    log = EmbeddedLog(tmp_path_factory.mktemp("aging") / "log", clock_ms=clock)
    yield log, clock
    log.close()


NAMES = (f"t{number}" for number in itertools.count())
OPS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.none() | st.binary(max_size=2)), max_size=3
        ),
        st.integers(0, 30),
        st.booleans(),
    ),
    max_size=14,
)


def fold(records: list[Record], until_ms: int) -> dict[bytes, bytes]:
    """The table that the records make, as of a time; what is deleted is not there."""
    out: dict[bytes, bytes | None] = {}
    for record in records:
        if record.timestamp_ms <= until_ms:
            out[record.key] = record.value
    return {key: value for key, value in out.items() if value is not None}


@settings(deadline=None, max_examples=80)
@given(OPS, st.integers(0, 60), st.integers(0, 60))
def test_the_fold_of_a_compacted_log_is_the_fold_of_the_log_as_of_every_time_that_the_lag_keeps(
    aging: tuple[EmbeddedLog, Clock],
    ops: list[tuple[list[tuple[bytes, bytes | None]], int, bool]],
    lag: int,
    retention: int,
) -> None:
    log, clock = aging
    spec = replace(table(next(NAMES)), min_compaction_lag_ms=lag, delete_retention_ms=retention)
    log.ensure_topics([spec])
    where = TopicPartition(spec.name, 0)
    whole: list[Record] = []
    for rows, passes, clean in ops:
        before = log.end_offsets([where])[where]
        put(log, [(where, key, value) for key, value in rows])
        whole += log.read(where, before)
        clock.now += passes
        if clean:
            log.clean()
        left = list(log.read(where, 0))
        assert [one for one in whole if one in left] == left  # in order, each at its offset, none altered
        assert read_all(log, [where]) == left
        for cut in range(clock.now - lag, clock.now + 1):
            assert fold(left, cut) == fold(whole, cut)
        assert [one for one in left if one.timestamp_ms >= clock.now - lag] == [
            one for one in whole if one.timestamp_ms >= clock.now - lag
        ]
        for one in whole:  # a tombstone that is the last word on its key stays for its time
            newer = any(other.key == one.key and other.offset > one.offset for other in whole)
            if one.value is None and not newer and one.timestamp_ms >= clock.now - retention:
                assert one in left
    clock.now += lag + retention + 1
    log.clean()
    end = list(log.read(where, 0))
    assert {one.key: one.value for one in end} == fold(whole, clock.now)
    assert len(end) == len({one.key for one in end})  # one record per living key, and no tombstone
    assert log.clean() == 0


def retained(name: str, retention_ms: int) -> TopicSpec:
    return replace(events(name), retention_ms=retention_ms)


def test_what_retention_took_is_gone_for_a_reader_that_had_not_read_it(
    aging: tuple[EmbeddedLog, Clock],
) -> None:
    log, clock = aging
    spec = retained(next(NAMES), 100)
    log.ensure_topics([spec])
    where = TopicPartition(spec.name, 0)
    put(log, [(where, b"k", b"1"), (where, b"k", b"2")])
    clock.now += 90
    put(log, [(where, b"k", b"3")])
    clock.now += 20
    assert log.clean() == 2
    assert log.begin_offsets([where]) == {where: 2}
    assert values(read_all(log, [where])) == [b"3"]
    reader = log.reader()
    reader.assign({where: 1})
    with pytest.raises(OffsetGone):
        reader.poll(10, 0.0)
    clock.now += 200
    assert log.clean() == 1
    assert read_all(log, [where]) == []
    put(log, [(where, b"k", b"4")])
    assert [(one.offset, one.value) for one in log.read(where, 0)] == [(5, b"4")]


def test_what_is_kept_for_ever_is_kept(aging: tuple[EmbeddedLog, Clock]) -> None:
    log, clock = aging
    name = next(NAMES)
    log.ensure_topics([events(name)])
    where = TopicPartition(name, 0)
    put(log, [(where, b"k", b"1"), (where, b"k", None)])
    clock.now += 10**12
    log.clean()
    assert values(read_all(log, [where])) == [b"1", None]


# ---- its database -----------------------------------------------------------------------------------------------


def test_a_log_that_exists_is_opened_with_the_options_of_now_and_not_with_those_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settled() -> str:
        newest = max(tmp_path.glob("log/OPTIONS-*"), key=lambda file: int(file.name.removeprefix("OPTIONS-")))
        (found,) = re.findall(r"^\s*write_buffer_size=(\d+)$", newest.read_text(), re.MULTILINE)
        return str(found)

    monkeypatch.setattr(embedded_directory, "options", lambda: options(write_buffer_mb=4))
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"kept")])
    log.close()
    assert settled() == str(4 << 20)
    monkeypatch.setattr(embedded_directory, "options", lambda: options(write_buffer_mb=8))
    log = EmbeddedLog(tmp_path / "log")
    assert values(read_all(log, [A0])) == [b"kept"]
    log.close()
    assert settled() == str(8 << 20)
