"""An account at an exchange through ccxt: spot, market orders, each sent once and found again under its own id. Needs the extra `edge`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Context, Decimal, localcontext
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from qmtl.foundation.common.errors import (
    InvalidValue,
    LibraryMissing,
    UsageError,
    VenueRefused,
    VenueUnanswered,
)
from qmtl.foundation.common.money import MAX_DIGITS, is_factor, parse_decimal, product, text, whole_steps
from qmtl.foundation.contracts.trade import Order, OrderType, Side
from qmtl.runtime.venues.answers import Trade, WrongField, first_that_add_up, order_of, trade_of
from qmtl.runtime.venues.port import VenueOrder
from qmtl.runtime.venues.wire import Outcome, Wire

EXCHANGES: Final = ("binance", "binanceus")
"""Whose answers are known: that they find an order by the client's id, and what they say where there is none. Of another exchange it would have to be
guessed, and an order that is not found because the exchange does not look for that id would count as one that never arrived."""

TIMEOUT_S: Final = 10.0
RECV_WINDOW_MS: Final = 5000
MAX_RECV_WINDOW_MS: Final = 60_000
"""Binance's own bound."""

PAGE_TRADES: Final = 1000
MAX_PAGES: Final = 100

NO_SUCH_ORDER: Final = -2013
UNKNOWN_ORDER: Final = -2011
"""Binance's codes for an order that it does not have: the one where it is asked for it, the other where it is to cancel it."""

BAD_TIME: Final = -1021
"""Binance's code for a request whose time is not its own: too old, or of the future."""

_CLIENT_ID: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")
"""What Binance takes as `newClientOrderId`."""

T = TypeVar("T")


class _NoSuchOrder(Exception):
    """The exchange says that it has no such order."""


