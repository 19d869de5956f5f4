"""`qmtl oms`: sessions and open live orders as they lie on the log; and which worker may be given a venue."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from qmtl.bootstrap import VENUE, desk_of, prepare
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.contracts.broker import Attempt, AttemptState, BrokerSession, SessionState
from qmtl.foundation.contracts.trade import BrokerMode, Order, OrderStatus, OrderType, Side, TimeInForce
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.cli.worker import lacks_venue
from qmtl.topology import NOWHERE, Outside
from tests.contract.driving import put
from tests.interfaces.cli.running import assert_one_screen, call

AT_MS = 1_700_000_000_000


def order(world_id: str, order_id: str) -> Order:
    return Order(
        *(world_id, "s1", order_id, "BTC/USD", Side.BUY, OrderType.MARKET, TimeInForce.GTC),
        *(Decimal("1.50"), OrderStatus.PENDING_NEW, Decimal("0.5"), Decimal(100), 1, False, Decimal(100)),
        *(AT_MS, AT_MS, AT_MS, BrokerMode.LIVE, 2),
    )


SESSIONS = (
    BrokerSession("w1", 3, SessionState.OPEN, "w1:s1:long:4", "binance", True, "", "", AT_MS),
    BrokerSession("w2", 1, SessionState.BLOCKED, "orders", "", False, "QMTL-721", "silence \x1b[2J", AT_MS),
)
ATTEMPTS = (
    Attempt(order("w1", "o1"), AttemptState.REQUESTED, 0, "", 0, False),
    Attempt(order("w2", "o2"), AttemptState.WORKING, AT_MS + 5, "v9", 1, True),
)


@pytest.fixture
def address(tmp_path: Path) -> str:
    log = EmbeddedLog(tmp_path / "log")
    prepare(log)
    rows = [
        (TopicPartition(name, 0), encode_key(topic(name).key_of(one)), codec.encode(one))
        for name, found in (("ops.sessions", SESSIONS), ("oms.attempts", ATTEMPTS))
        for one in found
    ]
    put(log, rows, writer="oms")
    log.close()
    return f"embedded:{tmp_path / 'log'}"


def test_the_sessions_of_every_world_or_of_one(capsys: pytest.CaptureFixture[str], address: str) -> None:
    first, second = call(capsys, "oms", "sessions", "--json", "--log", address).lines()
    assert first == {
        "world": "w1",
        "number": 3,
        "state": "open",
        "venue": "binance",
        "connected": True,
        "reason": "w1:s1:long:4",
        "code": None,
        "detail": None,
        "since_ms": AT_MS,
    }
    assert (second["code"], second["connected"], second["venue"]) == ("QMTL-721", False, None)
    only = call(capsys, "oms", "sessions", "--world", "w2", "--format", "json", "--log", address)
    assert only.lines() == [second]
    shown = call(capsys, "oms", "sessions", "--log", address)
    assert "QMTL-721: silence" in shown.out
    assert "\x1b" not in shown.out


def test_the_open_orders_of_every_world_or_of_one(capsys: pytest.CaptureFixture[str], address: str) -> None:
    first, second = call(capsys, "oms", "orders", "--json", "--log", address).lines()
    assert (first["state"], first["claimed_ms"], first["canceling"]) == ("requested", None, False)
    assert second == {
        "world": "w2",
        "strategy": "s1",
        "order": "o2",
        "venue_order": "v9",
        "symbol": "BTC/USD",
        "side": "BUY",
        "quantity": "1.5",
        "filled": "0.5",
        "state": "working",
        "claimed_ms": AT_MS + 5,
        "canceling": True,
    }
    assert call(capsys, "oms", "orders", "--world", "w1", "--json", "--log", address).lines() == [first]
    assert call(capsys, "oms", "orders", "--world", "w", "--json", "--log", address).lines() == []
    (row,) = [one for one in call(capsys, "oms", "orders", "--log", address).out.splitlines() if "o2" in one]
    assert "working" in row
    assert row.endswith("yes")


def test_what_was_left_off_is_said(capsys: pytest.CaptureFixture[str], address: str) -> None:
    ran = call(capsys, "oms", "orders", "--limit", "1", "--log", address)
    assert "1 of 2 orders" in ran.err


@pytest.mark.parametrize("verb", ["sessions", "orders"])
def test_a_directory_without_a_log_is_left_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    ran = call(capsys, "oms", verb, "--log", f"embedded:{tmp_path / 'none'}")
    assert ran.code
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["oms", "trading", "clock"])
def test_a_venue_is_refused_for_who_reaches_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "worker", "run", name, "--log", log, "--venue", "ccxt:binance")
    assert_one_screen(ran, "QMTL-801", 2, says=["--venue", name, "egress"])
    assert not (tmp_path / "log").exists()


def test_an_address_that_is_none_is_refused_without_its_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "worker", "run", "egress", "--log", log, "--venue", "my-secret-key")
    assert_one_screen(ran, "QMTL-801", 2, says=["ccxt:"])
    assert "my-secret-key" not in ran.err


def test_only_an_egress_without_a_venue_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VENUE, raising=False)
    assert lacks_venue(["egress"], NOWHERE)
    assert lacks_venue(["egress"], Outside(NOWHERE.topics, desk=desk_of()))
    assert not lacks_venue(["oms"], NOWHERE)
    pytest.importorskip("ccxt")
    monkeypatch.setenv(VENUE, "ccxt:binance?url=http://127.0.0.1:9")
    assert not lacks_venue(["egress"], Outside(NOWHERE.topics, desk=desk_of()))
