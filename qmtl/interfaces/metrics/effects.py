"""What the topic admin has met outside: on the cluster, and where it asks how busy the brokers are."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from qmtl.topology import Outside


class EffectCounts(Collector):
    """Collects. Each cause is there from the beginning: a rate needs the zero before the first."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def collect(self) -> Iterator[Metric]:
        met = CounterMetricFamily(
            "qmtl_topic_request_failures",
            "Requests to make or remove topics that came to nothing yet, and are made again, by the cause.",
            labels=("cause",),
        )
        for trouble, count in self._outside.patience.met.items():
            met.add_metric((trouble.value,), count)
        yield met
        if self._outside.load is not None:
            unknown = CounterMetricFamily(
                "qmtl_broker_load_failures",
                "Times that it could not be found out how busy the brokers are, by the cause.",
                labels=("cause",),
            )
            for cause, count in self._outside.load.failures().items():
                unknown.add_metric((cause,), count)
            yield unknown
