"""The fake exchange: as strict as the one it stands for, and nothing that it has answered is lost by a kill."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from decimal import Decimal
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.foundation.common.money import product, total, whole_steps
from qmtl.testing.exchange import Fault, RunningExchange, entries, orders_and_fills, running_exchange
from qmtl.testing.exchange.api import Api
from qmtl.testing.exchange.book import Book, Refusal
from qmtl.testing.exchange.ledger import Entry, Ledger
from qmtl.testing.exchange.values import Listing, Rules, listed

ROOT = Path(__file__).resolve().parents[2]
NOW_MS = 1499827319559

# The HMAC example that Binance documents for POST /api/v3/order: key, secret, parameters and their signature.
# https://github.com/binance/binance-spot-api-docs, rest-api.md, "SIGNED Endpoint Examples"; the values are facts of the interface.
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
SIGNED = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
SIGNATURE = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"

# The names of the fields that Binance documents of its answers, in the same file.
DOCUMENTED = {
    "POST /api/v3/order": "symbol orderId orderListId clientOrderId transactTime price origQty executedQty origQuoteOrderQty"
    " cummulativeQuoteQty status timeInForce type side workingTime selfTradePreventionMode fills",
    "fills": "price qty commission commissionAsset tradeId",
    "GET /api/v3/order": "symbol orderId orderListId clientOrderId price origQty executedQty cummulativeQuoteQty status timeInForce"
    " type side stopPrice icebergQty time updateTime isWorking workingTime origQuoteOrderQty selfTradePreventionMode",
    "DELETE /api/v3/order": "symbol origClientOrderId orderId orderListId clientOrderId transactTime price origQty executedQty"
    " origQuoteOrderQty cummulativeQuoteQty status timeInForce type side selfTradePreventionMode",
    "GET /api/v3/myTrades": "symbol id orderId orderListId price qty quoteQty commission commissionAsset time isBuyer isMaker isBestMatch",
    "GET /api/v3/account": "makerCommission takerCommission buyerCommission sellerCommission commissionRates canTrade canWithdraw"
    " canDeposit brokered requireSelfTradePrevention preventSor updateTime accountType balances permissions uid",
}


def signed(now_ms: int = NOW_MS, window_ms: int | None = 5000, /, **params: object) -> str:
    given = {**params, "timestamp": now_ms, **({} if window_ms is None else {"recvWindow": window_ms})}
    query = urlencode(given)
    return f"{query}&signature={hmac.new(SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()}"


class Desk:
    """The exchange without its network."""

    def __init__(self, **rules: Any) -> None:
        self.book = Book({"LTC-BTC": Listing("LTC-BTC", Decimal("0.1"))}, rules=Rules(**rules))
        self.api = Api(self.book, KEY, SECRET, self.book.applied)

    def asked(self, endpoint: str, now_ms: int = NOW_MS, /, **params: object) -> tuple[int, Any]:
        return self.api.answer(endpoint, signed(now_ms, **params), "", KEY, lambda: now_ms)

    def ordered(self, client_id: str = "one", **params: object) -> tuple[int, Any]:
        given = {"symbol": "LTCBTC", "side": "BUY", "type": "MARKET", "quantity": "1", **params}
        return self.asked("POST /api/v3/order", newClientOrderId=client_id, **given)


# ---- as strict as the one it stands for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query, body",
    [
        (f"{SIGNED}&signature={SIGNATURE}", ""),
        ("", f"{SIGNED}&signature={SIGNATURE}"),
        ("", f"{SIGNED}&signature={SIGNATURE.upper()}"),
    ],
)
def test_the_documented_signature_is_good(query: str, body: str) -> None:
    status, said = Desk().api.answer("POST /api/v3/order", query, body, KEY, lambda: NOW_MS)
    assert (status, said["code"]) == (400, -1116)  # signed as documented; limit orders are not taken here


@pytest.mark.parametrize(
    "query, key, now_ms, status, code",
    [
        (f"{SIGNED}&signature={SIGNATURE}", None, NOW_MS, 401, -2014),
        (f"{SIGNED}&signature={SIGNATURE}", "another", NOW_MS, 401, -2015),
        (f"{SIGNED}&signature={'0' * 64}", KEY, NOW_MS, 400, -1022),
        (f"{SIGNED}&signature=ä", KEY, NOW_MS, 400, -1022),
        (f"{SIGNED}0&signature={SIGNATURE}", KEY, NOW_MS, 400, -1022),
        (SIGNED, KEY, NOW_MS, 400, -1102),
        (f"{SIGNED}&signature={SIGNATURE}", KEY, NOW_MS + 5000, 400, -1116),
        (f"{SIGNED}&signature={SIGNATURE}", KEY, NOW_MS + 5001, 400, -1021),
        (f"{SIGNED}&signature={SIGNATURE}", KEY, NOW_MS - 999, 400, -1116),
        (f"{SIGNED}&signature={SIGNATURE}", KEY, NOW_MS - 1000, 400, -1021),
        (signed(NOW_MS, 60_001), KEY, NOW_MS, 400, -1131),
        (signed(NOW_MS, None, symbol="LTCBTC"), KEY, NOW_MS + 5001, 400, -1021),
    ],
)
def test_who_may_not_ask_is_refused(query: str, key: str | None, now_ms: int, status: int, code: int) -> None:
    found, said = Desk().api.answer("POST /api/v3/order", query, "", key, lambda: now_ms)
    assert (found, said["code"]) == (status, code)


@pytest.mark.parametrize(
    "params, code",
    [
        ({"symbol": "NONE"}, -1121),
        ({"symbol": ""}, -1102),
        ({"side": "HOLD"}, -1117),
        ({"type": "STOP"}, -1116),
        ({"quantity": "1e3"}, -1100),
        ({"quantity": "-1"}, -1100),
        ({"quantity": "0"}, -1013),
        ({"quantity": "0.000000001"}, -1013),
        ({"quantity": "9000000001"}, -1013),
        ({"client_id": "a" * 37}, -1100),
        ({"client_id": "a b"}, -1100),
        ({"reduceOnly": "true"}, -1106),
    ],
)
def test_what_it_does_not_take_is_refused(params: dict[str, str], code: int) -> None:
    desk = Desk()
    status, said = desk.ordered(**params)
    assert (status, said["code"]) == (400, code)
    assert desk.book.orders == {}


def test_a_client_id_is_taken_again_once_its_order_is_not_open_any_more() -> None:
    """As Binance documents it: unique among open orders, so that what was sent twice may be executed twice."""
    desk = Desk(at_once=False)
    assert desk.ordered()[1]["orderId"] == 1
    assert desk.ordered()[1] == {"code": -2010, "msg": "Duplicate order sent."}
    desk.book.applied(desk.book.fill(desk.book.orders[1], None, None, NOW_MS))
    assert desk.ordered()[1]["orderId"] == 2
    found = desk.asked("GET /api/v3/order", symbol="LTCBTC", origClientOrderId="one")[1]
    assert found["orderId"] == 2
    assert len(desk.book.orders) == 2


def test_it_answers_with_the_documented_fields() -> None:
    desk = Desk()
    taken = desk.ordered()[1]
    assert set(taken) == set(DOCUMENTED["POST /api/v3/order"].split())
    assert set(taken["fills"][0]) == set(DOCUMENTED["fills"].split())
    one = {"symbol": "LTCBTC", "origClientOrderId": "one"}
    assert set(desk.asked("GET /api/v3/order", **one)[1]) == set(DOCUMENTED["GET /api/v3/order"].split())
    assert set(desk.asked("GET /api/v3/account")[1]) == set(DOCUMENTED["GET /api/v3/account"].split())
    (trade,) = desk.asked("GET /api/v3/myTrades", symbol="LTCBTC", orderId=1)[1]
    assert set(trade) == set(DOCUMENTED["GET /api/v3/myTrades"].split())
    desk.book.rules = Rules(at_once=False)
    desk.ordered("two")
    ended = desk.asked("DELETE /api/v3/order", symbol="LTCBTC", origClientOrderId="two")[1]
    assert set(ended) == set(DOCUMENTED["DELETE /api/v3/order"].split())
    assert (ended["origClientOrderId"], ended["status"]) == ("two", "CANCELED")
    for endpoint, code in (("DELETE /api/v3/order", -2011), ("GET /api/v3/order", -2013)):
        said = desk.asked(endpoint, symbol="LTCBTC", origClientOrderId="none")[1]
        assert said["code"] == code


def test_trades_come_in_pages_and_without_a_number_the_newest() -> None:
    desk = Desk(pieces=7)
    desk.ordered(quantity="0.00000700")

    def page(**params: object) -> list[int]:
        found = desk.asked("GET /api/v3/myTrades", symbol="LTCBTC", orderId=1, **params)[1]
        return [one["id"] for one in found]

    assert page(limit=3) == [5, 6, 7]
    assert page(limit=3, fromId=0) == [1, 2, 3]
    assert page(limit=3, fromId=6) == [6, 7]


@given(
    st.integers(1, 10**12),
    st.integers(1, 40),
    st.sampled_from(["quote", "base", "BNB"]),
    st.sampled_from(["BUY", "SELL"]),
)
def test_an_order_is_filled_whole_in_whole_steps_and_the_balances_follow(
    steps: int, pieces: int, asset: str, side: str
) -> None:
    step = Decimal("0.0003")
    listing = Listing("LTC-BTC", Decimal("0.07"), step, Decimal(10**12), step)
    book = Book(
        {listing.symbol: listing},
        {"LTC": Decimal(10**10), "BTC": Decimal(10**10)},
        Rules(pieces=pieces, commission_in=asset),
    )
    quantity = product(Decimal(steps), step)
    entry = book.take(listing, side, quantity, "one", NOW_MS)
    book.applied(entry)
    assert len(entry.fills) == min(pieces, steps)
    assert total(one.quantity for one in entry.fills) == quantity == entry.order.filled
    assert all(product(whole_steps(one.quantity, step), step) == one.quantity for one in entry.fills)
    paid = {"base": "LTC", "quote": "BTC"}.get(asset, asset)
    fees = total(one.commission for one in entry.fills)
    sign = 1 if side == "BUY" else -1
    for name, change in (("LTC", sign * quantity), ("BTC", -sign * product(quantity, listing.price))):
        assert book.balance(name) == Decimal(10**10) + change - (fees if paid == name else 0)


def test_what_the_account_does_not_have_it_does_not_trade() -> None:
    listing = Listing("LTC-BTC", Decimal("0.1"))
    book = Book({listing.symbol: listing}, {"BTC": Decimal(1)})
    with pytest.raises(Refusal, match="insufficient balance"):
        book.take(listing, "BUY", Decimal("10.00000001"), "one", NOW_MS)
    book.applied(book.take(listing, "BUY", Decimal(10), "one", NOW_MS))
    with pytest.raises(Refusal, match="insufficient balance"):
        book.take(listing, "BUY", Decimal("0.00000001"), "two", NOW_MS)


# ---- the ledger -----------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_ledger_that_was_cut_anywhere_has_its_whole_lines_and_goes_on(data: st.DataObject) -> None:
    listing = Listing("LTC-BTC", Decimal("0.1"))
    book = Book({listing.symbol: listing}, rules=Rules(pieces=2))
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"ledger-{os.getpid()}"
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    assert ledger.opened() == []
    kept: list[Entry] = []
    for number in range(3):
        entry = book.take(listing, "BUY", Decimal(number + 1), f"id{number}", NOW_MS)
        ledger.append(entry)
        book.applied(entry)
        kept.append(entry)
    whole = path.read_bytes()
    ends = [at for at, one in enumerate(whole, 1) if one == ord("\n")]
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    left = kept[: sum(end <= cut for end in ends)]
    assert list(entries(path)) == left
    again = Ledger(path)
    assert again.opened() == left
    short = Entry(kept[0].order, ())  # shorter than what the kill may have left
    again.append(short)
    assert list(entries(path)) == [*left, short]
    assert orders_and_fills(kept)[1] == tuple(book.fills)
    path.unlink()


# ---- the process ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningExchange]:
    with running_exchange({"LTC-BTC": Decimal("0.1")}, key=KEY, secret=SECRET) as found:
        yield found


def sent(exchange: RunningExchange, client_id: str) -> dict[str, Any]:
    """A market order over the wire.

    Raises:
        OSError: there was no answer.
    """
    body = signed(
        time.time_ns() // 1_000_000,
        symbol="LTCBTC",
        side="BUY",
        type="MARKET",
        quantity="1",
        newClientOrderId=client_id,
    )
    connection = HTTPConnection("127.0.0.1", exchange.port, timeout=10)
    try:
        connection.request("POST", "/api/v3/order", body, {"X-MBX-APIKEY": KEY})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found


def test_what_was_taken_without_an_answer_is_in_the_ledger(exchange: RunningExchange) -> None:
    exchange.fault(Fault.TAKEN_CUT)
    with pytest.raises(RemoteDisconnected):
        sent(exchange, "cut")
    assert [one.client_order_id for one in exchange.written()[0]] == ["cut"]
    assert exchange.written() == (exchange.orders(), exchange.fills())


def test_it_counts_what_it_is_asked_and_faults_come_in_their_turn(exchange: RunningExchange) -> None:
    before = exchange.counts()
    exchange.fault("429", 2)
    exchange.fault(Fault.NO_BALANCE)
    codes = [sent(exchange, f"turn{number}").get("code") for number in range(4)]
    assert codes == [-1003, -1003, -2010, None]
    after = exchange.counts()
    assert after.requests["POST /api/v3/order"] == before.requests.get("POST /api/v3/order", 0) + 4
    assert (after.decided, after.connections > before.connections) == (before.decided + 1, True)
    assert 0 < after.first_signed_ms <= after.last_signed_ms


def test_a_test_that_asks_for_what_is_not_there_is_told_so(exchange: RunningExchange) -> None:
    with pytest.raises(UsageError, match="endpoint"):
        exchange.fault(Fault.CUT, at="POST /api/v3/orders")
    with pytest.raises(ValueError, match="no_such"):
        exchange.fault("no_such")
    with pytest.raises(UsageError, match="no such order"):
        exchange.fill("nobody")
    with pytest.raises(UsageError, match="left"):
        exchange.fill(exchange.orders()[0].client_order_id)


def test_nothing_that_was_answered_is_lost_by_a_kill_and_the_ids_go_on(tmp_path: Path) -> None:
    with running_exchange(
        {"LTC-BTC": Decimal("0.1")}, ledger=tmp_path / "a" / "ledger", key=KEY, secret=SECRET
    ) as own:
        answered = [sent(own, f"id{number}")["orderId"] for number in range(3)]
        port = own.port
        own.kill()
        assert own.pid == 0
        assert [one.order_id for one in own.written()[0]] == answered == [1, 2, 3]
        own.start()
        assert own.port == port
        assert sent(own, "id9")["orderId"] == 4
        assert [one.trade_id for one in own.fills()] == [1, 2, 3, 4]


def test_it_ends_with_the_process_that_started_it() -> None:
    program = """
        import os, signal
        from decimal import Decimal
        from qmtl.testing.exchange import running_exchange
        with running_exchange({"LTC-BTC": Decimal(1)}) as exchange:
            print(exchange.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


@pytest.mark.parametrize(
    "words",
    ["BTC-USDT", "BTC=1", "BTC-USDT=", "BTC-USDT=x", "BTC-USDT=0", "BTC-USDT=1,2", "B/C-D=1", "ä-b=1"],
)
def test_a_price_of_another_form_is_refused(words: str) -> None:
    with pytest.raises(QmtlError):
        listed(words)
