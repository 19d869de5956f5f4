"""Fixtures that give the logs, one at a time, each empty; the rooms that want them import them into their conftest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log
from qmtl.engine.simulate.log import SimulatedLog


@pytest.fixture
def kafka_log(kafka_bootstrap: str, kafka_namespace: str) -> Iterator[KafkaLog]:
    """A name space of its own on a real Kafka."""
    log = KafkaLog(kafka_bootstrap, kafka_namespace)
    yield log
    log.close()


@pytest.fixture
def embedded_log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    """A log in a directory of its own."""
    log = EmbeddedLog(tmp_path / "log")
    yield log
    log.close()


@pytest.fixture
def simulated_log() -> SimulatedLog:
    """A cluster of its own in memory."""
    return SimulatedLog()


@pytest.fixture(name="log", params=["embedded", "simulated", pytest.param("kafka", marks=pytest.mark.broker)])
def every_log(request: pytest.FixtureRequest) -> Log:
    """Each of the three logs in turn."""
    found: Log = request.getfixturevalue(f"{request.param}_log")
    return found


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def log(request: pytest.FixtureRequest) -> Log:
    """Each of the two logs that a process of its own can open, in turn."""
    found: Log = request.getfixturevalue(f"{request.param}_log")
    return found
