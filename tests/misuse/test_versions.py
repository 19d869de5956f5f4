"""A cluster that is older than what is supported is refused at the start, with nothing made on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AdminClient,
    ConfigEntry,
    ConfigResource,
)

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_rights import require_version
from qmtl.foundation.common.errors import BrokerTooOld, LogError
from qmtl.testing.broker import Broker
from qmtl.testing.broker_parts import Jvm, cache_dir, find_java
from tests.interfaces.cli.running import assert_one_screen, run
from tests.neighbours.scale import FULL

RECIPE = Path(__file__).parent / "kafka_3_9" / "pom.xml"


def old_jars() -> Path:
    """The jars of the old broker, fetched by Maven once, which checks what it fetches."""
    place = cache_dir(os.environ) / "libs" / "kafka-3.9.1"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=place.parent) as directory:
            fetched = Path(directory) / "jars"
            maven = shutil.which("mvn")
            assert maven is not None, "Maven is needed to fetch the old broker"
            command = [
                *(maven, "--quiet", "--batch-mode", "--strict-checksums", "-f", str(RECIPE)),
                *("dependency:copy-dependencies", f"-DoutputDirectory={fetched}"),
            ]
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=250)
            fetched.rename(place)
    return place


@pytest.fixture
def old_broker() -> Iterator[Broker]:
    with Broker(Jvm(find_java(os.environ, []), old_jars()), None, {}, guarded=True) as broker:
        broker.start()
        yield broker


@pytest.mark.broker
@pytest.mark.skipif(not FULL, reason="fetches a second Kafka: make campaign-neighbours")
def test_a_kafka_before_4_is_refused_and_gets_no_topic(old_broker: Broker, tmp_path: Path) -> None:
    for line in (
        ["worker", "run", "worldservice"],
        ["world", "create", "w1"],
        ["demo", "--state-dir", str(tmp_path / "state")],
    ):
        ran = run(tmp_path, *line, "--log", f"kafka://{old_broker.bootstrap}/old")
        assert_one_screen(ran, "QMTL-317", 3, says=["Kafka 3.9", "4.0", "--log"])
    admin = AdminClient({"bootstrap.servers": old_broker.bootstrap})
    assert [name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")] == []


class Answering:
    """A client of the cluster's administration that gives one answer about the settings of a broker."""

    def __init__(self, answer: dict[str, ConfigEntry] | KafkaException) -> None:
        self._answer = answer

    def describe_configs(self, resources: list[ConfigResource], request_timeout: float) -> dict[Any, Any]:
        future: Future[dict[str, ConfigEntry]] = Future()
        if isinstance(self._answer, KafkaException):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return dict.fromkeys(resources, future)


def says(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


def test_what_only_a_kafka_before_4_says_of_itself_is_refused_with_its_version() -> None:
    name = "inter.broker.protocol.version"  # a setting that Kafka 4.0 took away
    old = Answering({name: ConfigEntry(name, "3.9-IV0")})
    with pytest.raises(BrokerTooOld) as refused:
        require_version(old, 2, 1.0)
    assert refused.value.code == "QMTL-317"
    assert "broker 2 is Kafka 3.9;" in refused.value.what
    require_version(Answering({"log.dirs": ConfigEntry("log.dirs", "/data")}), 2, 1.0)


def test_who_may_not_see_a_brokers_settings_goes_on_and_silence_is_no_version() -> None:
    require_version(Answering(says(KafkaError.CLUSTER_AUTHORIZATION_FAILED)), 1, 1.0)
    with pytest.raises(LogError, match="did not answer"):
        require_version(Answering(says(KafkaError._TIMED_OUT)), 1, 1.0)


def test_the_kafka_of_the_tests_is_not_too_old(kafka_bootstrap: str, kafka_namespace: str) -> None:
    log = open_log(f"kafka://{kafka_bootstrap}/{kafka_namespace[:30].strip('.-')}")
    assert isinstance(log, KafkaLog)
    log.require_version()
    prepare(log)
    log.close()
