"""The store: an older state of it serves where it is damaged, it tells why it is thrown away, and a sound one is believed."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

from qmtl.engine import store as stores
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.recovery import restore
from qmtl.engine.store import Cause, Rebuilt, Store
from qmtl.engine.stored import Checkpoint, TopicFacts
from qmtl.engine.table import Table
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import DiskFull, InvariantBroken, StoreUnavailable, TransactionAborted
from qmtl.foundation.contracts.control import PositionStamp
from qmtl.foundation.wire.keys import encode_key, stamp_key
from tests.contract.driving import put, until
from tests.engine.driving import messages
from tests.engine.models import counted
from tests.engine.toys import CODEC, COUNTS, ECHO, ITEMS, Counter, Feed, Item, Total, make_topics

ROOT = Path(__file__).resolve().parents[2]
WHERE = TopicPartition(COUNTS.name, 0)
LOG_ID = "a log"


class Told(list[Rebuilt]):
    """Hears of stores that are thrown away."""

    def causes(self) -> list[tuple[Cause, bool]]:
        return [(one.cause, one.kept) for one in self]


def filled(place: Path, numbers: range, keep_at: int = -1) -> Store:
    """A store with one write per number, whose checkpoint says the number; kept once on the way."""
    store = Store(place, LOG_ID)
    filled_more(store, numbers, keep_at)
    return store


def filled_more(store: Store, numbers: range, keep_at: int = -1) -> None:
    for number in numbers:
        row = (COUNTS.name, b"key%05d" % (number % 500), b"%08d" % number * 40)
        store.write([row], Checkpoint(LOG_ID, {WHERE: number + 1}, {}, (), 0))
        if number == keep_at:
            store.keep()


def expected(until: int) -> dict[bytes, bytes]:
    return {b"key%05d" % (number % 500): b"%08d" % number * 40 for number in range(until)}


def held(place: Path, told: Told) -> tuple[int, dict[bytes, bytes]]:
    """What a store says that it contains, and what it contains; opened again where reading finds it damaged."""
    store = Store(place, LOG_ID, told.append)
    try:
        for _ in range(3):
            reached = store.checkpoint.tables.get(WHERE, 0)
            try:
                return reached, dict(store.scan(COUNTS.name))
            except TransactionAborted:
                continue
    finally:
        store.close()
    raise AssertionError("it was damaged three times")


def test_a_store_whose_files_no_longer_fit_goes_on_from_the_state_that_was_kept(tmp_path: Path) -> None:
    filled(tmp_path / "s", range(3000), keep_at=1999).close()
    for found in (tmp_path / "s").glob("MANIFEST-*"):
        found.write_bytes(found.read_bytes()[:30])
    told = Told()
    assert held(tmp_path / "s", told) == (2000, expected(2000))
    assert told.causes() == [(Cause.DAMAGED, True)]
    for found in (tmp_path / "s").glob("MANIFEST-*"):
        found.write_bytes(b"")
    assert held(tmp_path / "s", told) == (0, {})
    assert told.causes()[1:] == [(Cause.DAMAGED, False)]


def test_at_most_one_older_state_is_kept_and_it_is_taken_after_so_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "KEEP_ROWS", 700)
    filled(tmp_path / "s", range(2900)).close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s", "s.kept"]
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s.kept").rename(tmp_path / "s")
    assert held(tmp_path / "s", Told()) == (2800, expected(2800))


@pytest.mark.parametrize("rest", ["s.next.tmp", "s.next"])
def test_what_a_death_left_of_keeping_a_state_does_no_harm(tmp_path: Path, rest: str) -> None:
    filled(tmp_path / "s", range(100), keep_at=50).close()
    (tmp_path / rest).mkdir()
    (tmp_path / rest / "CURRENT").write_bytes(b"junk")
    store = filled(tmp_path / "s", range(100, 120), keep_at=110)
    assert store.checkpoint.tables == {WHERE: 120}
    store.close()
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "CURRENT").write_bytes(b"junk")
    assert held(tmp_path / "s", Told()) == (111, expected(111))


@pytest.mark.parametrize(
    "meta, cause",
    [(b'{"format": 1, "log_id": "a log"}', Cause.FORMAT), (b"no json", Cause.DAMAGED)],
)
def test_a_store_of_an_older_format_or_none_is_told_and_begins_empty(
    tmp_path: Path, meta: bytes, cause: Cause
) -> None:
    store = filled(tmp_path / "s", range(10))
    store._db.put(stores.META, meta)
    store.close()
    told = Told()
    assert held(tmp_path / "s", told) == (0, {})
    assert told.causes() == [(cause, False)]


def test_a_store_of_another_log_is_told_and_begins_empty(tmp_path: Path) -> None:
    filled(tmp_path / "s", range(10)).close()
    told = Told()
    Store(tmp_path / "s", "another log", told.append).close()
    assert told.causes() == [(Cause.FOREIGN, False)]


HOLDER = """
import sys
from pathlib import Path
from qmtl.engine.store import Store
store = Store(Path(sys.argv[1]), sys.argv[2])
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(place: Path, log_id: str) -> Iterator[None]:
    """Another process has the store open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place), log_id],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.communicate(timeout=120)


def test_a_store_that_another_process_has_open_is_left_alone_and_opens_when_it_is_closed(
    tmp_path: Path,
) -> None:
    filled(tmp_path / "s", range(10)).close()
    told = Told()
    with held_elsewhere(tmp_path / "s", LOG_ID), pytest.raises(StoreUnavailable) as refused:
        held(tmp_path / "s", told)
    assert (refused.value.code, refused.value.cause) == ("QMTL-321", "store_held")
    assert "--state-dir" in refused.value.remedy
    assert held(tmp_path / "s", told) == (10, expected(10))
    assert not told


def test_a_store_that_somebody_has_open_is_refused_with_the_remedy(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", range(10))
    with pytest.raises(InvariantBroken, match="held by another") as refused:
        Store(tmp_path / "s", LOG_ID)
    assert "--state-dir" in refused.value.remedy
    store.close()
    assert held(tmp_path / "s", Told())[0] == 10


# ---- what the system refuses ---------------------------------------------------------------------------------------


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def descriptors(more: int) -> Iterator[None]:
    """This process may open so many files more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in itertools.count() if not is_open(number))
    # What is limited is how high a number may be: there are gaps below the highest that is open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, more, None)), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_few_descriptors_are_no_damage_and_what_was_known_stays(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", range(100), keep_at=50)
    for number in range(100, 400, 100):
        store.know({f"t{number}": TopicFacts("id", 1)})
        filled_more(store, range(number, number + 100))
        store._db.flush(True)
    store.close()
    told, refused = Told(), list[StoreUnavailable]()
    for more in range(16):
        with descriptors(more):
            try:
                Store(tmp_path / "s", LOG_ID, told.append).close()
            except StoreUnavailable as error:
                refused.append(error)
    assert refused
    assert {error.cause for error in refused} == {"store_error"}
    assert all("Too many open files" in error.what for error in refused)
    assert not told
    store = Store(tmp_path / "s", LOG_ID, told.append)
    assert sorted(store.topics) == ["t100", "t200", "t300"]
    store.close()
    assert held(tmp_path / "s", told) == (400, expected(400))
    assert (tmp_path / "s.kept").is_dir()
    assert not told