class CcxtVenue:
    """It is a `Venue`. Not for two threads at a time.

    An order's quantity reaches the exchange digit by digit or not at all. A request carries the time at which it was made, by the exchange's own clock
    as it was told at `connect`, and is refused there once it is older than `recv_window_ms`: what is on its way is not executed later.
    """

    def __init__(
        self,
        exchange: str,
        key: str,
        secret: str,
        *,
        url: str = "",
        timeout_s: float = TIMEOUT_S,
        recv_window_ms: int = RECV_WINDOW_MS,
        paced: bool = True,
    ) -> None:
        """Open it; nothing is asked yet.

        Args:
            exchange: as ccxt names it; one of `EXCHANGES`.
            key, secret: of an account that may trade; neither is ever told to anybody but the exchange.
            url: scheme, host and port to ask in the place of all of the exchange's own.
            timeout_s: to wait for a connection, and again for each piece of an answer.
            paced: keep to the pace that the exchange allows.

        Raises:
            LibraryMissing: ccxt is not installed.
            UsageError: an exchange that is not known here, or a number outside its bounds.
        """
        if exchange not in EXCHANGES:
            raise UsageError(
                f"no venue is known as {exchange[:40]!r}; there are {', '.join(EXCHANGES)}.",
                "Name one of them, or write an adapter: `qmtl.runtime.venues.port.Venue`.",
            )
        if not 0 < recv_window_ms <= MAX_RECV_WINDOW_MS:
            raise UsageError(
                f"recv_window_ms was {recv_window_ms}; it is from 1 to {MAX_RECV_WINDOW_MS}.",
                f"Leave it at {RECV_WINDOW_MS}.",
            )
        try:
            import ccxt
        except ModuleNotFoundError as error:
            raise LibraryMissing(
                "ccxt is not installed; trading at exchanges needs it.",
                "Install it: pip install 'qmtl[edge]'.",
            ) from error
        self._ccxt = ccxt
        self._exchange = exchange
        self._key, self._secret = key, secret
        self._url = url
        self._timeout_s = timeout_s
        self._recv_window_ms = recv_window_ms
        self._paced = paced
        self._client: Any = None
        self._wire: Wire | None = None
        self._is_connected = self._clock_is_off = False

    @property
    def name(self) -> str:
        return f"ccxt:{self._exchange}"

    def __repr__(self) -> str:
        return f"<{self.name}>"

    # ---- the connection ------------------------------------------------------------------------------------

    def connect(self) -> None:
        self._is_connected = False
        if self._client is None:
            self._client, self._wire = self._made()
        client = self._client
        if not self._asked("its markets", lambda: client.load_markets(True)):
            raise self._wrong("its markets", "symbols was missing")
        balance = self._asked("its account", client.fetch_balance)
        account = balance.get("info") if isinstance(balance, Mapping) else None
        if not isinstance(account, Mapping) or not isinstance(account.get("balances"), list):
            raise self._wrong("its account", "balances was missing")
        if account.get("canTrade") is not True:
            raise VenueRefused(
                f"{self.name} does not let this account trade: canTrade was {account.get('canTrade')!r:.20}.",
                "Allow the key to trade at the exchange.",
            )
        self._is_connected = True

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._client = self._wire = None
        self._is_connected = False

    def _set_clock(self) -> None:
        """Ask for the exchange's time again where it has said that a request was not of its time: one of the two clocks was set."""
        if self._clock_is_off:
            self._clock_is_off = False
            with suppress(VenueRefused, VenueUnanswered):
                self._asked("its time", self._client.load_time_difference)

    def _made(self) -> tuple[Any, Wire]:
        client = getattr(self._ccxt, self._exchange)(
            {
                "apiKey": self._key,
                "secret": self._secret,
                "enableRateLimit": self._paced,
                "timeout": int(self._timeout_s * 1000),
                "logger": _silent(),
                "options": {
                    "defaultType": "spot",
                    "fetchMarkets": {"types": ["spot"]},
                    "fetchCurrencies": False,
                    "fetchMargins": False,
                    "recvWindow": self._recv_window_ms,
                    "adjustForTimeDifference": True,
                    "maxRetriesOnFailure": 0,
                },
            }
        )
        if self._url:
            client.urls = {**client.urls, "api": _moved(client.urls["api"], self._url)}
        # Numbers stay the texts that the exchange has sent, also where they are numbers of JSON: a float in between would lose digits.
        client.number = str
        client.on_json_response = partial(json.loads, parse_float=str, object_pairs_hook=_without_twins)
        wire = Wire(client.session, (self._key, self._secret))
        client.session = wire
        client.on_rest_response = wire.heard
        return client, wire

    # ---- orders --------------------------------------------------------------------------------------------

    def submit(self, order: Order) -> VenueOrder:
        symbol = self._required(order)
        amount = self._fitting(order, symbol)
        self._set_clock()
        side = "buy" if order.side is Side.BUY else "sell"
        client = self._client
        what = f"order {order.order_id}"
        found = self._asked(
            what,
            lambda: client.create_order(
                symbol, "market", side, amount, None, {"clientOrderId": order.order_id}
            ),
            is_sending=True,
        )
        try:
            told = order_of(found, order, self._market_id(symbol))
        except WrongField as wrong:
            raise self._wrong(what, str(wrong)) from None
        try:
            return self._with_executions(told, order, symbol)
        except (VenueRefused, VenueUnanswered):
            return told  # the order is there; its executions are told the next time

    def cancel(self, order: Order) -> None:
        symbol = self._required(order)
        self._set_clock()
        client = self._client
        try:
            self._asked(
                f"the end of order {order.order_id}",
                lambda: client.cancel_order("", symbol, {"clientOrderId": order.order_id}),
                absent=(UNKNOWN_ORDER, NO_SUCH_ORDER),
            )
        except _NoSuchOrder:
            return

    def find(self, order: Order) -> VenueOrder | None:
        symbol = self._required(order)
        self._set_clock()
        client = self._client
        what = f"order {order.order_id}"
        try:
            found = self._asked(
                what,
                lambda: client.fetch_order("", symbol, {"clientOrderId": order.order_id}),
                absent=(NO_SUCH_ORDER,),
            )
        except _NoSuchOrder:
            return None
        try:
            return self._with_executions(order_of(found, order, self._market_id(symbol)), order, symbol)
        except WrongField as wrong:
            raise self._wrong(what, str(wrong)) from None

    def _with_executions(self, told: VenueOrder, order: Order, symbol: str) -> VenueOrder:
        if not told.filled:
            return told
        what = f"the executions of order {order.order_id}"
        try:
            trades = self._trades(what, told.venue_order_id, order, symbol)
            executions = first_that_add_up(trades, told.filled)
        except WrongField as wrong:
            raise self._wrong(what, str(wrong)) from None
        return VenueOrder(told.venue_order_id, told.status, told.filled, executions, told.at_ms)

    def _trades(self, what: str, venue_order_id: str, order: Order, symbol: str) -> list[Trade]:
        """All of them, page by page."""
        client = self._client
        out: list[Trade] = []
        market_id = self._market_id(symbol)
        first = 0  # without a number to begin at, Binance gives the newest, and of more than a page not the oldest
        for _ in range(MAX_PAGES):
            ask = partial(
                client.fetch_order_trades, venue_order_id, symbol, None, PAGE_TRADES, {"fromId": first}
            )
            page = self._asked(what, ask)
            if not isinstance(page, list):
                raise WrongField("trades", page)
            out += (trade_of(one, order, market_id, venue_order_id) for one in page)
            if len(page) < PAGE_TRADES:
                return out
            first = max(one.number for one in out) + 1
        raise WrongField("trades", f"more than {MAX_PAGES} pages")

    # ---- rules before anything is sent ---------------------------------------------------------------------

    def _required(self, order: Order) -> str:
        """The symbol as ccxt writes it, of an order that this venue can take."""
        if not self._is_connected:
            raise VenueRefused(f"{self.name} is not connected.", "Connect first.")
        if not _CLIENT_ID.fullmatch(order.order_id):
            raise VenueRefused(
                f"{self.name} takes no order id {order.order_id[:60]!r}: 1 to 36 of letters, digits and .:/_-."
            )
        symbol = order.symbol.replace("-", "/")
        market = self._client.markets.get(symbol)
        if market is None or market.get("spot") is not True:
            raise VenueRefused(f"{self.name} has no spot market {order.symbol[:40]!r}.")
        return symbol

    def _market_id(self, symbol: str) -> str:
        """The market as the exchange writes it."""
        return str(self._client.markets[symbol].get("id"))

    def _fitting(self, order: Order, symbol: str) -> str:
        """The quantity as it is sent: all of it, or a refusal; ccxt would cut off what the market's step does not hold."""
        if order.order_type is not OrderType.MARKET:
            raise VenueRefused(f"{self.name} is sent market orders only; this is {order.order_type.value}.")
        amount = text(order.quantity)
        if order.quantity <= 0 or not is_factor(order.quantity):
            raise VenueRefused(f"{self.name} takes no quantity of {amount[:80]}.")
        market = self._client.markets[symbol]
        try:
            broken = _broken_rule(market, order.quantity)
        except InvalidValue as error:
            broken = f"it has a rule that can't be read: {error.what[:80]}"
        if broken:
            raise VenueRefused(f"a quantity of {amount} does not fit the market {order.symbol}: {broken}.")
        with _wide():
            sent = self._client.amount_to_precision(symbol, amount)
        if sent != amount:
            raise VenueRefused(f"a quantity of {amount} would be sent to {self.name} as {sent!r:.80}.")
        return amount

    # ---- one question --------------------------------------------------------------------------------------

    def _asked(
        self, what: str, ask: Callable[[], T], *, is_sending: bool = False, absent: tuple[int, ...] = ()
    ) -> T:
        """The answer to one request, which is never repeated.

        Args:
            absent: codes by which the exchange says that it has no such order.

        Raises:
            VenueRefused, VenueUnanswered, _NoSuchOrder
        """
        wire = self._wire
        assert wire is not None
        wire.begin()
        try:
            with _wide():
                return ask()
        except Exception as error:
            # Not only ccxt's own: it reads what it was sent without a check, and what it stumbles over is the answer.
            if not wire.sent and not isinstance(error, self._ccxt.BaseError):
                raise
            outcome = wire.outcome(error)
            self._clock_is_off |= wire.code()[0] == BAD_TIME
            said = f"{self.name} was asked for {what}: {wire.told(error)}"
            if outcome is Outcome.REFUSED and wire.sent and wire.code()[0] in absent:
                raise _NoSuchOrder(said) from None
            if outcome is Outcome.REFUSED or (outcome is Outcome.UNREACHED and is_sending):
                raise VenueRefused(f"{said.rstrip('.')}.") from None
            raise VenueUnanswered(f"{said.rstrip('.')}.") from None

    def _wrong(self, what: str, wrong: str) -> VenueUnanswered:
        wire = self._wire
        assert wire is not None
        return VenueUnanswered(f"{self.name} was asked for {what}, and of its answer {wire.clean(wrong)}.")


