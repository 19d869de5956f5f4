"""The logs on which clocks are tried; Kafka only where nothing else can show it."""

from __future__ import annotations

import pytest

from qmtl.engine.log.port import Log
from tests.contract.logs import embedded_log, kafka_log, simulated_log

__all__ = ["embedded_log", "kafka_log", "simulated_log"]


@pytest.fixture(params=["embedded", "simulated"])
def log(request: pytest.FixtureRequest) -> Log:
    """Each of the two logs in turn."""
    found: Log = request.getfixturevalue(f"{request.param}_log")
    return found
