"""On a cluster that lets nobody do what no rule allows, a worker is told at its start which right it lacks, and has done nothing."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

from qmtl.bootstrap import make_workers, open_log, prepare, rights_of
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_security import VARIABLE, Security
from qmtl.engine.log.port import Log
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.common.errors import DeadLettersRefused, MissingRight
from qmtl.foundation.contracts.world import CreateWorld, WorldSettings
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.topology import PROTOTYPES
from tests.contract.driving import until
from tests.interfaces.cli.running import Ran, assert_one_screen, call, run, start
from tests.misuse.secured import PASSWORDS, Secured, login, secured_broker

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with secured_broker() as one:
        yield one


class Realm(NamedTuple):
    """A namespace of its own on the secured cluster, with the topics in it, and somebody who may use it."""

    secured: Secured
    name: str
    place: Path

    @property
    def address(self) -> str:
        return f"kafka://{self.secured.bootstrap}/{self.name}"

    def keeper(self) -> Log:
        return KafkaLog(self.secured.keeper, f"{self.name}.")

    def worker(self, processor: str, **env: str) -> Ran:
        return run(
            self.place, "worker", "run", processor, "--log", self.address, **{VARIABLE: self.login(), **env}
        )

    def login(self, password: str | None = None) -> str:
        return str(login(self.place / "login.properties", "ann", password))


@pytest.fixture
def realm(secured: Secured, tmp_path: Path) -> Realm:
    one = Realm(secured, f"r{uuid.uuid4().hex[:10]}", tmp_path)
    log = one.keeper()
    prepare(log)
    log.close()
    secured.allow("ann", "topic", f"{one.name}.", ["read", "write", "describe", "describe_configs"])
    secured.allow("ann", "group", f"{one.name}.", ["read"])
    secured.allow("ann", "transactional_id", f"{one.name}.", ["write", "describe"])
    return one


def ends(realm: Realm) -> dict[str, int]:
    """How much lies in each topic."""
    log = realm.keeper()
    try:
        wheres = [where for name in log.topics() for where in all_partitions(log, name)]
        # A broker tells a writer of its commit before it has written the marker.
        until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))
        return {name: sum(log.end_offsets(all_partitions(log, name)).values()) for name in log.topics()}
    finally:
        log.close()


def wait_until_it_runs(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "runs on" in said, said


def test_a_worker_with_all_its_rights_and_no_more_runs(realm: Realm) -> None:
    process = start(
        realm.place, "worker", "run", "worldservice", "--log", realm.address, **{VARIABLE: realm.login()}
    )
    try:
        wait_until_it_runs(process)
        until(lambda: ends(realm)["world.state"] > 0)  # its genesis: a transaction that was let through
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "kind,name,operations,says",
    [
        ("topic", "world.state", ["write"], "WRITE on topic {realm}.world.state"),
        ("topic", "world.commands", ["read"], "READ on topic {realm}.world.commands"),
        ("topic", "dead.letters", ["write"], "WRITE on topic {realm}.dead.letters"),
        ("group", "qmtl.worldservice", ["read"], "READ on group {realm}.qmtl.worldservice"),
        (
            "transactional_id",
            "qmtl.worldservice.0",
            ["write"],
            "WRITE on transactional id {realm}.qmtl.worldservice.0",
        ),
    ],
)
def test_a_right_that_is_missing_is_named_at_the_start_and_nothing_is_done(
    realm: Realm, kind: str, name: str, operations: list[str], says: str
) -> None:
    realm.secured.forbid("ann", kind, f"{realm.name}.{name}", operations)
    before = ends(realm)
    ran = realm.worker("worldservice")
    assert_one_screen(ran, "QMTL-318", 3, says=[says.format(realm=realm.name), "kafka-acls.sh"])
    assert ends(realm) == before
    assert not any(password in ran.err + ran.out for password in PASSWORDS.values())


def test_every_missing_right_is_named_at_once(realm: Realm) -> None:
    realm.secured.forbid("ann", "topic", f"{realm.name}.world.state", ["write"])
    realm.secured.forbid("ann", "topic", f"{realm.name}.activation", ["read", "write"])
    realm.secured.forbid("ann", "group", f"{realm.name}.qmtl.worldservice", ["read"])
    ran = realm.worker("worldservice")
    assert_one_screen(ran, "QMTL-318", 3)
    for one in (
        f"WRITE on topic {realm.name}.world.state",
        f"READ and WRITE on topic {realm.name}.activation",
        f"READ on group {realm.name}.qmtl.worldservice",
    ):
        assert one in ran.err


def test_topics_that_may_not_be_made_are_told_with_the_right_that_lacks(
    secured: Secured, tmp_path: Path
) -> None:
    realm = Realm(secured, f"r{uuid.uuid4().hex[:10]}", tmp_path)
    ran = realm.worker("worldservice")
    assert_one_screen(ran, "QMTL-318", 3, says=["CREATE on topic"])
    log = realm.keeper()
    assert log.topics() == []
    log.close()


def test_a_right_that_is_taken_away_while_a_worker_runs_ends_it_with_the_reason(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, realm.login())
    log = open_log(realm.address)
    prepare(log)
    (worker,) = make_workers(log, TaskSettings(realm.place / "tasks"), ["worldservice"])
    until(lambda: not worker.step(0.05) and ends(realm)["world.state"] > 0)
    realm.secured.forbid("ann", "group", f"{realm.name}.qmtl.worldservice", ["read"])
    with pytest.raises(MissingRight, match="group"):
        until(lambda: worker.step(0.05) and False)
    worker.close()
    log.close()


@pytest.mark.parametrize("letters_before", [0, 1])
def test_no_record_is_skipped_while_letters_may_not_be_written_and_each_has_its_letter_when_they_may(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, letters_before: int
) -> None:
    monkeypatch.setenv(VARIABLE, realm.login())
    keeper = realm.keeper()
    writer = keeper.writer("people")
    settings = WorldSettings("USD", Decimal(1000), Decimal(0), Decimal(0), ())
    spec = topic("world.commands")
    partition = spec.partition_of(CreateWorld("c", "w", settings, 0))

    def give(value: bytes) -> None:
        writer.begin()
        writer.append(spec.name, partition, b"key", value)
        writer.commit({}, "people", None)

    def create(number: int) -> bytes:
        return codec.encode(CreateWorld(f"c{number}", "w", settings, 0))

    def outcomes() -> list[str]:
        return sorted(one.command_id for one in TableView(keeper, "world.outcomes", codec).refresh().rows())

    def letters() -> list[bytes]:
        found = read_all(keeper, all_partitions(keeper, "dead.letters"))
        return [codec.decode(one.value).value for one in found if one.value is not None]

    log = open_log(realm.address)
    (worker,) = make_workers(log, TaskSettings(realm.place / "tasks"), ["worldservice"])
    give(create(1))
    for number in range(letters_before):
        give(b"earlier %d" % number)
    until(lambda: (worker.step(0.05), outcomes() == ["c1"] and len(letters()) == letters_before)[1])
    until(lambda: not worker.step(0.05))

    realm.secured.forbid("ann", "topic", f"{realm.name}.dead.letters", ["write"])
    give(b"poison")
    give(create(2))
    with pytest.raises((DeadLettersRefused, MissingRight), match="Topic authorization failed"):
        until(lambda: worker.step(0.05) and False)
    worker.close()
    with pytest.raises(
        MissingRight, match=r"WRITE on topic .*\.dead\.letters"
    ):  # started again, it says which
        make_workers(log, TaskSettings(realm.place / "tasks"), ["worldservice"])
    assert (outcomes(), len(letters())) == (["c1"], letters_before)

    realm.secured.forbid_no_more("ann", "topic", f"{realm.name}.dead.letters", ["write"])
    (worker,) = make_workers(log, TaskSettings(realm.place / "tasks"), ["worldservice"])
    until(lambda: (worker.step(0.05), outcomes() == ["c1", "c2"])[1])
    assert letters()[letters_before:] == [b"poison"]
    worker.close()
    writer.close()
    log.close()
    keeper.close()


# ---- who only looks -------------------------------------------------------------------------------------------------------


def test_who_may_only_read_is_shown_the_graph_and_may_not_have_it_collected(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    realm.secured.allow(
        "ben", "topic", f"{realm.name}.", ["read", "describe_configs"]
    )  # who reads may describe
    realm.secured.allow("ben", "group", f"{realm.name}.", ["describe"])
    monkeypatch.setenv(VARIABLE, str(login(realm.place / "reader.properties", "ben")))
    before = ends(realm)
    for look in (("queue-stats",), ("queues", "--tag", "sma"), ("sentinels",)):
        ran = call(capsys, "service", "dagmanager", *look, "--log", realm.address)
        assert (ran.code, ran.err) == (0, ""), ran
    refused = call(capsys, "service", "dagmanager", "gc", "--log", realm.address)
    assert_one_screen(refused, "QMTL-318", 3, says=["WRITE"])
    assert ends(realm) == before


# ---- who somebody is ------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_as_what_it_is_and_not_shown(realm: Realm) -> None:
    before = ends(realm)
    path = realm.login("wr0ng-secret")
    ran = run(realm.place, "worker", "run", "worldservice", "--log", realm.address, **{VARIABLE: path})
    assert_one_screen(ran, "QMTL-301", 3, says=["did not let this client in", VARIABLE])
    assert "wr0ng-secret" not in ran.err + ran.out
    assert ends(realm) == before


@pytest.mark.parametrize(
    "text,says",
    [
        ("sasl.password", "line 1: that is no `name=value`"),
        ("security.protocol=SASL_SSL\n=t0psecret", "line 2: that is no `name=value`"),
        ("isolation.level=read_uncommitted", "isolation.level may not be set"),
        ("sasl.password=t0psecret\nsasl.password=t0psecret", "line 2: sasl.password is there twice"),
        ("security.protocol=t0psecret", "does not take security.protocol"),
        ("sasl.t0p=t0psecret", "does not take sasl.t0p"),
    ],
)
def test_a_file_of_settings_that_can_not_be_used_is_refused_without_showing_a_value(
    secured: Secured, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "login.properties"
    path.write_text(text, encoding="utf-8")
    ran = run(tmp_path, "topic", "list", "--log", f"kafka://{secured.bootstrap}", **{VARIABLE: str(path)})
    assert_one_screen(ran, "QMTL-801", 2, says=[says])
    assert "t0psecret" not in ran.err + ran.out


def test_a_file_of_settings_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ran = run(tmp_path, "topic", "list", "--log", "kafka://127.0.0.1:1", **{VARIABLE: str(tmp_path / "none")})
    assert_one_screen(ran, "QMTL-801", 2, says=[VARIABLE, "No such file"])


def test_nothing_that_shows_a_log_shows_its_secrets(realm: Realm) -> None:
    security = Security("place", {"sasl.password": "t0psecret"})
    assert "t0psecret" not in repr(security)
    log = KafkaLog(realm.secured.keeper, "n.", security=Security("place", {"ssl.key.password": "t0psecret"}))
    assert "t0psecret" not in repr(log) + repr(log.security) + log.log_id
    log.close()


def test_what_a_worker_needs_is_what_its_processor_touches() -> None:
    for one in PROTOTYPES:
        rights = rights_of(one)
        assert rights.writes >= {*one.tables, *one.emits, "dead.letters"}
        assert rights.reads >= {*one.tables, *(read.topic for read in one.inputs())}
        assert rights.group == f"qmtl.{one.name}"
