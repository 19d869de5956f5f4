"""Round trips and cycles: what the executions of one symbol in one scope make when they are read as trades.

Both are readings of facts, not part of the book. Two conventions of other engines are kept, each as one function.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from qmtl.foundation.common.money import ZERO, minus, negated, plus, product, quotient, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.accounting.facts import Fact, Fee, Filled, Marked, in_order
from qmtl.runtime.accounting.instrument import Costing, Terms
from qmtl.runtime.accounting.position import PRICE_PLACES, Lot, added
from qmtl.runtime.accounting.position import match as match_lots


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One execution's closing of one lot.

    Attributes:
        quantity: signed as what was held.
        entry, exit: prices of the two executions.
        profit: gross of fees, in the instrument's currency.
        fees: in that currency.
        mae, mfe: the worst and the best profit at the marks in between and at entry and exit; 0 or below, 0 or above.
        entry_id, exit_id: ids of the facts.
    """

    quantity: Decimal
    entry: Decimal
    exit: Decimal
    profit: Decimal
    fees: Decimal
    mae: Decimal
    mfe: Decimal
    entry_id: str
    exit_id: str


def round_trips(
    facts: Iterable[Fact], terms: Terms, scope: str, symbol: str, costing: Costing = Costing.FIFO
) -> tuple[RoundTrip, ...]:
    """Fill to fill: each part of a lot that an execution closes is one trip, in the order in which they were closed.

    The fee of an execution goes whole to the first trip that it closes or, if it closes none, to the first that closes what it
    opened; that of a flip goes to what it closes, and what it opens has none.

    Source: QuantConnect Lean, `TradeBuilder` with `FillGroupingMethod.FillToFill`.
    """
    instrument = terms.instrument(symbol)
    matching = costing if costing is not Costing.AVERAGE else Costing.FIFO
    lots: tuple[Lot, ...] = ()
    prices: dict[str, Decimal] = {}
    fees: dict[str, Decimal] = {}
    seen: dict[str, tuple[Decimal, Decimal]] = {}
    trips: list[RoundTrip] = []
    for fact in in_order(facts):
        match fact:
            case Marked() if fact.symbol == symbol:
                seen = {
                    one: (min(low, fact.price), max(high, fact.price)) for one, (low, high) in seen.items()
                }
            case Filled() if (fact.scope, fact.symbol) == (scope, symbol):
                moved = fact.quantity if fact.side is Side.BUY else negated(fact.quantity)
                done = match_lots(lots, moved, fact.price, instrument, matching, fact.fact_id)
                lots = done.lots
                paid = total(fee.amount for fee in fact.fees if fee.asset == instrument.currency)
                for piece in done.pieces:
                    entry = prices[piece.opened]
                    low, high = seen[piece.opened]
                    reached = [
                        minus(
                            instrument.worth(piece.quantity, price), instrument.worth(piece.quantity, entry)
                        )
                        for price in (entry, low, high, fact.price)
                    ]
                    trips.append(
                        RoundTrip(
                            quantity=piece.quantity,
                            entry=entry,
                            exit=fact.price,
                            profit=minus(instrument.worth(piece.quantity, fact.price), piece.cost),
                            fees=plus(fees.pop(piece.opened, ZERO), paid),
                            mae=min(reached),
                            mfe=max(reached),
                            entry_id=piece.opened,
                            exit_id=fact.fact_id,
                        )
                    )
                    paid = ZERO
                if done.opens:
                    prices[fact.fact_id] = fact.price
                    seen[fact.fact_id] = (fact.price, fact.price)
                    fees[fact.fact_id] = paid
                seen = {one: seen[one] for one in {lot.opened: None for lot in lots}}
            case _:
                pass
    return tuple(trips)


@dataclass(frozen=True, slots=True)
class Cycle:
    """From flat to flat, at average cost.

    Attributes:
        quantity: signed, what is open.
        realised: gross of fees.
        fees: by asset, sorted; the fee of a flip belongs to the cycle that it closes.
        open_worth, open_quantity: of what was open before the last close, or is open: their quotient is the average price that it was
            opened at.
        closed_worth, closed_quantity: of all that was closed.
    """

    quantity: Decimal = ZERO
    realised: Decimal = ZERO
    fees: tuple[Fee, ...] = ()
    open_worth: Decimal = ZERO
    open_quantity: Decimal = ZERO
    closed_worth: Decimal = ZERO
    closed_quantity: Decimal = ZERO

    def net(self, currency: str) -> Decimal:
        """Realised less the fees in one currency; those of the opening count at once, others are not valued.

        Source: nautilus_trader, `Position.realized_pnl`.
        """
        return minus(self.realised, total(fee.amount for fee in self.fees if fee.asset == currency))

    @property
    def average_open(self) -> Decimal:
        """Worth per unit; stays what it was when the cycle closes. Of a linear contract of size 1, the price."""
        return _price(self.open_worth, self.open_quantity)

    @property
    def average_close(self) -> Decimal:
        return _price(self.closed_worth, self.closed_quantity)

    @property
    def realised_return(self) -> Decimal:
        """`(average_close - average_open) / average_open`, of a short the other way round; 0 before anything was closed."""
        if not self.closed_quantity:
            return ZERO
        crossed = product(self.closed_worth, self.open_quantity)
        against = product(self.open_worth, self.closed_quantity)
        up = quotient(minus(crossed, against), against, 2 * PRICE_PLACES)
        return up if self.open_quantity > 0 else negated(up)


def cycles(facts: Iterable[Fact], terms: Terms, scope: str, symbol: str) -> tuple[Cycle, ...]:
    """The cycles of a symbol, the last one open or closed.

    Source: nautilus_trader, `Position`, of which a new one begins after each that is flat.
    """
    instrument = terms.instrument(symbol)
    done: list[Cycle] = []
    lots: tuple[Lot, ...] = ()
    now = Cycle()
    for fact in in_order(facts):
        if not isinstance(fact, Filled) or (fact.scope, fact.symbol) != (scope, symbol):
            continue
        traded = fact.quantity if fact.side is Side.BUY else negated(fact.quantity)
        in_kind = total(fee.amount for fee in fact.fees if instrument.base and fee.asset == instrument.base)
        moved = minus(traded, in_kind)
        matched = match_lots(lots, moved, fact.price, instrument, Costing.AVERAGE, fact.fact_id)
        lots = matched.lots
        closed = total(piece.quantity for piece in matched.pieces)
        quantity = total(lot.quantity for lot in lots)
        worth = total(lot.cost for lot in lots)
        if not done and not now.open_quantity:
            done.append(now)
        elif not closed and not now.quantity:
            now = Cycle()
            done.append(now)
        now = replace(
            now,
            fees=added(now.fees, fact.fees),
            realised=plus(now.realised, matched.realised),
            closed_quantity=plus(now.closed_quantity, closed),
            closed_worth=plus(now.closed_worth, instrument.worth(closed, fact.price)),
        )
        if closed and matched.opens:
            done[-1] = replace(now, quantity=ZERO)
            now = Cycle(quantity=quantity, open_worth=worth, open_quantity=quantity)
            done.append(now)
            continue
        now = replace(now, quantity=quantity)
        if quantity:
            now = replace(now, open_worth=worth, open_quantity=quantity)
        done[-1] = now
    return tuple(done)


def _price(worth: Decimal, quantity: Decimal) -> Decimal:
    return quotient(worth, quantity, PRICE_PLACES) if quantity else ZERO
