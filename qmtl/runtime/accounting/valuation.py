"""What a scope is worth in one currency, with the rates that are given and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.errors import NoRate
from qmtl.foundation.common.money import ZERO, magnitude, minus, negated, plus, product, quotient, total
from qmtl.runtime.accounting.book import Mark, ScopeBook
from qmtl.runtime.accounting.instrument import Instrument, Settlement, Terms
from qmtl.runtime.accounting.position import Position

LEVERAGE_PLACES: Final = 12


@dataclass(frozen=True, slots=True)
class Rates:
    """What one unit of an asset is worth in `currency`. No rate is turned round, and none is made of two others.

    Attributes:
        rates: by asset; the currency itself needs none.
    """

    currency: str
    rates: Mapping[str, Decimal]

    def converted(self, amount: Decimal, asset: str) -> Decimal:
        """Exact.

        Raises:
            NoRate: an amount that is not 0 in an asset without a rate.
        """
        if asset == self.currency or not amount:
            return amount
        rate = self.rates.get(asset)
        if rate is None:
            raise NoRate(f"no rate of {asset!r} into {self.currency!r} was given.", "Give one.")
        return product(amount, rate)


@dataclass(frozen=True, slots=True)
class Valuation:
    """One scope, or several together: all amounts in `currency`, exact.

    Attributes:
        cash: all assets.
        equity: cash, and what positions add to it (`Position.value`).
        gross: of fees.
        exposure, net_exposure: `sum(|notional|)`, `sum(notional)`.
        fees: in all assets, at the rates of now.
    """

    currency: str
    cash: Decimal
    equity: Decimal
    realised: Decimal
    unrealised: Decimal
    dividends: Decimal
    funding: Decimal
    fees: Decimal
    exposure: Decimal
    net_exposure: Decimal
    turnover: Decimal

    @property
    def net(self) -> Decimal:
        """Realised, dividends and funding, less fees."""
        return total((self.realised, self.dividends, self.funding, negated(self.fees)))

    @property
    def leverage(self) -> Decimal | None:
        """`exposure / equity`, rounded to `LEVERAGE_PLACES`; None where the equity is not positive."""
        return quotient(self.exposure, self.equity, LEVERAGE_PLACES) if self.equity > 0 else None


def valued(scopes: Iterable[ScopeBook], terms: Terms, rates: Rates) -> Valuation:
    """What scopes are worth together.

    Raises:
        NoRate: something is held, owed or was paid in an asset without a rate.
        InexactMoney: numbers too long for exact arithmetic.
    """
    cash, fees = [], []
    rows: list[tuple[Decimal, ...]] = []
    for scope in scopes:
        cash += [rates.converted(amount, asset) for asset, amount in scope.cash.items()]
        fees += [rates.converted(amount, asset) for asset, amount in scope.fees.items()]
        for symbol, position in scope.positions.items():
            instrument = terms.instrument(symbol)
            notional = position.notional(instrument)
            amounts = (
                position.value(instrument),
                position.realised,
                position.unrealised(instrument),
                position.dividends,
                position.funding,
                magnitude(notional),
                notional,
                position.turnover,
            )
            rows.append(tuple(rates.converted(amount, instrument.currency) for amount in amounts))
    value, realised, unrealised, dividends, funding, exposure, net_exposure, turnover = (
        (total(column) for column in zip(*rows, strict=True)) if rows else (ZERO,) * 8
    )
    held = total(cash)
    return Valuation(
        currency=rates.currency,
        cash=held,
        equity=plus(held, value),
        realised=realised,
        unrealised=unrealised,
        dividends=dividends,
        funding=funding,
        fees=total(fees),
        exposure=exposure,
        net_exposure=net_exposure,
        turnover=turnover,
    )


def imbalances(scope: ScopeBook, terms: Terms) -> dict[str, Decimal]:
    """By asset, what equity differs from what was contributed and gained: always 0 (law C5), whatever the costing.

    `cash + value of positions = contributed + carried + realised + unrealised + dividends + funding - fees`, where an exchange counts
    its cost as value in the quote currency, and what it brought as gained in the base.
    """
    out = {asset: minus(amount, scope.contributed.get(asset, ZERO)) for asset, amount in scope.cash.items()}
    for asset, amount in scope.fees.items():
        out[asset] = plus(out.get(asset, ZERO), amount)
    for symbol, position in scope.positions.items():
        instrument = terms.instrument(symbol)
        gained = [position.realised, position.dividends, position.funding, position.carried]
        gained.append(negated(position.taken))
        if instrument.settlement is Settlement.EXCHANGED:
            held = position.cost
            bought = plus(position.quantity, position.fees_in(instrument.base))
            out[instrument.base] = minus(out.get(instrument.base, ZERO), bought)
        else:
            held = position.value(instrument)
            gained.append(position.unrealised(instrument))
        out[instrument.currency] = total(
            (out.get(instrument.currency, ZERO), held, *(negated(one) for one in gained))
        )
    return out


def exit_price(position: Position, mark: Mark) -> Decimal:
    """What closing would be paid: the bid of a long, the ask of a short, the price where they are not known.

    Source: QuantConnect Lean, `SecurityHolding.TotalCloseProfit`.
    """
    side = mark.bid if position.quantity > 0 else mark.ask
    return mark.price if side is None else side


def close_profit(position: Position, instrument: Instrument, mark: Mark, exit_fee: Decimal) -> Decimal:
    """What closing the whole position would leave: `worth at exit price - cost - exit_fee`, in the instrument's currency; 0 when flat.

    Args:
        exit_fee: what the close is expected to cost, in the instrument's currency.

    Source: QuantConnect Lean, `SecurityHolding.TotalCloseProfit`.
    """
    if not position.quantity:
        return ZERO
    worth = instrument.worth(position.quantity, exit_price(position, mark))
    return total((worth, negated(position.cost), negated(exit_fee)))
