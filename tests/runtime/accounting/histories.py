"""Random histories of a few books, and the comparison of what they come to with the plain ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from random import Random

from qmtl.foundation.common.money import minus, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.accounting.book import Book
from qmtl.runtime.accounting.facts import (
    OUTSIDE,
    Busted,
    Charged,
    Delivered,
    DividendPaid,
    Fact,
    Fee,
    Filled,
    Funded,
    Marked,
    Split,
    Transferred,
)
from qmtl.runtime.accounting.instrument import Instrument, Settlement, Terms
from qmtl.runtime.accounting.valuation import imbalances
from tests.runtime.accounting.plain_ledger import PlainLedger, whole

SHARE = Instrument("SHARE", "USD")
ABROAD = Instrument("ABROAD", "EUR")
PAIR = Instrument("BTC-USD", "USD", Settlement.EXCHANGED, "BTC")
CROSS = Instrument("ETH-BTC", "BTC", Settlement.EXCHANGED, "ETH")
FUTURE = Instrument("FUTURE", "EUR", Settlement.MARGINED, size=Decimal(50))
INVERSE = Instrument("INVERSE", "BTC", Settlement.MARGINED, size=Decimal(10), inverse=True)
INSTRUMENTS = {one.symbol: one for one in (SHARE, ABROAD, PAIR, CROSS, FUTURE, INVERSE)}
SPLITTABLE = (SHARE, ABROAD, FUTURE)
SCOPES = tuple(f"strategy:{name}" for name in "abcdefgh")
ASSETS = ("USD", "EUR", "BTC", "ETH", "BNB")
SYMBOLS = tuple(INSTRUMENTS)


def terms_of(costing: object) -> Terms:
    return Terms(INSTRUMENTS, costing)  # type: ignore[arg-type]  # pytest hands parameters on without types


class Author:
    """Writes facts that follow each other. Equal seeds write equal facts."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.count = 0
        self.at_ms = 0
        self.split: dict[str, tuple[int, int]] = {}

    def amount(self, most: int, places: int) -> Decimal:
        return Decimal(self.random.randint(1, most)).scaleb(-places)

    def scope(self) -> str:
        return self.random.choice(SCOPES)

    def fee(self, symbol: str) -> Fee:
        instrument = INSTRUMENTS[symbol]
        asset = self.random.choice((instrument.currency, instrument.base or "BNB", "BNB"))
        amount = self.amount(10**7, 8)
        return Fee(asset, -amount if self.random.random() < 0.2 else amount)

    def fact(self) -> Fact:
        self.count += 1
        self.at_ms += self.random.randint(0, 3)
        id_, at, dice = f"{self.count:08d}", self.at_ms, self.random.random()
        symbol = self.random.choice(SYMBOLS)
        if dice < 0.72:
            side = self.random.choice((Side.BUY, Side.SELL))
            fees = tuple(self.fee(symbol) for _ in range(self.random.choice((0, 1, 1, 1, 2))))
            quantity = self.amount(9_999_999, self.random.choice((0, 3, 6)))
            return Filled(
                id_,
                at,
                self.scope(),
                symbol,
                side,
                quantity,
                self.amount(10**9, self.random.choice((2, 4))),
                fees,
            )
        if dice < 0.82:
            return Marked(id_, at, symbol, self.amount(10**9, 4))
        if dice < 0.88:
            source, destination = self.random.sample((*SCOPES, OUTSIDE), 2)
            return Transferred(
                id_, at, source, destination, self.random.choice(ASSETS), self.amount(10**12, 8)
            )
        if dice < 0.92:
            source, destination = self.random.sample((*SCOPES, OUTSIDE), 2)
            quantity = self.amount(9_999_999, 6)
            signed = -quantity if self.random.random() < 0.3 else quantity
            return Delivered(id_, at, source, destination, symbol, signed, self.amount(10**9, 4))
        if dice < 0.96:
            return Funded(id_, at, self.scope(), symbol, -self.amount(10**9, 8))
        if dice < 0.98:
            return Charged(id_, at, self.scope(), Fee(self.random.choice(ASSETS), self.amount(10**9, 8)))
        if dice < 0.995:
            return DividendPaid(id_, at, symbol, self.amount(10**5, 6))
        symbol = self.random.choice(SPLITTABLE).symbol
        # What was split is joined again next, or a million facts end with prices that no market has.
        again = self.split.pop(symbol, None)
        if again is None:
            again = self.random.choice(((2, 1), (1, 2), (3, 2), (1, 7), (10, 3)))
            self.split[symbol] = again[::-1]
        return Split(id_, at, symbol, *again, Decimal("0.000001"), self.amount(10**6, 2))

    def amended(self, fact: Fact) -> Fact:
        """What is told of a fact later: that it did not happen, or that it was otherwise."""
        if isinstance(fact, Filled) and self.random.random() < 0.6:
            return replace(fact, price=self.amount(10**9, 4), revision=fact.revision + 1)
        return Busted(fact.fact_id, fact.at_ms, fact.revision + 1)