class Refusing:
    """A database whose calls fail as the system says; all others go through."""

    def __init__(self, db: Any, name: str, number: int) -> None:
        self._db, self._name, self._number = db, name, number

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            return self._fail
        return getattr(self._db, name)

    def _fail(self, *_: object) -> None:
        raise Exception(f"IO error: While pread offset 0 len 9: 000012.sst: {os.strerror(self._number)}")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize(
    "name, call",
    [
        ("get", lambda store: store.get(COUNTS.name, b"key00001")),
        ("write", lambda store: filled_more(store, range(10, 11))),
        ("iter", lambda store: list(store.scan(COUNTS.name))),
    ],
)
def test_a_read_or_write_that_the_system_refuses_is_no_damage(
    tmp_path: Path, number: int, name: str, call: Callable[[Store], object]
) -> None:
    store = filled(tmp_path / "s", range(10), keep_at=5)
    told = Told()
    store._tell = told.append
    db, store._db = store._db, Refusing(store._db, name, number)
    with pytest.raises(StoreUnavailable, match=os.strerror(number)):
        call(store)
    store._db = db
    store.close()
    assert held(tmp_path / "s", told) == (10, expected(10))
    assert not told


@pytest.mark.parametrize("number, refusal", [(errno.ENOSPC, DiskFull), (errno.EMFILE, StoreUnavailable)])
def test_what_is_kept_is_not_thrown_away_because_it_can_not_be_opened_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refusal: type[Exception]
) -> None:
    filled(tmp_path / "s", range(100), keep_at=50).close()
    (tmp_path / "s" / "CURRENT").write_bytes(b"junk")
    told = Told()
    texts = iter(["Corruption: CURRENT", f"IO error: While appending to file: {os.strerror(number)}"])

    def refusing(*_: object, **__: object) -> None:
        raise Exception(next(texts))

    monkeypatch.setattr(stores, "Rdict", refusing)
    with pytest.raises(refusal):
        Store(tmp_path / "s", LOG_ID, told.append)
    monkeypatch.setattr(stores, "Rdict", Rdict)
    assert held(tmp_path / "s", told) == (51, expected(51))
    assert told.causes() == [(Cause.DAMAGED, True)]


