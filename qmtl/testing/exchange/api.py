"""The subset of Binance's Spot REST that the fake exchange speaks: who may ask, how it is asked, and how it answers.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api; only facts of the interface are taken from there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import is_factor, parse_decimal, product, text
from qmtl.testing.exchange.book import Book, Refusal
from qmtl.testing.exchange.ledger import Entry
from qmtl.testing.exchange.values import GivenFill, Listing, TakenOrder

SIGNED: Final = frozenset(
    {
        "GET /api/v3/account",
        "POST /api/v3/order",
        "GET /api/v3/order",
        "DELETE /api/v3/order",
        "GET /api/v3/myTrades",
    }
)
PUBLIC: Final = frozenset({"GET /api/v3/ping", "GET /api/v3/time", "GET /api/v3/exchangeInfo"})

AHEAD_MS: Final = 1000
DEFAULT_WINDOW_MS: Final = 5000
MAX_WINDOW_MS: Final = 60_000
MAX_TRADES: Final = 1000

_CLIENT_ID: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")

Params = Mapping[str, str]


class Api:
    """Answers over a book.

    Args:
        keep: writes an entry down and applies it.
    """

    def __init__(self, book: Book, key: str, secret: str, keep: Callable[[Entry], None]) -> None:
        self._book, self._key, self._secret, self._keep = book, key, secret, keep

    def answer(
        self, endpoint: str, query: str, body: str, key: str | None, now_ms: Callable[[], int]
    ) -> tuple[int, Any]:
        """The status and what is said. The clock is asked once a request is looked at, which may be later than it came."""
        try:
            if endpoint in SIGNED:
                return 200, self._signed(endpoint, self._checked(query, body, key, now_ms()), now_ms())
            return 200, self._public(endpoint, now_ms())
        except Refusal as no:
            return no.status, {"code": no.code, "msg": no.message}

    # ---- who may ask ---------------------------------------------------------------------------------------

    def _checked(self, query: str, body: str, key: str | None, now_ms: int) -> Params:
        """The parameters of a request that is signed by the key's owner, and young enough."""
        if key is None:
            raise Refusal(401, -2014, "API-key format invalid.")
        if key != self._key:
            raise Refusal(401, -2015, "Invalid API-key, IP, or permissions for action.")
        whole = query + body
        signed, found, signature = whole.rpartition("&signature=")
        if not found:
            raise _missing("signature")
        right = hmac.new(self._secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(right.encode(), signature.lower().encode()):
            raise Refusal(400, -1022, "Signature for this request is not valid.")
        params = dict(parse_qsl(signed, keep_blank_values=True))
        stamp, window = _whole(params, "timestamp"), _whole(params, "recvWindow", DEFAULT_WINDOW_MS)
        if window > MAX_WINDOW_MS:
            raise Refusal(400, -1131, "recvWindow must be less than 60000.")
        if stamp >= now_ms + AHEAD_MS:
            raise Refusal(400, -1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now_ms - stamp > window:
            raise Refusal(400, -1021, "Timestamp for this request is outside of the recvWindow.")
        return params

    # ---- what is asked -------------------------------------------------------------------------------------

    def _public(self, endpoint: str, now_ms: int) -> Any:
        if endpoint == "GET /api/v3/time":
            return {"serverTime": now_ms}
        if endpoint == "GET /api/v3/exchangeInfo":
            return {
                "timezone": "UTC",
                "serverTime": now_ms,
                "rateLimits": [],
                "exchangeFilters": [],
                "symbols": [_market(self._book.listings[name]) for name in sorted(self._book.listings)],
            }
        if endpoint == "GET /api/v3/ping":
            return {}
        raise Refusal(404, -1, f"the fake exchange has no {endpoint[:80]}")

    def _signed(self, endpoint: str, params: Params, now_ms: int) -> Any:
        if endpoint == "GET /api/v3/account":
            return self._account(now_ms)
        listing = self._book.listing(_given(params, "symbol"))
        if endpoint == "POST /api/v3/order":
            return self._new(listing, params, now_ms)
        if endpoint == "GET /api/v3/myTrades":
            return self._trades(listing, params)
        if "orderId" not in params and "origClientOrderId" not in params:
            raise Refusal(
                400, -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
            )
        number = _whole(params, "orderId") if "orderId" in params else None
        order = self._book.found(listing.id, params.get("origClientOrderId"), number)
        if endpoint == "DELETE /api/v3/order":
            entry = self._book.cancel(order, now_ms)
            self._keep(entry)
            return {
                **_order(entry.order, listing),
                "origClientOrderId": entry.order.client_order_id,
                # The cancellation has an id of its own, and here it stands in the place of the order's.
                "clientOrderId": f"cancel{entry.order.order_id}",
                "transactTime": entry.order.changed_ms,
            }
        if order is None:
            raise Refusal(400, -2013, "Order does not exist.")
        return {
            **_order(order, listing),
            "stopPrice": "0.00000000",
            "icebergQty": "0.00000000",
            "time": order.at_ms,
            "updateTime": order.changed_ms,
            "isWorking": True,
            "workingTime": order.at_ms,
        }

    def _new(self, listing: Listing, params: Params, now_ms: int) -> Any:
        side = _given(params, "side")
        if side not in ("BUY", "SELL"):
            raise Refusal(400, -1117, "Invalid side.")
        if _given(params, "type") != "MARKET":
            raise Refusal(400, -1116, "Invalid orderType.")
        for name in ("price", "timeInForce", "reduceOnly"):
            if name in params:
                raise Refusal(400, -1106, f"Parameter '{name}' sent when not required.")
        client_id = params.get("newClientOrderId", "")
        if "newClientOrderId" in params and not _CLIENT_ID.fullmatch(client_id):
            raise Refusal(400, -1100, "Illegal characters found in parameter 'newClientOrderId'.")
        quantity = _number(_given(params, "quantity"), "quantity")
        entry = self._book.take(listing, side, quantity, client_id, now_ms)
        self._keep(entry)
        answer = {
            **_order(entry.order, listing),
            "transactTime": entry.order.changed_ms,
            "workingTime": now_ms,
        }
        if params.get("newOrderRespType", "FULL") == "FULL":
            answer["fills"] = [
                {
                    "price": text(one.price),
                    "qty": text(one.quantity),
                    "commission": text(one.commission),
                    "commissionAsset": one.commission_asset,
                    "tradeId": one.trade_id,
                }
                for one in entry.fills
            ]
        return answer

    def _trades(self, listing: Listing, params: Params) -> Any:
        limit = min(_whole(params, "limit", 500), MAX_TRADES)
        first = _whole(params, "fromId", 0)
        order_id = _whole(params, "orderId") if "orderId" in params else None
        found = [
            one
            for one in self._book.fills
            if one.symbol == listing.symbol
            and one.trade_id >= first
            and (order_id is None or one.order_id == order_id)
        ]
        # Without a number to begin at it gives the newest.
        page = found[:limit] if "fromId" in params else found[-limit:]
        return [_trade(one, listing) for one in page]

    def _account(self, now_ms: int) -> Any:
        book = self._book
        assets = sorted(
            {
                *book.deposits,
                *book.changes,
                *(name for one in book.listings.values() for name in (one.base, one.quote)),
            }
        )
        return {
            "makerCommission": 10,
            "takerCommission": 10,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {"maker": "0.00100000", "taker": "0.00100000", "buyer": "0", "seller": "0"},
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "uid": 1,
            "canTrade": book.rules.may_trade,
            "canWithdraw": False,
            "canDeposit": False,
            "updateTime": now_ms,
            "accountType": "SPOT",
            "balances": [
                {"asset": one, "free": text(book.balance(one)), "locked": "0.00000000"} for one in assets
            ],
            "permissions": ["SPOT"],
        }


def _market(listing: Listing) -> Any:
    return {
        "symbol": listing.id,
        "status": "TRADING",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": "0.00000001",
                "maxPrice": "1000000000.00000000",
                "tickSize": "0.00000001",
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": text(listing.least),
                "maxQty": text(listing.most),
                "stepSize": text(listing.step),
            },
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": "0.00000000",
                "maxQty": text(listing.most),
                "stepSize": "0.00000000",
            },
        ],
        "permissions": ["SPOT"],
    }


