"""The two logs, and a worker by a clock that is set by hand."""

from tests.contract.logs import embedded_log, kafka_log, log
from tests.engine.waiting import bed

__all__ = ["bed", "embedded_log", "kafka_log", "log"]