# ---- flipped bytes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with data in tables, in the write-ahead log, and a state kept beside it, as a kill leaves it."""
    place = tmp_path_factory.mktemp("original")
    store = filled(place / "s", range(1500), keep_at=700)
    store._db.flush()
    for number in range(1500, 2000):
        row = (COUNTS.name, b"key%05d" % (number % 500), b"%08d" % number * 40)
        store.write([row], Checkpoint(LOG_ID, {WHERE: number + 1}, {}, (), 0))
    shutil.copytree(
        place / "s", place / "copy"
    )  # without a close, which would write the log's end into tables
    store.close()
    shutil.rmtree(place / "s")
    (place / "copy").rename(place / "s")
    return place


FLIPS = int(os.environ.get("QMTL_FLIPS", "12"))


@pytest.mark.parametrize(
    "kind", ["*.sst", "*.log", "MANIFEST-*", "CURRENT", "OPTIONS-*", "IDENTITY", "*.json", "LOCK", "LOG"]
)
def test_flipped_bytes_in_any_file_never_show_a_state_that_was_not(
    original: Path, tmp_path: Path, kind: str
) -> None:
    chance = random.Random(kind)
    for number in range(FLIPS):
        place = tmp_path / str(number)
        shutil.copytree(original, place)
        files = sorted((place / "s").glob(kind))
        assert files, f"a store has no {kind} any more"
        for _ in range(chance.choice([1, 1, 3])):
            victim = chance.choice(files)
            raw = bytearray(victim.read_bytes())
            if raw:
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
                victim.write_bytes(raw)
        reached, rows = held(place / "s", Told())
        assert rows == expected(reached), f"flip {number} of {kind}: a state that never was, at {reached}"
        shutil.rmtree(place)


