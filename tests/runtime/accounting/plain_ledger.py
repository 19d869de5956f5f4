"""Double entry in integers: a second way to count the same money, which knows no average, no lots and no realised profit.

Every amount is a whole number of 10^-18. Every entry names two accounts, so that each asset sums to nothing over all of them. A quantity of a
contract is an asset of its own, and what a margined trade is worth goes to an account of paper.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal

from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.accounting.facts import (
    Busted,
    Charged,
    Delivered,
    DividendPaid,
    Fact,
    Filled,
    Funded,
    Marked,
    Split,
    Transferred,
)
from qmtl.runtime.accounting.instrument import Instrument, Settlement

PLACES = 18
ONE: int = 10**PLACES


def whole(value: Decimal) -> int:
    over, under = value.as_integer_ratio()  # no operator of Decimal, which rounds to 28 digits
    scaled, rest = divmod(int(over) * ONE, under)
    assert not rest
    return scaled


def halved(over: int, under: int) -> int:
    """`over / under` (> 0), half-even."""
    sign = 1 if over >= 0 else -1
    quotient, rest = divmod(abs(over), under)
    if 2 * rest > under or (2 * rest == under and quotient % 2):
        quotient += 1
    return sign * quotient


class PlainLedger:
    """Attributes:
    accounts: by owner, kind and asset.
    """

    def __init__(self, instruments: dict[str, Instrument]) -> None:
        self.instruments = instruments
        self.accounts: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.scopes: set[str] = set()

    def entry(self, owner: str, kind: str, asset: str, amount: int) -> None:
        """Someone's account moves, and the market's against it."""
        self.scopes.add(owner)
        self.accounts[owner, kind, asset] += amount
        self.accounts["", kind, asset] -= amount

    def worth(self, instrument: Instrument, quantity: int, price: Decimal) -> int:
        size = whole(instrument.size)
        if instrument.inverse:
            return -halved(quantity * size, whole(price))
        exact = quantity * size * whole(price)
        assert exact % (ONE * ONE) == 0
        return exact // (ONE * ONE)

    def trade(self, scope: str, symbol: str, moved: int, price: Decimal) -> None:
        """Quantity and paper. What goes through flat is two trades, each rounded for itself where it has to be."""
        instrument = self.instruments[symbol]
        held = self.accounts[scope, "units", symbol]
        closed = 0
        if held * moved < 0:
            closed = -held if abs(moved) > abs(held) else moved
        for part in (closed, moved - closed):
            self.entry(scope, "paper", symbol, -self.worth(instrument, part, price))
        self.entry(scope, "units", symbol, moved)

    def post(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            match fact:
                case Filled():
                    self.fill(fact)
                case Charged():
                    self.entry(fact.scope, "cash", fact.fee.asset, -whole(fact.fee.amount))
                    self.entry(fact.scope, "fees", fact.fee.asset, whole(fact.fee.amount))
                case Transferred():
                    for owner, amount in ((fact.source, -fact.amount), (fact.destination, fact.amount)):
                        if owner:
                            self.entry(owner, "cash", fact.asset, whole(amount))
                            self.entry(owner, "contributed", fact.asset, whole(amount))
                case Delivered():
                    base = self.instruments[fact.symbol].base
                    for owner, moved in ((fact.source, -fact.quantity), (fact.destination, fact.quantity)):
                        if owner:
                            self.trade(owner, fact.symbol, whole(moved), fact.price)
                            if base:
                                self.entry(owner, "cash", base, whole(moved))
                case Split():
                    self.split(fact)
                case DividendPaid():
                    for owner in sorted(self.scopes):
                        units = self.accounts[owner, "units", fact.symbol]
                        exact = units * whole(fact.per_unit)
                        assert exact % ONE == 0
                        self.entry(owner, "cash", self.instruments[fact.symbol].currency, exact // ONE)
                case Funded():
                    self.entry(fact.scope, "cash", self.instruments[fact.symbol].currency, whole(fact.amount))
                case Busted() | Marked():
                    pass

    def fill(self, fact: Filled) -> None:
        instrument = self.instruments[fact.symbol]
        traded = whole(fact.quantity) * (1 if fact.side is Side.BUY else -1)
        kind = sum(whole(fee.amount) for fee in fact.fees if fee.asset == instrument.base)
        for fee in fact.fees:
            self.entry(fact.scope, "cash", fee.asset, -whole(fee.amount))
            self.entry(fact.scope, "fees", fee.asset, whole(fee.amount))
        self.trade(fact.scope, fact.symbol, traded - kind, fact.price)
        if instrument.settlement is not Settlement.MARGINED:
            self.entry(fact.scope, "cash", instrument.currency, -self.worth(instrument, traded, fact.price))
        if instrument.base:
            self.entry(fact.scope, "cash", instrument.base, traded)

    def split(self, fact: Split) -> None:
        instrument = self.instruments[fact.symbol]
        for owner in sorted(self.scopes):
            units = self.accounts[owner, "units", fact.symbol]
            step = whole(fact.lot) * fact.before
            lots = abs(units) * fact.after // step
            new = (1 if units > 0 else -1) * lots * whole(fact.lot)
            rest = units * fact.after - new * fact.before
            paid = halved(rest * whole(fact.cash_price) * whole(instrument.size), fact.before * ONE**2)
            self.entry(owner, "units", fact.symbol, new - units)
            self.entry(owner, "paper", fact.symbol, paid)
            if instrument.settlement is not Settlement.MARGINED:
                self.entry(owner, "cash", instrument.currency, paid)

    def assert_closed(self) -> None:
        """Law C3: over all owners and the market, each asset sums to nothing."""
        sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        for (_, kind, asset), amount in self.accounts.items():
            sums[kind, asset] += amount
        assert not any(sums.values())
