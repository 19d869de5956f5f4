"""The fake exchange from a test's side: started as a process of its own, told what to do, and asked what it has done."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qmtl.foundation.common.errors import UsageError, VenueUnanswered
from qmtl.foundation.common.money import text
from qmtl.testing.exchange.faults import Fault
from qmtl.testing.exchange.ledger import entries, orders_and_fills
from qmtl.testing.exchange.values import GivenFill, TakenOrder, fill_of, order_of

KEY: Final = "qmtl-fake-exchange-key"
SECRET: Final = "qmtl-fake-exchange-secret"
START_S: Final = 30.0
STOP_S: Final = 10.0
ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What the exchange has counted since it was started.

    Attributes:
        requests: by endpoint, such as `POST /api/v3/order`; also those that were refused or went wrong.
        connections: that were made to it, those of the test's own included.
        decided: requests that it has looked at: one that is held back is counted in `requests` before.
        first_signed_ms, last_signed_ms: of requests that need a key; 0 before the first.
    """

    requests: Mapping[str, int]
    connections: int
    decided: int
    first_signed_ms: int
    last_signed_ms: int


class RunningExchange:
    """A fake exchange, from `running_exchange`.

    Attributes:
        port: the same one over `kill()` and `start()`.
        pid: of its process; 0 while there is none.
        ledger: the file that it writes.
        key, secret: of its one account.
    """

    def __init__(self, ledger: Path, options: Sequence[str], key: str, secret: str) -> None:
        self.ledger, self.key, self.secret = ledger, key, secret
        self._options = [*options, "--key", key, "--secret", secret]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = self.pid = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def venue(self) -> str:
        """The address of it as a venue, for `QMTL_VENUE`."""
        return f"ccxt:binance?url={self.address}"

    # ---- its process ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; with the ledger that is there it goes on where it was.

        Raises:
            VenueUnanswered: it did not come up.
        """
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "qmtl.testing.exchange",
                "--port",
                str(self.port),
                "--ledger",
                str(self.ledger),
                "--guarded",
                *self._options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], START_S)
        line = out.readline() if ready else b""
        if not line:
            self.kill()
            raise VenueUnanswered("the fake exchange did not come up.", "What it says is above.")
        found = json.loads(line)
        self.port, self.pid = found["port"], found["pid"]

    def kill(self) -> None:
        """SIGKILL; nothing it has answered is lost."""
        self._ended(signal.SIGKILL)

    def stop(self) -> None:
        self._ended(signal.SIGTERM)

    def _ended(self, how: signal.Signals) -> None:
        process, self._process, self.pid = self._process, None, 0
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    # ---- what it does --------------------------------------------------------------------------------------

    def price(self, symbol: str, price: Decimal) -> None:
        """Set a price; a symbol that is new gets a market, which a venue sees when it connects the next time."""
        self._tell("price", {"symbol": symbol, "price": text(price)})

    def market(self, symbol: str, price: Decimal, least: Decimal, most: Decimal, step: Decimal) -> None:
        """Set a market with the bounds and the step of its quantities."""
        self._tell(
            "market", {"words": f"{symbol}={','.join(text(one) for one in (price, least, most, step))}"}
        )

    def fault(self, kind: Fault | str, times: int = 1, *, at: str | None = None) -> None:
        """Something goes wrong with the next requests.

        Args:
            at: the endpoint, such as `GET /api/v3/order`; by itself where a new order is sent, or where the fault only makes sense.
        """
        self._tell("fault", {"kind": Fault(kind).value, "times": times, "at": at})

    def no_more_faults(self) -> None:
        """Forget those that are still to come."""
        self._tell("clear", {})

    def fill_at_once(self, pieces: int = 1) -> None:
        """Orders are filled when they are taken, each in so many executions."""
        self._tell("rules", {"at_once": True, "pieces": pieces})

    def leave_working(self) -> None:
        """Orders work from now on until `fill`, `end` or their cancellation."""
        self._tell("rules", {"at_once": False})

    def commission(self, rate: Decimal, asset: str = "quote") -> None:
        """Charge a share of what is paid, in `quote`, `base` or the asset that is named."""
        self._tell("rules", {"commission": text(rate), "commission_in": asset})

    def let_trade(self, may_trade: bool) -> None:
        """Whether the account may trade."""
        self._tell("rules", {"may_trade": may_trade})

    def clock(self, skew_ms: int) -> None:
        """Put its clock ahead of this machine's, or behind."""
        self._tell("rules", {"skew_ms": skew_ms})

    def fill(
        self, client_order_id: str, quantity: Decimal | None = None, price: Decimal | None = None
    ) -> None:
        """Fill an order that works: what is left of it, or less."""
        self._tell(
            "fill",
            {
                "client_order_id": client_order_id,
                "quantity": None if quantity is None else text(quantity),
                "price": None if price is None else text(price),
            },
        )

    def end(self, client_order_id: str, status: str = "EXPIRED") -> None:
        """The exchange ends an order that works: `EXPIRED`, `CANCELED` or `REJECTED`."""
        self._tell("end", {"client_order_id": client_order_id, "status": status})

    # ---- what it has done ----------------------------------------------------------------------------------

    def orders(self) -> tuple[TakenOrder, ...]:
        """All that it has taken, in that order, as they are now."""
        return tuple(order_of(row) for row in self._asked("GET", "orders", None))

    def fills(self) -> tuple[GivenFill, ...]:
        return tuple(fill_of(row) for row in self._asked("GET", "fills", None))

    def counts(self) -> Counts:
        found = self._asked("GET", "counts", None)
        return Counts(
            MappingProxyType(found["requests"]),
            found["connections"],
            found["decided"],
            found["first_signed_ms"],
            found["last_signed_ms"],
        )

    def written(self) -> tuple[tuple[TakenOrder, ...], tuple[GivenFill, ...]]:
        """Orders and executions out of its ledger, also while it is dead."""
        return orders_and_fills(list(entries(self.ledger)))

    def _tell(self, what: str, given: Mapping[str, Any]) -> None:
        self._asked("POST", what, given)

    def _asked(self, method: str, what: str, given: Mapping[str, Any] | None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request(method, f"/control/{what}", None if given is None else json.dumps(given))
            answer = connection.getresponse()
            found = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise UsageError(f"the fake exchange was told {what}: {found.get('error', found)!s:.200}.")
        return found


@contextmanager
def running_exchange(
    prices: Mapping[str, Decimal],
    *,
    ledger: Path | None = None,
    balances: Mapping[str, Decimal] | None = None,
    key: str = KEY,
    secret: str = SECRET,
) -> Iterator[RunningExchange]:
    """A fake exchange in a process of its own, until the block ends; it also ends with the process that started it.

    Args:
        prices: of each symbol, as `{"BTC-USDT": Decimal(100)}`.
        ledger: where it writes; in a temporary directory by itself.
        balances: assets of which the account has no more than this; of others it has as much as it wants.

    Raises:
        VenueUnanswered: it did not come up.
    """
    options = [word for symbol, price in prices.items() for word in ("--price", f"{symbol}={text(price)}")]
    for asset, amount in (balances or {}).items():
        options += ("--balance", f"{asset}={text(amount)}")
    with tempfile.TemporaryDirectory(prefix="qmtl-exchange-") as directory:
        exchange = RunningExchange(ledger or Path(directory) / "ledger.jsonl", options, key, secret)
        exchange.start()
        try:
            yield exchange
        finally:
            exchange.stop()