# ---- a kill, and what is restored after it -----------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from pathlib import Path
from tests.engine.test_store import log_with, tables_of, restored
log = log_with(Path(sys.argv[1]), 0)
store, tables = tables_of(log, Path(sys.argv[2]))
restored(log, store, tables)
os.kill(os.getpid(), signal.SIGKILL)
"""
ROWS = 400


def log_with(place: Path, rows: int, name: str = "w") -> EmbeddedLog:
    """A log with so many rows more, and a stamp for each of four."""
    log = EmbeddedLog(place)
    make_topics(log)
    for number in range(0, rows, 4):
        found = [Total(f"{name}{number + more}", number) for more in range(4)]
        stamp = CODEC.encode(PositionStamp("counter", 0, (), (number,)))
        put(
            log,
            [(WHERE, encode_key((one.name,)), CODEC.encode(one)) for one in found]
            + [(WHERE, stamp_key("counter", 0), stamp)],
        )
    return log


def tables_of(log: EmbeddedLog, place: Path, told: Told | None = None) -> tuple[Store, dict[str, Table]]:
    store = Store(place, log.log_id, Told().append if told is None else told.append)
    return store, {COUNTS.name: Table(COUNTS, 0, store, CODEC)}


def restored(log: EmbeddedLog, store: Store, tables: dict[str, Table]) -> int:
    return restore(log, store, tables, CODEC).records


@pytest.mark.parametrize("many", [False, True])
def test_after_a_kill_only_what_came_since_is_restored(
    tmp_path: Path, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_with(tmp_path / "log", ROWS).close()
    child = subprocess.run(
        [sys.executable, "-c", CHILD.replace("restored(", "import qmtl.engine.recovery as r; r.MANY = 1\nrestored(") if many else CHILD,
         str(tmp_path / "log"), str(tmp_path / "s")],
        cwd=ROOT,
        timeout=240,
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL
    log = log_with(tmp_path / "log", 8, "x")
    told = Told()
    store, tables = tables_of(log, tmp_path / "s", told)
    assert restored(log, store, tables) == 2 * 5
    assert not told
    assert len(list(store.scan(COUNTS.name))) == ROWS + 8
    store.close()
    log.close()


def test_with_a_damaged_store_only_what_came_since_the_kept_state_is_restored(tmp_path: Path) -> None:
    log = log_with(tmp_path / "log", ROWS)
    store, tables = tables_of(log, tmp_path / "s")
    assert restored(log, store, tables) == ROWS + ROWS // 4
    store.keep()
    log.close()
    log = log_with(tmp_path / "log", 40, "x")
    assert restored(log, store, tables) == 50
    store.close()
    (tmp_path / "s" / "CURRENT").write_bytes(b"junk")
    told = Told()
    store, tables = tables_of(log, tmp_path / "s", told)
    assert restored(log, store, tables) == 50
    assert told.causes() == [(Cause.DAMAGED, True)]
    assert len(list(store.scan(COUNTS.name))) == ROWS + 40
    store.close()
    log.close()


class BrokenOff(Exception):
    """What the tests end a restore with."""


@pytest.mark.parametrize("many", [False, True])
def test_a_restore_that_broke_off_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    monkeypatch.setattr("qmtl.engine.recovery.BATCH", 50)
    if many:
        monkeypatch.setattr("qmtl.engine.recovery.MANY", 1)
    log = log_with(tmp_path / "log", ROWS)
    store, tables = tables_of(log, tmp_path / "s")
    polls = iter([None] * 4)

    def alive() -> None:
        if next(polls, BrokenOff) is BrokenOff:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        restore(log, store, tables, CODEC, keep_alive=alive)
    store.close()
    told = Told()
    store, tables = tables_of(log, tmp_path / "s", told)
    assert restored(log, store, tables) == ROWS + ROWS // 4 - 200
    assert not told
    assert {tables[COUNTS.name].get(f"w{number}").name for number in range(ROWS)} == {
        f"w{number}" for number in range(ROWS)
    }
    store.close()
    log.close()


# ---- a full disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def little_room() -> Iterator[Callable[[int], None]]:
    """Limits the size of the files of this process, and takes the limit back at the end: to a writer, a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_store_without_room_says_so_keeps_what_it_had_and_takes_more_when_there_is_room(
    tmp_path: Path, little_room: Callable[[int], None]
) -> None:
    store = filled(tmp_path / "s", range(100))
    told = Told()
    little_room(64 << 10)
    reached = 100
    refused: list[str] = []
    while not refused:
        assert reached < 10_000
        row = (COUNTS.name, b"key%05d" % (reached % 500), b"%08d" % reached * 40)
        try:
            store.write([row], Checkpoint(LOG_ID, {WHERE: reached + 1}, {}, (), 0))
            reached += 1
        except DiskFull as full:
            refused.append(full.code)
    assert refused == ["QMTL-315"]
    store.close()
    little_room(100)
    with pytest.raises(DiskFull):  # what is there is not taken for damage
        held(tmp_path / "s", told)
    little_room(0)
    assert held(tmp_path / "s", told) == (reached, expected(reached))
    assert not told


def test_a_worker_without_room_closes_its_task_loses_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, little_room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmtl.engine.worker.FULL_WAIT_S", 0.0)
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    feed = Feed(log, ITEMS)
    items: list[Item] = []

    def give(count: int) -> None:
        fresh = [Item(f"{len(items) + more:040d}" * 20, len(items) + more, 1) for more in range(count)]
        feed.put({0: fresh})
        items.extend(fresh)

    give(20)
    told = Told()
    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "state", 10, on_rebuild=told.append))
    for size in (
        60 << 10,
        90 << 10,
        120 << 10,
    ):  # where it hurts first differs: the log, the store, opening either
        little_room(size)
        with suppress(DiskFull):  # it is the people whom the log refuses
            while len(items) < 4000:
                give(10)
                for _ in range(3):
                    worker.step()
        assert len(items) < 4000
        for _ in range(5):
            worker.step()
        little_room(0)
        until(lambda: not worker.step() and len(messages(log, ECHO.name)) >= len(items), 60)
    worker.close()
    echoed = sorted(messages(log, ECHO.name), key=lambda one: one.seq)
    assert echoed == counted(items)
    assert not told
    feed.close()
    log.close()
