"""The embedded log on files that do not hold what was written, and on a disk whose refusal comes too late."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.log import embedded_reached
from qmtl.engine.log.embedded import CLEAN_EVERY_MS, EmbeddedLog
from qmtl.engine.log.embedded_reached import NAME
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.common.errors import DiskFull, LogError, LogUnreachable
from tests.contract.driving import events, put, read_all, table, values

A0, B0, C0 = (TopicPartition(name, 0) for name in "abc")


# ---- the list of topics -----------------------------------------------------------------------------------------


def test_wherever_a_file_is_damaged_the_log_is_refused_or_has_all_its_topics(tmp_path: Path) -> None:
    specs = [events(f"topic-{number:03d}") for number in range(150)]
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics(specs)
    put(log, [(TopicPartition(spec.name, 0), b"k", spec.name.encode()) for spec in specs])
    log._db.flush()
    log.close()
    (data,) = (tmp_path / "log").glob("*.sst")
    whole = data.read_bytes()
    refused = 0
    for step in range(60):
        raw = bytearray(whole)
        raw[len(raw) * step // 60] ^= 0xFF
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "log", copy)
        (copy / data.name).write_bytes(raw)
        try:
            log = EmbeddedLog(copy)
            assert log.topics() == [spec.name for spec in specs]
            log.close()
        except LogError:
            refused += 1
            with pytest.raises(LogError) as again:  # what was refused lets go of the directory
                EmbeddedLog(copy)
            assert "held by" not in str(again.value)
        shutil.rmtree(copy)
    assert refused > 20


def test_no_two_topics_share_a_number_when_one_before_them_is_not_listed(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a"), events("c")])
    put(log, [(C0, b"k", b"of c")])
    log._db.delete(b"ta")
    log.close()
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("b")])
    put(log, [(B0, b"k", b"of b")])
    assert (values(read_all(log, [B0])), values(read_all(log, [C0]))) == ([b"of b"], [b"of c"])
    log.close()


def test_a_topic_is_not_made_over_records_that_lie_there(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a"), events("b", 2)])
    put(log, [(TopicPartition("b", 1), b"k", b"old")])
    log._db.delete(b"tb")
    log.close()
    log = EmbeddedLog(tmp_path / "log")
    with pytest.raises(LogError, match="damaged"):
        log.ensure_topics([events("b", 2)])
    assert log.topics() == ["a"]
    log.close()


# ---- the write-ahead log ----------------------------------------------------------------------------------------


def copied(log: EmbeddedLog, place: Path, change: Callable[[bytes], bytes]) -> Path:
    """The directory as a sudden death leaves it, with its write-ahead log changed."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(log.directory, place)
    wal = max(place.glob("*.log"), key=lambda file: file.stat().st_size)
    wal.write_bytes(change(wal.read_bytes()))
    return place


