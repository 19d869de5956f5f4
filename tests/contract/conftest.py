"""The three logs."""

from tests.contract.logs import embedded_log, every_log, kafka_log, simulated_log

__all__ = ["embedded_log", "every_log", "kafka_log", "simulated_log"]
