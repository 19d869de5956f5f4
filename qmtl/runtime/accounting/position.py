"""A position and its lots: what a trade opens, what it closes, and what the closed part had cost."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, assert_never

from qmtl.foundation.common.money import (
    ZERO,
    magnitude,
    minus,
    negated,
    plus,
    product,
    quotient,
    total,
    whole_steps,
)
from qmtl.runtime.accounting.facts import Fee
from qmtl.runtime.accounting.instrument import Costing, Instrument, Settlement

COST_PLACES: Final = 18
"""Digits after the point to which the cost of a part of a lot is rounded, half-even; the rest of it stays with the lot."""

PRICE_PLACES: Final = 12
"""Digits after the point of an average price, which is for people."""


@dataclass(frozen=True, slots=True)
class Lot:
    """What was opened together; with average costs a position is one lot.

    Attributes:
        quantity: signed.
        cost: what it was worth when it was opened (`Instrument.worth`), an exact sum.
        opened: the id of the fact that opened it.
    """

    quantity: Decimal
    cost: Decimal
    opened: str


@dataclass(frozen=True, slots=True)
class Position:
    """What one scope has of one symbol. All amounts are in the instrument's currency.

    Attributes:
        lots: in the order in which they were opened; all of one sign.
        quantity, cost: sums over the lots, signed.
        realised: gross of fees.
        last_realised: what the last trade that closed something has realised.
        taken: what fees in the base asset have taken out of the position, at the prices of their executions.
        carried: what deliveries have brought (positive) or taken away, at their prices.
        dividends, funding: received.
        turnover: the sum of what its executions were worth, unsigned.
        fees: of its executions, by asset, sorted.
        first_price: of the first trade; what it is valued at before there is a mark.
        mark: what it is valued at.
        fills: executions that count.
    """

    symbol: str
    lots: tuple[Lot, ...] = ()
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    realised: Decimal = ZERO
    last_realised: Decimal = ZERO
    taken: Decimal = ZERO
    carried: Decimal = ZERO
    dividends: Decimal = ZERO
    funding: Decimal = ZERO
    turnover: Decimal = ZERO
    fees: tuple[Fee, ...] = ()
    first_price: Decimal = ZERO
    mark: Decimal = ZERO
    fills: int = 0

    def average_price(self, instrument: Instrument) -> Decimal:
        """Rounded to `PRICE_PLACES` digits; 0 when flat. `cost / quantity / size`; of an inverse contract the harmonic mean."""
        if not self.quantity:
            return ZERO
        units = product(self.quantity, instrument.size)
        if instrument.inverse:
            return quotient(negated(units), self.cost, PRICE_PLACES)
        return quotient(self.cost, units, PRICE_PLACES)

    def unrealised(self, instrument: Instrument) -> Decimal:
        """What closing it at the mark would realise, gross of fees."""
        return minus(instrument.worth(self.quantity, self.mark), self.cost) if self.quantity else ZERO

    def value(self, instrument: Instrument) -> Decimal:
        """What it adds to an account beside the cash: the whole worth where it was paid, the gain where it is margined, and nothing
        where both sides are cash."""
        match instrument.settlement:
            case Settlement.PAID:
                return instrument.worth(self.quantity, self.mark) if self.quantity else ZERO
            case Settlement.MARGINED:
                return self.unrealised(instrument)
            case Settlement.EXCHANGED:
                return ZERO
            case _:
                assert_never(instrument.settlement)

    def notional(self, instrument: Instrument) -> Decimal:
        """The exposure: signed as the quantity, in the instrument's currency."""
        if not self.quantity:
            return ZERO
        worth = magnitude(instrument.worth(self.quantity, self.mark))
        return worth if self.quantity > 0 else negated(worth)

    def fees_in(self, asset: str) -> Decimal:
        return total(fee.amount for fee in self.fees if fee.asset == asset)

    def net(self, instrument: Instrument) -> Decimal:
        """What was realised and paid for holding, less the fees in the instrument's currency and what fees took out of the position.
        Fees in other assets are not valued."""
        return total(
            (
                self.realised,
                self.dividends,
                self.funding,
                negated(self.taken),
                negated(self.fees_in(instrument.currency)),
            )
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a lot that was closed: `quantity` signed as the lot, with its cost."""

    opened: str
    quantity: Decimal
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Matched:
    """What a trade makes of lots.

    Attributes:
        pieces: in the order in which they were closed.
        opens: what of the trade is left after closing, signed.
    """

    lots: tuple[Lot, ...]
    pieces: tuple[Piece, ...]
    opens: Decimal
    realised: Decimal


def match(
    lots: tuple[Lot, ...],
    moved: Decimal,
    price: Decimal,
    instrument: Instrument,
    costing: Costing,
    opened: str,
) -> Matched:
    """Lots after `moved` (signed) was traded at `price`.

    What is against the lots closes them: the oldest first, with LIFO the youngest, with average costs the one that there is. A part
    of a lot takes `cost * closed / quantity` with it, all of the cost where all is closed. What is realised is the worth of the
    closed quantity less that same rounded cost, so a rounding moves a fraction between realised and unrealised and never out of
    their sum. The rest opens a lot at `price`.
    """
    kept = list(lots)
    pieces: list[Piece] = []
    rest = moved
    young = costing is Costing.LIFO
    while rest and kept and (kept[0].quantity > 0) != (rest > 0):
        at = len(kept) - 1 if young else 0
        lot = kept[at]
        if magnitude(rest) >= magnitude(lot.quantity):
            closed, cost = lot.quantity, lot.cost
            del kept[at]
        else:
            closed = negated(rest)
            cost = quotient(product(lot.cost, closed), lot.quantity, COST_PLACES)
            kept[at] = Lot(minus(lot.quantity, closed), minus(lot.cost, cost), lot.opened)
        pieces.append(Piece(lot.opened, closed, cost))
        rest = plus(rest, closed)
    realised = ZERO
    if pieces:
        realised = minus(instrument.worth(minus(rest, moved), price), total(piece.cost for piece in pieces))
    if rest:
        worth = instrument.worth(rest, price)
        if kept and costing is Costing.AVERAGE:
            lot = kept[0]
            kept[0] = Lot(plus(lot.quantity, rest), plus(lot.cost, worth), lot.opened)
        else:
            kept.append(Lot(rest, worth, opened))
    return Matched(tuple(kept), tuple(pieces), rest, realised)


@dataclass(frozen=True, slots=True)
class Divided:
    """What a split makes of lots.

    Attributes:
        cost: of the fraction that was paid out.
        paid: for it; who is short pays it.
    """

    lots: tuple[Lot, ...]
    cost: Decimal
    paid: Decimal


def split(
    lots: tuple[Lot, ...], after: int, before: int, lot_size: Decimal, cash_price: Decimal, size: Decimal
) -> Divided:
    """Lots in new units.

    The bounds between lots are `sum of the quantities so far * after / before`, rounded to lots towards zero, so that the sum of
    the lots is the whole position rounded; each keeps its cost, and one of which nothing is left gives it to the next, the last one to
    the fraction. The fraction at the end is taken out of the last lot at its share of that lot's cost, and paid at `cash_price`, both rounded half-even to
    `COST_PLACES` digits.
    """
    step = product(lot_size, Decimal(before))
    done: list[Lot] = []
    seen, bound, waiting = ZERO, ZERO, ZERO
    scaled = ZERO
    for lot in lots:
        seen = plus(seen, lot.quantity)
        scaled = product(seen, Decimal(after))
        quantity = minus(product(whole_steps(scaled, step), lot_size), bound)
        bound = plus(bound, quantity)
        waiting = plus(waiting, lot.cost)
        if quantity:
            done.append(Lot(quantity, waiting, lot.opened))
            waiting = ZERO
    fraction = minus(scaled, product(bound, Decimal(before)))
    if not fraction:
        return Divided(tuple(done), ZERO, ZERO)
    paid = quotient(product(product(fraction, cash_price), size), Decimal(before), COST_PLACES)
    if not done or waiting:
        cost = waiting
    else:
        last = done[-1]
        whole = plus(product(last.quantity, Decimal(before)), fraction)
        cost = quotient(product(last.cost, fraction), whole, COST_PLACES)
        done[-1] = Lot(last.quantity, minus(last.cost, cost), last.opened)
    return Divided(tuple(done), cost, paid)


def added(held: tuple[Fee, ...], more: tuple[Fee, ...]) -> tuple[Fee, ...]:
    """Fees by asset, sorted, with more of them."""
    sums = {fee.asset: fee.amount for fee in held}
    for fee in more:
        sums[fee.asset] = plus(sums.get(fee.asset, ZERO), fee.amount)
    return tuple(Fee(asset, sums[asset]) for asset in sorted(sums))
