"""The book: what all facts up to a place have made of cash and positions, scope by scope, and how one more fact changes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, assert_never

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, magnitude, minus, negated, plus, product, quotient, text, total
from qmtl.foundation.contracts.trade import Side
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
from qmtl.runtime.accounting.instrument import Settlement, Terms
from qmtl.runtime.accounting.position import COST_PLACES, Position, added, match, split


@dataclass(frozen=True, slots=True)
class Mark:
    """What a symbol is valued at: quote currency per unit."""

    price: Decimal
    bid: Decimal | None = None
    ask: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ScopeBook:
    """One scope.

    Attributes:
        cash: by asset, after fees; may be negative.
        contributed: by asset, deposits and cash that came from other scopes, less withdrawals and what went to them. What was
            delivered is in `Position.carried`.
        fees: by asset, of executions and beside them.
        positions: by symbol, also those that are flat again.
    """

    cash: Mapping[str, Decimal]
    contributed: Mapping[str, Decimal]
    fees: Mapping[str, Decimal]
    positions: Mapping[str, Position]

    def position(self, symbol: str) -> Position:
        return self.positions.get(symbol, Position(symbol))


NOTHING: Final = ScopeBook(*(MappingProxyType({}),) * 4)


@dataclass(frozen=True, slots=True)
class Book:
    """A function of the set of facts that it includes. All mappings are in the order of their keys."""

    scopes: Mapping[str, ScopeBook]
    marks: Mapping[str, Mark]

    def scope(self, scope: str) -> ScopeBook:
        return self.scopes.get(scope, NOTHING)

    def digest(self) -> str:
        """BLAKE3 of its canonical bytes: equal books have equal ones, on any machine."""
        return blake3_hex(canonical_bytes(_plain(self)))


@dataclass(slots=True)
class _Scope:
    cash: dict[str, Decimal] = field(default_factory=dict)
    contributed: dict[str, Decimal] = field(default_factory=dict)
    fees: dict[str, Decimal] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)

    def copy(self) -> _Scope:
        return _Scope(dict(self.cash), dict(self.contributed), dict(self.fees), dict(self.positions))


class Booking:
    """A book that is being written: facts are booked in the order of their places, each once.

    A fact that can't be booked changes nothing.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._scopes: dict[str, _Scope] = {}
        self._marks: dict[str, Mark] = {}

    @classmethod
    def of(cls, book: Book, terms: Terms) -> Booking:
        """Goes on from a book."""
        made = cls(terms)
        for name, scope in book.scopes.items():
            made._scopes[name] = _Scope(
                dict(scope.cash), dict(scope.contributed), dict(scope.fees), dict(scope.positions)
            )
        made._marks.update(book.marks)
        return made

    def copy(self) -> Booking:
        made = Booking(self._terms)
        made._scopes = {name: scope.copy() for name, scope in self._scopes.items()}
        made._marks = dict(self._marks)
        return made

    def book(self, fact: Fact) -> None:
        """Books the fact that follows.

        Raises:
            UnknownInstrument: a symbol that the terms don't have.
            InvalidValue: a split of what can't be split.
            InexactMoney: numbers too long for exact arithmetic.
        """
        match fact:
            case Filled():
                self._fill(fact)
            case Busted():
                pass
            case Charged():
                self._change(fact.scope, cash=(_out(fact.fee),), fees=(fact.fee,))
            case Transferred():
                self._transfer(fact)
            case Delivered():
                self._deliver(fact)
            case Split():
                self._split(fact)
            case DividendPaid():
                self._dividend(fact)
            case Funded():
                self._fund(fact)
            case Marked():
                self._terms.instrument(fact.symbol)
                self._marks[fact.symbol] = Mark(fact.price, fact.bid, fact.ask)
            case _:
                assert_never(fact)

    def frozen(self) -> Book:
        return Book(
            _sorted(
                {
                    name: ScopeBook(
                        _sorted(scope.cash),
                        _sorted(scope.contributed),
                        _sorted(scope.fees),
                        _sorted({symbol: self._marked(one) for symbol, one in scope.positions.items()}),
                    )
                    for name, scope in self._scopes.items()
                }
            ),
            _sorted(self._marks),
        )

    def _marked(self, position: Position) -> Position:
        mark = self._marks.get(position.symbol)
        return replace(position, mark=position.first_price if mark is None else mark.price)

    def _fill(self, fact: Filled) -> None:
        instrument = self._terms.instrument(fact.symbol)
        before = self._position(fact.scope, fact.symbol)
        traded = fact.quantity if fact.side is Side.BUY else negated(fact.quantity)
        worth = instrument.worth(traded, fact.price)
        # A fee in the asset that was traded is not held: the position is what is left of it.
        in_kind = total(fee.amount for fee in fact.fees if instrument.base and fee.asset == instrument.base)
        moved = minus(traded, in_kind)
        done = match(before.lots, moved, fact.price, instrument, self._terms.costing, fact.fact_id)
        after = replace(
            before,
            lots=done.lots,
            quantity=plus(before.quantity, moved),
            cost=total(lot.cost for lot in done.lots),
            realised=plus(before.realised, done.realised),
            last_realised=done.realised if done.pieces else before.last_realised,
            taken=plus(before.taken, instrument.worth(in_kind, fact.price)) if in_kind else before.taken,
            turnover=plus(before.turnover, magnitude(worth)),
            fees=added(before.fees, fact.fees) if fact.fees else before.fees,
            first_price=before.first_price or fact.price,
            fills=before.fills + 1,
        )
        cash = [_out(fee) for fee in fact.fees]
        match instrument.settlement:
            case Settlement.PAID:
                cash.append(Fee(instrument.currency, negated(worth)))
            case Settlement.EXCHANGED:
                cash.append(Fee(instrument.currency, negated(worth)))
                cash.append(Fee(instrument.base, traded))
            case Settlement.MARGINED:
                cash.append(Fee(instrument.currency, done.realised))
            case _:
                assert_never(instrument.settlement)
        self._change(fact.scope, cash=cash, fees=fact.fees, position=after)

    def _transfer(self, fact: Transferred) -> None:
        came, went = Fee(fact.asset, fact.amount), Fee(fact.asset, negated(fact.amount))
        changes = [
            self._changed(scope, (moved,), contributed=(moved,))
            for scope, moved in ((fact.source, went), (fact.destination, came))
            if scope != OUTSIDE
        ]
        self._keep(changes)

    def _deliver(self, fact: Delivered) -> None:
        instrument = self._terms.instrument(fact.symbol)
        changes = []
        for scope, moved in ((fact.source, negated(fact.quantity)), (fact.destination, fact.quantity)):
            if scope == OUTSIDE:
                continue
            before = self._position(scope, fact.symbol)
            done = match(before.lots, moved, fact.price, instrument, self._terms.costing, fact.fact_id)
            margined = instrument.settlement is Settlement.MARGINED
            carried = ZERO if margined else instrument.worth(moved, fact.price)
            after = replace(
                before,
                lots=done.lots,
                quantity=plus(before.quantity, moved),
                cost=total(lot.cost for lot in done.lots),
                realised=plus(before.realised, done.realised),
                last_realised=done.realised if done.pieces else before.last_realised,
                carried=plus(before.carried, carried),
                first_price=before.first_price or fact.price,
            )
            in_kind = (Fee(instrument.base, moved),) if instrument.base else ()
            cash = (Fee(instrument.currency, done.realised),) if margined else in_kind
            changes.append(self._changed(scope, cash, position=after))
        self._keep(changes)

    def _split(self, fact: Split) -> None:
        instrument = self._terms.instrument(fact.symbol)
        if instrument.base or instrument.inverse:
            raise InvalidValue(
                f"{fact.fact_id} splits {fact.symbol}, whose units are an asset or money; only shares and linear contracts are split.",
                "Tell what became of the asset as transfers.",
            )
        changes = []
        for scope in self._having(fact.symbol):
            before = self._scopes[scope].positions[fact.symbol]
            done = split(before.lots, fact.after, fact.before, fact.lot, fact.cash_price, instrument.size)
            realised = minus(done.paid, done.cost)
            after = replace(
                before,
                lots=done.lots,
                quantity=total(lot.quantity for lot in done.lots),
                cost=total(lot.cost for lot in done.lots),
                realised=plus(before.realised, realised),
                first_price=_divided(before.first_price, fact),
            )
            paid = realised if instrument.settlement is Settlement.MARGINED else done.paid
            cash = (Fee(instrument.currency, paid),) if paid else ()
            changes.append(self._changed(scope, cash, position=after))
        mark = self._marks.get(fact.symbol)
        if mark is not None:
            mark = Mark(
                _divided(mark.price, fact),
                None if mark.bid is None else _divided(mark.bid, fact),
                None if mark.ask is None else _divided(mark.ask, fact),
            )
            self._marks[fact.symbol] = mark
        self._keep(changes)

    def _dividend(self, fact: DividendPaid) -> None:
        instrument = self._terms.instrument(fact.symbol)
        changes = []
        for scope in self._having(fact.symbol):
            before = self._scopes[scope].positions[fact.symbol]
            if not before.quantity:
                continue
            paid = product(before.quantity, fact.per_unit)
            after = replace(before, dividends=plus(before.dividends, paid))
            changes.append(self._changed(scope, (Fee(instrument.currency, paid),), position=after))
        self._keep(changes)

    def _fund(self, fact: Funded) -> None:
        instrument = self._terms.instrument(fact.symbol)
        before = self._position(fact.scope, fact.symbol)
        after = replace(before, funding=plus(before.funding, fact.amount))
        self._change(fact.scope, cash=(Fee(instrument.currency, fact.amount),), position=after)

    def _having(self, symbol: str) -> list[str]:
        """The scopes that have traded it."""
        return [name for name, scope in self._scopes.items() if symbol in scope.positions]

    def _position(self, scope: str, symbol: str) -> Position:
        found = self._scopes.get(scope)
        return found.positions.get(symbol, Position(symbol)) if found is not None else Position(symbol)

    def _change(
        self, name: str, cash: Iterable[Fee], fees: Iterable[Fee] = (), position: Position | None = None
    ) -> None:
        self._keep((self._changed(name, cash, fees=fees, position=position),))

    def _changed(
        self,
        name: str,
        cash: Iterable[Fee],
        *,
        contributed: Iterable[Fee] = (),
        fees: Iterable[Fee] = (),
        position: Position | None = None,
    ) -> tuple[str, dict[str, Decimal], dict[str, Decimal], dict[str, Decimal], Position | None]:
        scope = self._scopes.get(name) or _Scope()
        return (
            name,
            _sums(scope.cash, cash),
            _sums(scope.contributed, contributed),
            _sums(scope.fees, fees),
            position,
        )

    def _keep(
        self,
        changes: Iterable[
            tuple[str, dict[str, Decimal], dict[str, Decimal], dict[str, Decimal], Position | None]
        ],
    ) -> None:
        """Nothing below can fail, so that a fact is booked whole or not at all."""
        for name, cash, contributed, fees, position in changes:
            scope = self._scopes.setdefault(name, _Scope())
            scope.cash.update(cash)
            scope.contributed.update(contributed)
            scope.fees.update(fees)
            if position is not None:
                scope.positions[position.symbol] = position


def _sums(held: Mapping[str, Decimal], moved: Iterable[Fee]) -> dict[str, Decimal]:
    """The new sums of the assets that move."""
    out: dict[str, Decimal] = {}
    for one in moved:
        out[one.asset] = plus(out.get(one.asset, held.get(one.asset, ZERO)), one.amount)
    return out


def _out(fee: Fee) -> Fee:
    return Fee(fee.asset, negated(fee.amount))


def _divided(price: Decimal, fact: Split) -> Decimal:
    """A price after a split, rounded half-even to `COST_PLACES` digits: it values, and is no money."""
    return quotient(product(price, Decimal(fact.before)), Decimal(fact.after), COST_PLACES)


def _sorted(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType({key: values[key] for key in sorted(values)})


def _plain(value: object) -> object:
    """A value as canonical bytes know it: amounts are their texts."""
    match value:
        case Decimal():
            return text(value)
        case Mapping():
            return {key: _plain(one) for key, one in value.items()}
        case tuple():
            return [_plain(one) for one in value]
        case None | str() | int():
            return value
        case _:
            return {name: _plain(getattr(value, name)) for name in type(value).__slots__}  # type: ignore[attr-defined]  # only our own slotted values lie in a book
