"""The two logs."""

from tests.contract.logs import embedded_log, kafka_log, log

__all__ = ["embedded_log", "kafka_log", "log"]
