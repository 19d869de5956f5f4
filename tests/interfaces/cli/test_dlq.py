"""`qmtl dlq`: what it shows is what lies there, and what it writes back it writes back once."""

from __future__ import annotations

import shutil
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from qmtl.bootstrap import make_workers, open_log, prepare
from qmtl.engine.letters import WHOLE_VALUE_BYTES, Cause, letter_of
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.common.errors import OutcomeUnknown, TransactionAborted
from qmtl.foundation.contracts.control import DeadLetter, LateRecord
from qmtl.foundation.contracts.world import CreateWorld, WorldSettings
from qmtl.foundation.wire.keys import encode_key, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.dead_letters import DEAD, Redrive, Wanted, find
from tests.contract.driving import put, until
from tests.engine.faults import Fault, FaultyLog
from tests.interfaces.cli.running import Ran, assert_one_screen, call

JUNK = b"\x00\x01junk \x1b[31mred\x07\n" + bytes(range(40))
BIG = (b"\x00too large " * (1 << 17))[: WHOLE_VALUE_BYTES + 100]


def wish(world_id: str) -> CreateWorld:
    settings = WorldSettings("USD", Decimal(100), Decimal(0), Decimal(0), ())
    return CreateWorld(f"make-{world_id}", world_id, settings, 1)


def command(world_id: str) -> bytes:
    return codec.encode(wish(world_id))


def letter(
    name: str, value: bytes | None, *, key: bytes = b"k", partition: int = 0, offset: int = 5
) -> DeadLetter:
    record = Record(name, partition, offset, key, value, 0)
    return letter_of("worldservice", 0, record, Cause("QMTL-405", "it failed \x1b[2J", "m.E", "ab" * 8))


def write(log: Log, *messages: DeadLetter | LateRecord) -> None:
    rows = []
    for message in messages:
        name = DEAD if isinstance(message, DeadLetter) else "late.records"
        rows.append((TopicPartition(name, 0), encode_key((message.topic,)), codec.encode(message)))
    put(log, rows, writer="letters")


def values(log: Log, name: str) -> list[bytes | None]:
    return [record.value for record in read_all(log, all_partitions(log, name))]


class Desk:
    """A log with letters, and the command line on it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], address: str) -> None:
        self._capsys = capsys
        self.address = address

    def dlq(self, *words: str) -> Ran:
        return call(self._capsys, "dlq", *words, "--log", self.address)

    def log(self) -> Log:
        return open_log(self.address)

    def outcomes(self, *words: str) -> list[str]:
        ran = self.dlq("redrive", *words, "--json")
        assert ran.code == 0, ran
        return [row["outcome"] for row in ran.lines()]


FEW = ("activation", "dead.letters", "dead.redriven", "late.records", "trade.intents", "world.commands")
"""The topics that these commands touch: whoever only looks at an embedded log reads its whole catalogue at every look."""


def fill(log: Log) -> None:
    place = TopicPartition("world.commands", 0)
    put(log, [(place, b"\xff\x1b[31m", JUNK), (place, b"", BIG)], writer="people")
    write(
        log,
        letter("world.commands", command("w1"), key=encode_key(("w1",))),
        letter("world.commands", JUNK, key=b"\xff\x1b[31m", offset=0),
        letter("trade.intents", command("w1")),
        LateRecord("trading", "trade.market", 60_000, 180_000, 120_000, b"k", JUNK, offset=7),
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a log with letters, to copy."""
    directory = tmp_path_factory.mktemp("filled") / "log"
    log = open_log(f"embedded:{directory}")
    log.ensure_topics([topic(name) for name in FEW])
    fill(log)
    log.close()
    return directory