def _broken_rule(market: Mapping[str, Any], quantity: Decimal) -> str:
    """Which rule of a market a quantity breaks, with its numbers; empty where it fits.

    Raises:
        InvalidValue: a rule that is no number.
    """
    step = _bound(market, "precision", "amount")
    if step is None:
        return "it does not tell its step"
    if product(whole_steps(quantity, step), step) != quantity:
        return f"its step is {text(step)}"
    for limits in ("amount", "market"):
        least, most = _bound(market, "limits", limits, "min"), _bound(market, "limits", limits, "max")
        if least is not None and quantity < least:
            return f"its least is {text(least)}"
        if most is not None and quantity > most:
            return f"its most is {text(most)}"
    return ""


def _bound(market: Mapping[str, Any], *path: str) -> Decimal | None:
    """A rule of a market; none where there is none, or where it is 0, by which Binance says the same."""
    found: Any = market
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is None:
        return None
    bound = parse_decimal(str(found), path[-1])
    if bound < 0 or not is_factor(bound):
        raise InvalidValue(f"{path[-1]} was {bound}.", "Ask the exchange.")
    return bound or None


def _moved(urls: Any, url: str) -> Any:
    """All addresses of an exchange with another scheme, host and port."""
    if isinstance(urls, Mapping):
        return {name: _moved(one, url) for name, one in urls.items()}
    return url.rstrip("/") + urlsplit(urls).path if isinstance(urls, str) else urls


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a field is there twice")
    return out


@contextmanager
def _wide() -> Iterator[None]:
    """ccxt computes in the ambient context of decimals, whose 28 digits are not enough, and leaves its own rounding there."""
    with localcontext(Context(prec=2 * MAX_DIGITS)):
        yield


def _silent() -> logging.Logger:
    """For ccxt, which writes the key into its log of requests."""
    logger = logging.Logger("qmtl.venue")
    logger.disabled = True
    return logger
