"""What is told of live orders: each kind from the beginning, and by who has met it alone."""

from __future__ import annotations

from qmtl.interfaces.metrics.serve import Metrics
from qmtl.services.egress.processor import Desk
from qmtl.topology import NOWHERE, Outside


def test_what_the_venue_has_said_is_counted_by_its_kind_and_code() -> None:
    desk = Desk(None, "me", 0)
    registry = Metrics(["egress"], Outside(NOWHERE.topics, desk=desk)).registry

    def told(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert told("qmtl_venue_answers_total", kind="Fill") == 0
    assert told("qmtl_live_orders_refused_total", code="QMTL-723") == 0
    assert told("qmtl_venue_connected") == 0
    desk.counted["Fill"], desk.refused["QMTL-723"], desk.is_connected = 2, 3, True
    assert told("qmtl_venue_answers_total", kind="Fill") == 2
    assert told("qmtl_live_orders_refused_total", code="QMTL-723") == 3
    assert told("qmtl_venue_connected") == 1


def test_only_who_reaches_a_venue_tells_of_it() -> None:
    outside = Outside(NOWHERE.topics, desk=Desk(None, "me", 0))
    assert Metrics(["oms"], outside).registry.get_sample_value("qmtl_venue_connected") is None
