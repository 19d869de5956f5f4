"""What can have happened to a book, each with an identity and a place in the order of time.

The identity of a fact is its `fact_id`, and with it its instant: a fact that is told again has both. Of several revisions of one fact
the highest counts, so a correction is the same fact with other numbers and a higher revision, and `Busted` is a revision in which nothing
has happened. The place of a fact is its instant, then its id: no revision moves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias, assert_never

from qmtl.foundation.common.errors import ConflictingFact, InvalidValue
from qmtl.foundation.common.money import is_factor, is_value
from qmtl.foundation.contracts import trade
from qmtl.foundation.contracts.trade import Side

Place: TypeAlias = tuple[int, str]
"""Instant in UTC epoch ms, then the id."""

OUTSIDE: Final = ""
"""The scope of what is not ours; no book has it."""


@dataclass(frozen=True, slots=True)
class Fee:
    """What was charged in one asset; negative is a rebate."""

    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Filled:
    """An execution.

    Attributes:
        quantity: contracts, or units of the base; unsigned.
        price: quote currency per unit.
        fees: in any assets.
    """

    fact_id: str
    at_ms: int
    scope: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fees: tuple[Fee, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Busted:
    """The fact of this id did not happen.

    Attributes:
        at_ms: the instant of the fact that it takes back, not of the bust.
    """

    fact_id: str
    at_ms: int
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Charged:
    """A fee that belongs to no execution."""

    fact_id: str
    at_ms: int
    scope: str
    fee: Fee
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Transferred:
    """Cash went from one scope to another; a deposit comes from `OUTSIDE`, a withdrawal goes there.

    Attributes:
        amount: positive.
    """

    fact_id: str
    at_ms: int
    source: str
    destination: str
    asset: str
    amount: Decimal
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """A part of a position went from one scope to another, or came from or went `OUTSIDE`, without a payment (delivery free of payment).

    The source books it as closed at `price`, the destination as opened at it.

    Attributes:
        quantity: signed: a negative one hands over a short position.
    """

    fact_id: str
    at_ms: int
    source: str
    destination: str
    symbol: str
    quantity: Decimal
    price: Decimal
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """`before` units became `after`, in every scope that held the symbol.

    Attributes:
        lot: what the new quantity is a multiple of, towards zero; the rest is paid out.
        cash_price: what is paid for one new unit of that rest.
    """

    fact_id: str
    at_ms: int
    symbol: str
    after: int
    before: int
    lot: Decimal
    cash_price: Decimal
    revision: int = 0


@dataclass(frozen=True, slots=True)
class DividendPaid:
    """So much was paid for each unit that was held; who is short pays it.

    Attributes:
        per_unit: currency of the instrument.
    """

    fact_id: str
    at_ms: int
    symbol: str
    per_unit: Decimal
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Funded:
    """A funding payment, interest on a position, or another sum that a venue has booked on one.

    Attributes:
        amount: currency of the instrument; what was received is positive.
    """

    fact_id: str
    at_ms: int
    scope: str
    symbol: str
    amount: Decimal
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Marked:
    """What a symbol is valued at, in all scopes, from here on.

    Attributes:
        bid, ask: where they are known; see `valuation.exit_price`.
    """

    fact_id: str
    at_ms: int
    symbol: str
    price: Decimal
    bid: Decimal | None = None
    ask: Decimal | None = None
    revision: int = 0


Fact: TypeAlias = Filled | Busted | Charged | Transferred | Delivered | Split | DividendPaid | Funded | Marked


def place_of(fact: Fact) -> Place:
    return (fact.at_ms, fact.fact_id)


def deposited(fact_id: str, at_ms: int, scope: str, asset: str, amount: Decimal) -> Transferred:
    return Transferred(fact_id, at_ms, OUTSIDE, scope, asset, amount)


def withdrawn(fact_id: str, at_ms: int, scope: str, asset: str, amount: Decimal) -> Transferred:
    return Transferred(fact_id, at_ms, scope, OUTSIDE, asset, amount)


def fact_of(fill: trade.Fill, scope: str) -> Filled | Busted:
    """A row of `trade.fills`; corrected rows are revisions, and one whose quantity is 0 was busted.

    The id is unique per world. Its sequence number is written with ten digits, so that fills of one order and instant are in their order.
    """
    fact_id = f"{fill.order_id}:{fill.seq:010d}"
    if not fill.quantity:
        return Busted(fact_id, fill.fill_time_ms, max(fill.revision, 1))
    fees = (Fee(fill.fee_currency, fill.fee),) if fill.fee else ()
    return Filled(
        fact_id,
        fill.fill_time_ms,
        scope,
        fill.symbol,
        fill.side,
        fill.quantity,
        fill.price,
        fees,
        fill.revision,
    )


def require(fact: Fact) -> None:
    """Lets a fact pass whose numbers can be booked.

    Raises:
        InvalidValue: no id, a negative revision, a number that is not finite, too long, or not of the sign that it has to have.
    """
    if not fact.fact_id or fact.revision < 0:
        raise InvalidValue(
            f"a fact had the id {fact.fact_id!r} and the revision {fact.revision}; the id is said, the revision 0 or more."
        )
    match fact:
        case Filled():
            _owned(fact, fact.scope)
            _positive(fact, "quantity", fact.quantity)
            _positive(fact, "price", fact.price)
            for fee in fact.fees:
                _fee(fact, fee)
        case Busted():
            if not fact.revision:
                raise InvalidValue(f"revision of the bust {fact.fact_id} was 0; it is 1 or more.")
        case Charged():
            _owned(fact, fact.scope)
            _fee(fact, fact.fee)
        case Transferred():
            _sides(fact, fact.source, fact.destination)
            _positive(fact, "amount", fact.amount)
            if not fact.asset:
                raise InvalidValue(f"asset of {fact.fact_id} was empty; it is said.")
        case Delivered():
            _sides(fact, fact.source, fact.destination)
            _number(fact, "quantity", fact.quantity)
            _positive(fact, "price", fact.price)
            if not fact.quantity:
                raise InvalidValue(f"quantity of {fact.fact_id} was 0; something is delivered.")
        case Split():
            if not 0 < fact.after <= 10**9 or not 0 < fact.before <= 10**9:
                raise InvalidValue(
                    f"{fact.fact_id} split {fact.before} into {fact.after}; both are 1 to 1,000,000,000."
                )
            _positive(fact, "lot", fact.lot)
            _positive(fact, "cash_price", fact.cash_price)
        case DividendPaid():
            _number(fact, "per_unit", fact.per_unit)
        case Funded():
            _owned(fact, fact.scope)
            _value(fact, "amount", fact.amount)
        case Marked():
            _positive(fact, "price", fact.price)
            for name, price in (("bid", fact.bid), ("ask", fact.ask)):
                if price is not None:
                    _positive(fact, name, price)
        case _:
            assert_never(fact)


def in_order(facts: Iterable[Fact]) -> list[Fact]:
    """What counts of any facts: each once, in its highest revision, in the order of their places.

    Raises:
        ConflictingFact: two tellings of one fact that differ.
        InvalidValue: as `require`.
    """
    known: dict[tuple[str, int], Fact] = {}
    newest: dict[str, Fact] = {}
    for fact in facts:
        require(fact)
        before = known.setdefault((fact.fact_id, fact.revision), fact)
        if before is not fact:
            require_same(before, fact)
        current = newest.setdefault(fact.fact_id, fact)
        require_instant(current, fact)
        if fact.revision > current.revision:
            newest[fact.fact_id] = fact
    return sorted(newest.values(), key=place_of)


def require_same(before: Fact, fact: Fact) -> None:
    if before != fact:
        raise ConflictingFact(
            f"revision {fact.revision} of {fact.fact_id} was told twice, and differently.",
            "A correction has a higher revision.",
        )


def require_instant(before: Fact, fact: Fact) -> None:
    if before.at_ms != fact.at_ms:
        raise ConflictingFact(
            f"{fact.fact_id} was at {before.at_ms} and at {fact.at_ms}; all revisions of a fact have one instant.",
            "Bust it, and tell another fact.",
        )


def _owned(fact: Fact, scope: str) -> None:
    if scope == OUTSIDE:
        raise InvalidValue(f"scope of {fact.fact_id} was empty; it is a book's.")


def _sides(fact: Fact, source: str, destination: str) -> None:
    if source == destination:
        raise InvalidValue(f"{fact.fact_id} went from {source!r} to itself; the scopes differ.")


def _fee(fact: Fact, fee: Fee) -> None:
    _value(fact, "fee", fee.amount)
    if not fee.asset:
        raise InvalidValue(f"fee of {fact.fact_id} had no asset; it is said.")


def _positive(fact: Fact, name: str, value: Decimal) -> None:
    _number(fact, name, value)
    if value <= 0:
        raise InvalidValue(f"{name} of {fact.fact_id} was {value}; it is positive.")


def _number(fact: Fact, name: str, value: Decimal) -> None:
    if not is_factor(value):
        raise InvalidValue(
            f"{name} of {fact.fact_id} was {value}; a price or quantity has 30 digits at most, and 20 after the point."
        )


def _value(fact: Fact, name: str, value: Decimal) -> None:
    if not value.is_finite() or not is_value(value):
        raise InvalidValue(
            f"{name} of {fact.fact_id} was {value}; it is a finite number of at most 60 digits."
        )
