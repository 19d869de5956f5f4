"""At what price within one view of the market an order is met. All of it is written for a buyer (see `view`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from qmtl.foundation.common.money import ZERO, magnitude, plus, product
from qmtl.foundation.contracts.trade import OrderTerms, OrderType, Side
from qmtl.runtime.brokerage.matching.model import Convention, FillModel
from qmtl.runtime.brokerage.matching.terms import TRAILING
from qmtl.runtime.brokerage.matching.view import View, mirrored

_TOUCHED = frozenset({OrderType.MARKET_IF_TOUCHED, OrderType.LIMIT_IF_TOUCHED})
_TO_LIMIT = frozenset({OrderType.STOP_LIMIT, OrderType.TRAILING_STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED})


@dataclass(frozen=True, slots=True)
class Working:
    """The moving part of an order's terms, prices as a buyer sees them.

    Attributes:
        limit: None where the order has no limit, or has none yet.
        stop: of a trailing stop before its first price None.
    """

    limit: Decimal | None
    stop: Decimal | None
    is_triggered: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """Where an order is met.

    Attributes:
        is_maker: it rested, and the market came to it.
        at_open: at the start of the data, not within it.
    """

    price: Decimal
    is_maker: bool
    at_open: bool


def working_of(side: Side, terms: OrderTerms) -> Working:
    limit, stop = terms.limit_price, terms.stop_price
    return Working(
        None if limit is None else mirrored(side, limit),
        None if stop is None else mirrored(side, stop),
        terms.is_triggered,
    )


def terms_after(side: Side, terms: OrderTerms, now: Working) -> OrderTerms:
    return replace(
        terms,
        limit_price=None if now.limit is None else mirrored(side, now.limit),
        stop_price=None if now.stop is None else mirrored(side, now.stop),
        is_triggered=now.is_triggered,
    )


def meet(
    kind: OrderType,
    terms: OrderTerms,
    now: Working,
    view: View,
    model: FillModel,
    rests: bool,
    before: Decimal | None = None,
) -> tuple[Working, Hit | None]:
    """What one view makes of an order that is neither for the open nor for the close.

    Args:
        rests: the order stood in the market before this view.
        before: of a point on a bar's way, the point before it; None at the first.
    """
    if kind is OrderType.MARKET:
        return now, _market(view, model)
    if kind is OrderType.LIMIT:
        return now, _limit(now, view, model, rests) if _is_seen(view, model) else None
    if now.is_triggered:
        if kind not in _TO_LIMIT:
            return now, _market(view, model)
        if kind is OrderType.LIMIT_IF_TOUCHED:
            return now, _touched_limit(now, view, model)
        return now, _limit(now, view, model, True) if _is_seen(view, model) else None
    if kind in _TOUCHED:
        return _touched(kind, now, view, model, before)
    return _stopped(kind, terms, now, view, model, before) if _is_seen(view, model) else (now, None)


def reaches(view: View, price: Decimal, limit: Decimal) -> bool:
    """Whether a limit is met at a price: a quote at the limit meets it, a trade has to be better, as others stand there before."""
    return price < limit if view.is_trade else price <= limit


def _is_seen(view: View, model: FillModel) -> bool:
    return view.is_trade or model.convention is not Convention.EQUITY


def _market(view: View, model: FillModel) -> Hit:
    at_open = view.interval >= model.open_interval
    return Hit(view.open if at_open else view.close, False, at_open)


def _limit(now: Working, view: View, model: FillModel, rests: bool) -> Hit | None:
    limit = now.limit
    if limit is None or not reaches(view, view.low, limit):
        return None
    crosses = not rests and reaches(view, view.open, limit)
    if model.convention is Convention.PATH:
        return Hit(view.open if crosses else limit, not crosses, crosses)
    if model.convention is Convention.EQUITY:
        gaps = view.high < limit
        return Hit(view.open if gaps else limit, not crosses, gaps or crosses)
    return Hit(min(view.high, limit), not crosses, crosses)


def _touched_limit(now: Working, view: View, model: FillModel) -> Hit | None:
    """Filled at the limit itself, the worst that it can be; by quotes alone where there are any."""
    if now.limit is None or (model.quotes and view.is_trade) or view.low > now.limit:
        return None
    return Hit(now.limit, True, False)


def _touched(
    kind: OrderType, now: Working, view: View, model: FillModel, before: Decimal | None
) -> tuple[Working, Hit | None]:
    stop = now.stop
    if stop is None or view.low > stop or (model.quotes and not view.is_trade):
        return now, None
    now = replace(now, is_triggered=True)
    if kind is OrderType.LIMIT_IF_TOUCHED:
        # What the bar did before it was touched does not count: only its close is known to be later.
        return now, _touched_limit(now, view.at(view.close), model)
    gaps = view.open <= stop and before is None and model.convention in (Convention.EQUITY, Convention.PATH)
    return now, Hit(view.open if gaps else min(stop, view.high), False, gaps)


def _stopped(
    kind: OrderType, terms: OrderTerms, now: Working, view: View, model: FillModel, before: Decimal | None
) -> tuple[Working, Hit | None]:
    if now.stop is None:
        now = replace(now, stop=plus(view.open, _distance(terms, view.open)))
    stop = now.stop
    if stop is None or view.high < stop:
        return _trailed(kind, terms, now, view), None
    limit = now.limit
    if kind is OrderType.TRAILING_STOP_LIMIT and limit is None:
        limit = plus(stop, terms.limit_offset or ZERO)
    now = Working(limit, stop, True)
    gaps = view.open >= stop and before is None
    if kind in _TO_LIMIT:
        return now, _limit_of_stop(now, view, model, view.open if gaps else stop)
    if model.convention in (Convention.EQUITY, Convention.PATH):
        return now, Hit(view.open if gaps else stop, False, gaps)
    return now, Hit(max(view.close, stop), False, False)


def _limit_of_stop(now: Working, view: View, model: FillModel, met: Decimal) -> Hit | None:
    """The limit order that a stop has just become, in the data that triggered it.

    On a way whose points are known it takes the price at which it was triggered, or rests. Of a whole bar only the close is known
    to come after: where that is better than the limit, it is filled at the limit.
    Source of the second: Lean's `StopLimitFill` at commit 24863901.
    """
    if now.limit is None:
        return None
    if model.convention is Convention.PATH:
        return Hit(met, False, False) if met <= now.limit else None
    return Hit(min(view.high, now.limit), False, False) if reaches(view, view.close, now.limit) else None


def _trailed(kind: OrderType, terms: OrderTerms, now: Working, view: View) -> Working:
    """A trailing stop follows the best price, and never goes back."""
    if kind not in TRAILING or now.stop is None:
        return now
    return replace(now, stop=min(now.stop, plus(view.low, _distance(terms, view.low))))


def _distance(terms: OrderTerms, price: Decimal) -> Decimal:
    if terms.trail_rate is not None:
        return product(magnitude(price), terms.trail_rate)
    return terms.trail_amount or ZERO
