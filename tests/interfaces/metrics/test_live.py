"""What is told of live orders: each kind from the beginning, and by who has met it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from qmtl.bootstrap import prepare
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.observer import TaskId
from qmtl.foundation.contracts.broker import AttemptState
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.metrics.live import LiveGauges
from qmtl.interfaces.metrics.serve import Metrics
from qmtl.interfaces.metrics.watch import Watch
from qmtl.services.egress.processor import Desk
from qmtl.topology import NOWHERE, Outside
from tests.contract.driving import put, until
from tests.interfaces.cli.test_oms import AT_MS, ATTEMPTS, SESSIONS, order


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


def test_who_has_the_task_tells_what_is_open_as_the_tables_have_it(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    prepare(log)
    watch = Watch(["oms"], CollectorRegistry())
    claimed = replace(ATTEMPTS[1], state=AttemptState.CLAIMED)
    unknown = replace(claimed, order=order("w3", "o3"), state=AttemptState.UNKNOWN, claimed_ms=AT_MS + 9)
    rows = (("ops.sessions", SESSIONS), ("oms.attempts", (ATTEMPTS[0], claimed, unknown)))
    put(
        log,
        [
            (TopicPartition(name, 0), encode_key(topic(name).key_of(one)), codec.encode(one))
            for name, found in rows
            for one in found
        ],
        writer="oms",
    )
    gauges = LiveGauges(log, watch)
    try:
        until(lambda: (found := gauges.get()) is not None and found.age_s is not None)
        taken = gauges.get()
        assert list(gauges.collect(taken)) == []  # the task is another's
        watch.opening(TaskId("oms", 0))
        told = {
            (one.name, *one.labels.values()): one.value
            for family in gauges.collect(taken)
            for one in family.samples
        }
    finally:
        gauges.stop()
        log.close()
    assert taken is not None
    assert taken.value.unproven_ms == AT_MS + 5
    assert told.pop(("qmtl_live_orders_unproven_seconds",)) > 1_000_000
    assert told == {
        ("qmtl_live_orders", "requested"): 1,
        ("qmtl_live_orders", "claimed"): 1,
        ("qmtl_live_orders", "unknown"): 1,
        ("qmtl_live_orders", "working"): 0,
        ("qmtl_live_sessions", "open"): 1,
        ("qmtl_live_sessions", "blocked"): 1,
        ("qmtl_live_sessions", "closed"): 0,
        ("qmtl_live_sessions_missing",): 1,
    }