@pytest.fixture
def desk(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    shutil.copytree(filled, tmp_path / "log")
    return Desk(capsys, f"embedded:{tmp_path / 'log'}")


# ---- list and show --------------------------------------------------------------------------------------------------


def test_list_shows_every_letter_and_obeys_none_of_their_bytes(desk: Desk) -> None:
    rows = desk.dlq("list", "--json").lines()
    assert [(row["id"], row["topic"], row["code"], row["offset"]) for row in rows] == [
        ("dead.letters/0/0", "world.commands", "QMTL-405", 5),
        ("dead.letters/0/1", "world.commands", "QMTL-405", 0),
        ("dead.letters/0/2", "trade.intents", "QMTL-405", 5),
    ]
    assert all(row["whole"] and not row["redriven"] and row["stack_digest"] == "ab" * 8 for row in rows)
    shown = desk.dlq("list")
    assert all(row["id"] in shown.out for row in rows)
    assert "\x1b" not in shown.out
    assert "\\x1b[2J" in shown.out


FILTERS: list[tuple[list[str], list[int]]] = [
    (["--topic", "trade.intents"], [2]),
    (["--processor", "worldservice"], [0, 1, 2]),
    (["--processor", "nobody"], []),
    (["--code", "QMTL-405"], [0, 1, 2]),
    (["--code", "QMTL-202"], []),
    (["--from-time", "1970-01-02"], [0, 1, 2]),
    (["--to-time", "1970-01-02"], []),
    (["--limit", "1"], [2]),
]


def test_list_takes_what_the_filters_leave(desk: Desk) -> None:
    for words, ids in FILTERS:
        rows = desk.dlq("list", *words, "--json").lines()
        assert [row["id"] for row in rows] == [f"dead.letters/0/{one}" for one in ids], words


def test_list_counts_letters_by_kind(desk: Desk) -> None:
    rows = desk.dlq("list", "--counts", "--json").lines()
    assert [(row["topic"], row["count"]) for row in rows] == [("world.commands", 2), ("trade.intents", 1)]
    assert "trade.intents" in desk.dlq("list", "--counts").out


def test_list_shows_late_records(desk: Desk) -> None:
    (row,) = desk.dlq("list", "--late", "--json").lines()
    assert (row["bucket_ms"], row["last_bucket_ms"], row["late_ms"]) == (60_000, 180_000, 120_000)
    assert "1970-01-01T00:03:00.000Z" in desk.dlq("list", "--late").out
    assert_one_screen(desk.dlq("list", "--late", "--code", "QMTL-405"), "QMTL-801", 2)


def test_a_log_without_letters_has_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EmbeddedLog(tmp_path / "log").close()
    empty = Desk(capsys, f"embedded:{tmp_path / 'log'}")
    assert empty.dlq("list", "--json").lines() == []
    assert empty.dlq("list").code == 0


def test_show_decodes_what_it_can_and_dumps_the_rest(desk: Desk) -> None:
    whole = desk.dlq("show", "dead.letters/0/0")
    assert "CreateWorld" in whole.out
    assert '"world_id": "w1"' in whole.out
    torn = desk.dlq("show", "dead.letters/0/1")
    assert "\x1b" not in torn.out
    assert "not decodable" in torn.out
    rows = [line.split("  ") for line in torn.out.splitlines() if line.startswith("0000")]
    assert b"".join(bytes.fromhex(row[1]) for row in rows) == b"\xff\x1b[31m" + JUNK
    shown = desk.dlq("show", "dead.letters/0/1", "--json")
    assert '"error"' in shown.out
    late = desk.dlq("show", "late.records/0/0")
    assert "late_ms" in late.out


def test_show_knows_no_letter_where_there_is_none(desk: Desk) -> None:
    for letter_id in (
        "dead.letters/0/99",
        "dead.letters/7/0",
        "world.commands/0/0",
        "x",
        "dead.letters/0/-1",
        "dead.letters/0/3",
    ):
        assert_one_screen(desk.dlq("show", letter_id), "QMTL-806", 6)


# ---- redrive ----------------------------------------------------------------------------------------------------------


def test_redrive_writes_nothing_unless_it_is_told_to(desk: Desk) -> None:
    log = desk.log()
    wheres = [where for name in log.topics() for where in all_partitions(log, name)]
    before = dict(log.end_offsets(wheres))
    log.close()
    assert_one_screen(desk.dlq("redrive", "--all"), "QMTL-801", 2, says=["--yes"])
    assert_one_screen(desk.dlq("redrive", "--yes"), "QMTL-801", 2)
    assert_one_screen(desk.dlq("redrive", "--all", "dead.letters/0/0", "--yes"), "QMTL-801", 2)
    assert desk.outcomes("--all", "--dry-run") == ["would write", "refused", "refused"]
    log = desk.log()
    assert dict(log.end_offsets(wheres)) == before
    log.close()


@pytest.mark.parametrize("kind", ["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def test_a_letter_is_written_back_once_and_its_reader_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "kafka":
        namespace = request.getfixturevalue("kafka_namespace").strip(".")[-30:]
        address = f"kafka://{request.getfixturevalue('kafka_bootstrap')}/{namespace}"
    else:
        address = f"embedded:{tmp_path / 'log'}"
    desk = Desk(capsys, address)
    log = desk.log()
    prepare(log)
    fill(log)
    wheres = [where for name in log.topics() for where in all_partitions(log, name)]
    until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))  # a commit is told before it shows
    log.close()
    assert desk.outcomes("dead.letters/0/0", "--yes") == ["written"]
    assert desk.outcomes("dead.letters/0/0", "--yes") == ["done before"]
    assert desk.outcomes("dead.letters/0/0", "--dry-run") == ["done before"]
    assert desk.outcomes("--topic", "world.commands", "--yes") == ["done before", "refused"]
    assert [row["redriven"] for row in desk.dlq("list", "--json").lines()] == [True, False, False]
    log = desk.log()
    assert values(log, "world.commands")[2:] == [command("w1")]
    assert len(values(log, "dead.redriven")) == 1
    (worker,) = make_workers(log, TaskSettings(tmp_path / "tasks"), ["worldservice"])
    until(lambda: not worker.step() and bool(TableView(log, "world.outcomes", codec).refresh().rows()), 60.0)
    (outcome,) = TableView(log, "world.outcomes", codec).refresh().rows()
    assert (outcome.world_id, outcome.accepted) == ("w1", True)
    worker.close()
    log.close()


@pytest.mark.parametrize("fault", list(Fault))
def test_a_redrive_whose_outcome_nobody_knows_may_be_repeated(tmp_path: Path, fault: Fault) -> None:
    log = FaultyLog(tmp_path / "log", iter([fault]))
    prepare(log)
    write(log, *(letter("world.commands", command(f"w{number}")) for number in range(3)))

    def attempt() -> None:
        driver = Redrive(log)
        driver.write([driver.plan(one) for one in find(log, DEAD, Wanted())], 1)

    with suppress(TransactionAborted, OutcomeUnknown):
        attempt()
    attempt()
    attempt()
    assert values(log, "world.commands") == [command(f"w{number}") for number in range(3)]
    log.close()


def test_of_two_who_planned_the_same_one_writes_it_back(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    prepare(log)
    write(log, letter("world.commands", command("w")))
    both = [Redrive(log), Redrive(log)]
    plans = [[driver.plan(one) for one in find(log, DEAD, Wanted())] for driver in both]
    written = [driver.write(plan, 1) for driver, plan in zip(both, plans, strict=True)]
    assert [len(one) for one in written] == [1, 0]
    assert values(log, "world.commands") == [command("w")]
    log.close()


def test_a_record_too_large_for_its_letter_is_fetched_where_it_lies(desk: Desk) -> None:
    log = desk.log()
    write(
        log,
        letter("world.commands", BIG, key=b"", offset=1),
        letter("world.commands", BIG, key=b"", offset=0),
    )
    log.close()
    wanted = ["dead.letters/0/4", "dead.letters/0/5"]
    assert [row["whole"] for row in desk.dlq("list", "--json").lines()[3:]] == [False, False]
    assert_one_screen(desk.dlq("redrive", wanted[1], "--yes", "--force"), "QMTL-807", 6, says=["too large"])
    assert desk.outcomes(wanted[0], "--yes", "--force") == ["written"]
    log = desk.log()
    assert values(log, "world.commands")[2:] == [BIG]
    log.close()


@pytest.mark.parametrize(
    "spoilt, says",
    [
        (letter("trade.intents", command("w")), "read by bucket"),
        (letter("activation", command("w")), "a table"),
        (letter("nobody.knows", command("w")), "has no topic"),
        (letter("world.commands", command("w"), key=marker_key("p", 0, 1)), "key of the engine's"),
        (letter("world.commands", command("w"), partition=9), "9"),
        (letter("world.commands", JUNK), "would fail again"),
        (letter("world.commands", codec.encode(letter("t", b""))), "carries no DeadLetter"),
        (LateRecord("p", "world.commands", 1, 2, 1, b"k", command("w")), "closed"),
    ],
)
def test_what_can_not_go_back_is_refused_with_the_reason(
    desk: Desk, spoilt: DeadLetter | LateRecord, says: str
) -> None:
    log = desk.log()
    before = {name: values(log, name) for name in ("world.commands", "trade.intents", "activation")}
    write(log, spoilt)
    log.close()
    late = isinstance(spoilt, LateRecord)
    name, place = ("late.records", 2) if late else (DEAD, 4)
    letter_id = f"{name}/0/{place}"
    assert desk.dlq("show", letter_id).code == 0
    ran = desk.dlq("redrive", letter_id, "--yes")
    assert_one_screen(ran, "QMTL-807", 6, says=[says])
    if isinstance(spoilt, DeadLetter):
        assert desk.outcomes("--code", spoilt.code, "--topic", spoilt.topic, "--dry-run")[-1] == "refused"
    log = desk.log()
    assert {name: values(log, name) for name in before} == before
    log.close()