def test_a_hole_in_front_of_confirmed_transactions_is_refused(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    for number in range(100):
        put(log, [(A0, b"k", b"value %03d" % number)])
    for number in (0, 1, 50, 98):

        def flip(raw: bytes, number: int = number) -> bytes:
            assert raw.count(b"value %03d" % number) == 1
            return raw.replace(b"value %03d" % number, b"valve %03d" % number)

        place = copied(log, tmp_path / "copy", flip)
        for _ in range(2):  # a refusal changes nothing that the next one would need
            with pytest.raises(LogUnreachable, match=r"checksum.*from a copy"):
                EmbeddedLog(place)
    log.close()


def test_wherever_the_last_transaction_is_torn_those_before_it_are_there(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    for number in range(10):
        put(log, [(A0, b"k", b"%d" % number)], positions={A0: number + 1})
    before = len(max(log.directory.glob("*.log"), key=os.path.getsize).read_bytes())
    reached = (log.directory / NAME).read_bytes()
    put(log, [(A0, b"k", random.Random(1).randbytes(100_000))], positions={A0: 11})  # it spans several blocks
    after = len(max(log.directory.glob("*.log"), key=os.path.getsize).read_bytes())
    cuts = [before, before + 1, before + 6, before + 7, before + 8, 32_767, 32_768, 32_769, 65_536, after - 1]
    for cut in (*cuts, *random.Random(2).sample(range(before, after), 10)):
        copied(log, tmp_path / "copy", lambda raw, cut=cut: raw[:cut])  # type: ignore[misc] # a bound default
        (tmp_path / "copy" / NAME).write_bytes(reached)  # the death came before the commit was confirmed
        torn = EmbeddedLog(tmp_path / "copy")
        assert values(read_all(torn, [A0])) == [b"%d" % number for number in range(10)]
        assert torn.committed("", [A0]) == {A0: 10}
        put(torn, [(A0, b"k", b"next")])
        torn.close()
        torn = EmbeddedLog(tmp_path / "copy")
        assert values(read_all(torn, [A0]))[9:] == [b"9", b"next"]
        torn.close()
    log.close()


def of_a_hundred(directory: Path, sync: bool = False) -> EmbeddedLog:
    """A log with a hundred transactions, all in the last block of its write-ahead log."""
    log = EmbeddedLog(directory, sync=sync)
    log.ensure_topics([events("a")])
    for number in range(100):
        put(log, [(A0, b"k", b"value %03d" % number)])
    return log


@pytest.mark.parametrize("read_only", [False, True], ids=["held", "view"])
def test_whatever_bit_of_the_write_ahead_log_flips_it_is_refused_or_has_all_that_was_confirmed(
    tmp_path: Path, read_only: bool
) -> None:
    log = of_a_hundred(tmp_path / "log")
    size = max(one.stat().st_size for one in log.directory.glob("*.log"))
    assert size < 32_768
    chance = random.Random(5)
    lengths = [at + 4 + byte for at in heads(log) for byte in (0, 1)]
    for at in (*chance.sample(lengths, 30), *chance.sample(range(size), 30)):

        def flip(raw: bytes, at: int = at) -> bytes:
            return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]

        place = copied(log, tmp_path / "copy", flip)
        for _ in range(2):
            with pytest.raises(LogUnreachable, match="from a copy"):
                EmbeddedLog(place, read_only=read_only)
    log.close()


def heads(log: EmbeddedLog) -> list[int]:
    """Where the records of the write-ahead log begin: checksum, length and kind, of 4, 2 and 1 bytes."""
    raw = max(log.directory.glob("*.log"), key=os.path.getsize).read_bytes()
    out = [0]
    while (after := out[-1] + 7 + int.from_bytes(raw[out[-1] + 4 : out[-1] + 6], "little")) < len(raw):
        out.append(after)
    return out


@pytest.mark.parametrize("keep", [0, 1, 5_000, -1], ids=["nothing", "a byte", "a half", "all but a byte"])
def test_a_write_ahead_log_that_is_shorter_than_what_was_confirmed_is_refused(
    tmp_path: Path, keep: int
) -> None:
    log = of_a_hundred(tmp_path / "log")
    place = copied(log, tmp_path / "copy", lambda raw: raw[:keep])
    with pytest.raises(LogUnreachable, match="that were confirmed") as refused:
        EmbeddedLog(place)
    assert str(place / NAME) in refused.value.remedy
    with pytest.raises(LogUnreachable, match="that were confirmed"):
        EmbeddedLog(place)
    (place / NAME).unlink()  # an operator takes what is there
    accepted = EmbeddedLog(place)
    put(accepted, [])
    accepted.close()
    EmbeddedLog(place).close()
    log.close()


@pytest.mark.parametrize("sync", [False, True])
def test_after_the_death_of_the_machine_what_was_not_on_the_disk_may_be_gone(
    tmp_path: Path, sync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = of_a_hundred(tmp_path / "log", sync)
    place = copied(log, tmp_path / "copy", lambda raw: raw[: len(raw) // 2])
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(embedded_reached, "_BOOT_FILE", boot)
    if sync:
        with pytest.raises(LogUnreachable, match="that were confirmed"):
            EmbeddedLog(place)
    else:
        cut = EmbeddedLog(place)
        left = values(read_all(cut, [A0]))
        assert left == [b"value %03d" % number for number in range(len(left))]
        assert 0 < len(left) < 100
        cut.close()
    log.close()


def test_what_was_there_at_an_opening_lies_on_the_disk_whatever_boot_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_hundred(tmp_path / "log").close()
    EmbeddedLog(tmp_path / "log").close()
    monkeypatch.setattr(embedded_reached, "_BOOT_FILE", tmp_path / "none")
    assert embedded_reached.known(tmp_path / "log") > 200
    for found in (tmp_path / "log").glob("*.log"):
        found.write_bytes(b"")
    log = EmbeddedLog(tmp_path / "log")
    assert len(read_all(log, [A0])) == 100
    log.close()


@pytest.mark.parametrize("raw", [b"", b"QMTLREA1", b"\0" * 40, b"QMTLREA1" + b"\xff" * 90])
def test_a_note_that_is_none_says_nothing_and_is_made_anew(tmp_path: Path, raw: bytes) -> None:
    of_a_hundred(tmp_path / "log").close()
    (tmp_path / "log" / NAME).write_bytes(raw)
    log = EmbeddedLog(tmp_path / "log")
    put(log, [(A0, b"k", b"one more")])
    place = copied(log, tmp_path / "copy", lambda raw: raw[:-1])
    with pytest.raises(LogUnreachable, match="that were confirmed"):
        EmbeddedLog(place)
    log.close()


# ---- a refusal that comes too late ------------------------------------------------------------------------------


class Late:
    """A database on a disk that says that it is full after all was written, as one does that finds room late."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, *given: Any) -> None:
        self._real.write(*given)
        raise Exception(f"IO error: {os.strerror(errno.ENOSPC)}")  # what rocksdict raises


class Unseen(Late):
    """It shows what it holds only when it is opened again, as RocksDB does after a failed sync."""

    def get(self, key: bytes) -> None:
        return None


class Full(Late):
    """A database on a full disk."""

    def write(self, *given: Any) -> None:
        raise Exception(f"IO error: {os.strerror(errno.ENOSPC)}")

    put = write


def late(log: EmbeddedLog) -> None:
    log._db = Late(log._db)


def test_a_transaction_after_one_that_was_refused_too_late_comes_behind_it(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    reader = log.reader()
    reader.assign({A0: 0})
    late(log)
    with pytest.raises(DiskFull):
        put(log, [(A0, b"k", b"first %d" % number) for number in range(5)])
    assert reader.poll(10, 0.0) == []
    put(log, [(A0, b"k", b"second")])
    read = reader.poll(10, 0.0)
    assert [(one.offset, one.value) for one in read] == [
        *((number, b"first %d" % number) for number in range(5)),
        (6, b"second"),
    ]
    assert reader.positions() == log.end_offsets([A0]) == {A0: 8}
    log.close()


def test_no_reader_sees_what_lies_behind_the_end(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"first")])
    reader = log.reader()
    reader.assign({A0: 0})
    late(log)
    with pytest.raises(DiskFull):
        put(log, [(A0, b"k", b"second")])
    assert values(reader.poll(10, 0.0)) == [b"first"]
    assert reader.positions() == {A0: 2}
    put(log, [(A0, b"k", b"third")])
    assert values(reader.poll(10, 0.0)) == [b"second", b"third"]
    log.close()


def test_positions_that_were_refused_too_late_are_told_as_they_are(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"1")], positions={A0: 1})
    log._db = Unseen(log._db)
    with pytest.raises(DiskFull):
        put(log, [(A0, b"k", b"2")], positions={A0: 3})
    assert log.committed("", [A0]) == {A0: 3}
    assert log.end_offsets([A0]) == {A0: 4}
    log.close()


def test_topics_after_those_that_were_refused_too_late_have_other_numbers(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    late(log)
    with pytest.raises(DiskFull):
        log.ensure_topics([events("a")])
    log.ensure_topics([events("b")])
    assert log.topics() == ["a", "b"]
    put(log, [(A0, b"k", b"of a"), (B0, b"k", b"of b")])
    assert (values(read_all(log, [A0])), values(read_all(log, [B0]))) == ([b"of a"], [b"of b"])
    log.close()


def old(directory: Path) -> EmbeddedLog:
    """A log in which two records of a topic with retention, and one version of a compacted one, are too old."""
    now = [1_000_000]
    log = EmbeddedLog(directory, clock_ms=lambda: now[0])
    log.ensure_topics([replace(events("a"), retention_ms=100), replace(table("b"), min_compaction_lag_ms=10)])
    put(log, [(A0, b"k", b"1"), (A0, b"k", b"2"), (B0, b"k", b"1"), (B0, b"k", b"2")])
    now[0] += CLEAN_EVERY_MS
    return log


@pytest.mark.parametrize("disk", [Full, Late])
def test_cleaning_tells_that_the_disk_is_full_and_goes_on_when_there_is_room(
    tmp_path: Path, disk: type[Late]
) -> None:
    log = old(tmp_path / "log")
    log._db = disk(log._db)
    with pytest.raises(DiskFull, match="Make room"):
        log.clean()
    log.clean()
    assert (values(read_all(log, [A0])), values(read_all(log, [B0]))) == ([], [b"2"])
    assert log.begin_offsets([A0]) == {A0: 2}
    log.close()


@pytest.mark.parametrize("disk", [Full, Late])
def test_a_disk_that_is_too_full_for_cleaning_keeps_nobody_from_the_log(
    tmp_path: Path, disk: type[Late], caplog: pytest.LogCaptureFixture
) -> None:
    log = old(tmp_path / "log")
    log._db = disk(log._db)
    assert log.clean_if_due() == 0
    assert "Make room" in caplog.text
    assert values(read_all(log, [B0]))[-1] == b"2"
    put(log, [(B0, b"k", b"3")])
    assert values(read_all(log, [B0]))[-2:] == [b"2", b"3"]
    log.clean_if_due()  # it is due still
    assert (values(read_all(log, [A0])), values(read_all(log, [B0]))) == ([], [b"2", b"3"])
    assert log.clean_if_due() == 0
    log.close()