def told(
    seed: int, count: int, late: float, twice: float, amended: float, reach: int
) -> Iterator[tuple[str, Fact]]:
    """Deliveries of `count` facts: some late, some twice, some amended, within `reach` of the facts that follow them.

    Returns:
        What a delivery is (`fact`, `late`, `twice`, `amended`), and the fact.
    """
    author = Author(seed)
    waiting: list[tuple[int, str, Fact]] = []
    for at in range(count):
        fact = author.fact()
        if author.random.random() < late:
            waiting.append((at + author.random.randint(1, reach), "late", fact))
        else:
            yield "fact", fact
        if author.random.random() < twice:
            waiting.append((at + author.random.randint(1, reach), "twice", fact))
        if author.random.random() < amended:
            waiting.append((at + author.random.randint(1, reach), "amended", author.amended(fact)))
        due = [one for one in waiting if one[0] <= at]
        if due:
            waiting = [one for one in waiting if one[0] > at]
            for _, kind, one in due:
                yield kind, one
    for _, kind, one in waiting:
        yield kind, one


def differences(book: Book, counting: Iterable[Fact], terms: Terms) -> Counter[str]:
    """Compares a book with the plain ledger of the facts that count, to the last digit.

    Returns:
        How many numbers of which kind were compared.

    Raises:
        AssertionError: two numbers that differ.
    """
    ledger = PlainLedger(dict(terms.instruments))
    ledger.post(counting)
    ledger.assert_closed()
    compared: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()

    def equal(owner: str, kind: str, asset: str, value: Decimal) -> None:
        assert whole(value) == ledger.accounts[owner, kind, asset], (owner, kind, asset)
        seen.add((owner, kind, asset))
        compared[kind] += 1

    for name, scope in book.scopes.items():
        margined: dict[str, Decimal] = {}
        for symbol, position in scope.positions.items():
            instrument = terms.instrument(symbol)
            equal(name, "units", symbol, position.quantity)
            equal(name, "paper", symbol, minus(position.realised, position.cost))
            assert position.quantity == total(lot.quantity for lot in position.lots)
            if instrument.settlement is Settlement.MARGINED:
                margined[instrument.currency] = total(
                    (margined.get(instrument.currency, Decimal(0)), position.realised)
                )
        for asset, amount in scope.cash.items():
            equal(name, "cash", asset, minus(amount, margined.get(asset, Decimal(0))))
        for asset, amount in scope.contributed.items():
            equal(name, "contributed", asset, amount)
        for asset, amount in scope.fees.items():
            equal(name, "fees", asset, amount)
        for asset, rest in imbalances(scope, terms).items():
            assert rest == 0, (name, asset)
            compared["equity"] += 1
    left = {key: one for key, one in ledger.accounts.items() if one and key[0] and key not in seen}
    assert not left, left
    return compared
