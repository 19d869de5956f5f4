"""What is told of the topic admin rises while the cluster is away, and stands still once it is back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from qmtl.interfaces.metrics.effects import EffectCounts
from qmtl.interfaces.metrics.serve import Metrics
from qmtl.services.dagmanager.broker_load import PrometheusLoad
from qmtl.topology import Outside
from tests.services.dagmanager.outside import Cluster, Office, create, remove


def test_a_cluster_that_is_away_is_counted_and_so_is_a_prometheus() -> None:
    cluster = Cluster(silent=range(1, 5))
    load = PrometheusLoad("http://127.0.0.1:1", 1000)  # a port that nobody has
    office, registry = Office(cluster, load=load), CollectorRegistry()
    registry.register(EffectCounts(Outside(cluster, patience=office.patience, load=load)))

    def told(name: str) -> dict[str, float]:
        return {
            sample.labels["cause"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == f"qmtl_{name}_failures_total"
        }

    assert told("topic_request") == {"unreachable": 0, "refused": 0, "unsettled": 0}
    assert set(told("broker_load").values()) == {0}
    office.do(create("n_a"))
    for _ in range(2):
        assert told("topic_request") == {"unreachable": 4, "refused": 0, "unsettled": 0}
        office.do(remove("n_a"))
    assert {cause: count for cause, count in told("broker_load").items() if count} == {"unreachable": 1}


def test_only_who_makes_topics_tells_of_it() -> None:
    for names, told in (["topicadmin"], True), (["dagmanager", "nodes"], False):
        shown = Metrics(names, Outside(Cluster()))
        found = shown.registry.get_sample_value("qmtl_topic_request_failures_total", {"cause": "unreachable"})
        assert (found == 0) is told
        assert shown.registry.get_sample_value("qmtl_broker_load_failures_total") is None