def _order(order: TakenOrder, listing: Listing) -> dict[str, Any]:
    return {
        "symbol": listing.id,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "price": "0.00000000",
        "origQty": text(order.quantity),
        "executedQty": text(order.filled),
        "origQuoteOrderQty": "0.000000",
        "cummulativeQuoteQty": text(order.spent),
        "status": order.status,
        "timeInForce": "GTC",
        "type": "MARKET",
        "side": order.side,
        "selfTradePreventionMode": "NONE",
    }


def _trade(fill: GivenFill, listing: Listing) -> dict[str, Any]:
    return {
        "symbol": listing.id,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": -1,
        "price": text(fill.price),
        "qty": text(fill.quantity),
        "quoteQty": text(product(fill.quantity, fill.price)),
        "commission": text(fill.commission),
        "commissionAsset": fill.commission_asset,
        "time": fill.at_ms,
        "isBuyer": fill.side == "BUY",
        "isMaker": False,
        "isBestMatch": True,
    }


def _missing(name: str) -> Refusal:
    return Refusal(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def _given(params: Params, name: str) -> str:
    if not params.get(name):
        raise _missing(name)
    return params[name]


def _whole(params: Params, name: str, default: int | None = None) -> int:
    found = params.get(name)
    if found is None and default is not None:
        return default
    if found is None or not re.fullmatch(r"[0-9]{1,18}", found):
        raise _missing(name)
    return int(found)


def _number(words: str, name: str) -> Decimal:
    """A number as Binance takes it: digits and a point, no exponent."""
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", words):
        raise Refusal(400, -1100, f"Illegal characters found in parameter '{name}'.")
    try:
        value = parse_decimal(words, name)
    except InvalidValue:
        raise Refusal(400, -1100, f"Illegal characters found in parameter '{name}'.") from None
    if not is_factor(value):
        raise Refusal(400, -1111, f"Parameter '{name}' has too much precision.")
    return value
