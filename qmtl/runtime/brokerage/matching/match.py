"""What one quotation makes of one simulated order: pure, for every type and time in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.money import ZERO, floor_to_step, minus, negated, plus, product, text
from qmtl.foundation.contracts.market import Prices, Quotation
from qmtl.foundation.contracts.trade import Order, OrderStatus, OrderTerms, OrderType, Side, TimeInForce
from qmtl.runtime.brokerage.fees.execution import Liquidity
from qmtl.runtime.brokerage.fills import execution_price
from qmtl.runtime.brokerage.matching.auction import AUCTIONED, auction_price, is_within
from qmtl.runtime.brokerage.matching.model import DAY_S, Convention, FillModel, Session
from qmtl.runtime.brokerage.matching.path import path_of, quarters
from qmtl.runtime.brokerage.matching.result import Executed, Matched
from qmtl.runtime.brokerage.matching.rules import Hit, Working, meet, reaches, terms_after, working_of
from qmtl.runtime.brokerage.matching.terms import LIMITED, checked_terms
from qmtl.runtime.brokerage.matching.view import View, mirrored, view_of
from qmtl.runtime.brokerage.slippage import NoSlippage, SlippageModel

_NO_SLIPPAGE: Final = NoSlippage()
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})
_ACTIVE: Final = frozenset({OrderType.MARKET, OrderType.LIMIT})


@dataclass(frozen=True, slots=True)
class Rules:
    """What a match needs beside the order and the data.

    Attributes:
        tick: smallest price step (> 0), quote currency.
        lot: smallest step of a quantity (> 0), base currency.
        session: the one that the order is for; None of a market that never closes.
    """

    model: FillModel
    tick: Decimal
    lot: Decimal
    slippage: SlippageModel = _NO_SLIPPAGE
    session: Session | None = None


def match(
    order: Order, data: Quotation, rules: Rules, rests: bool = False, position: Decimal | None = None
) -> Matched:
    """Look at one quotation for one order.

    Data that ended before the order was placed fills nothing (but see `FillModel.known_price_ms`); of a bar within which it was
    placed only the close counts, and of one within which it ends only the open. IOC and FOK take what is there when they come,
    which is the open of the first bar they meet. The price is never worse than the limit, slippage and rounding included.

    Args:
        order: still open; `cum_quantity` and `terms` as they are before.
        rests: it stood in the market before this data. It decides whether a limit is maker or taker, and whether post-only is refused.
        position: signed, of what a reduce-only order may reduce; None leaves that unchecked.

    Raises:
        InvalidValue: terms that its type does not allow, see `checked_terms`.
        InvariantBroken: data of another symbol, or an order with nothing left.
        InexactMoney: a price that can't be kept exact.
    """
    terms = checked_terms(order)
    if data.symbol != order.symbol:
        raise InvariantBroken(f"order {order.order_id} of {order.symbol} met data of {data.symbol}.")
    left = minus(order.quantity, order.cum_quantity)
    if left <= 0:
        raise InvariantBroken(f"order {order.order_id} of {text(order.quantity)} was filled already.")
    if order.reduce_only and position is not None:
        left = min(left, max(ZERO, negated(mirrored(order.side, position))))
        if not left:
            return Matched((), order.terms, OrderStatus.CANCELED, "There is nothing left to reduce.")
    view = view_of(order.side, data)
    if (end := ended(order, view.start_ms, rules.session)) is not None:
        return end
    if order.order_type in AUCTIONED:
        return _auctioned(order, terms, view, left, rules)
    seen, is_stale = _seen(order, view, rules)
    if seen is None:
        return _closed(order, order.terms, (), left, view, rules)
    if terms.post_only and not rests and _crosses(order.side, terms, seen):
        return Matched((), order.terms, OrderStatus.REJECTED, "It is post-only and would trade at once.")
    now, executions = _walk(order, terms, seen, left, rules, rests)
    after = order.terms if order.terms is None else terms_after(order.side, terms, now)
    open_now = minus(left, _sum(executions))
    if order.time_in_force in _AT_ONCE and open_now and (order.order_type in _ACTIVE or now.is_triggered):
        kept = () if order.time_in_force is TimeInForce.FOK else executions
        return Matched(kept, after, OrderStatus.CANCELED, f"It was {order.time_in_force.value}.", is_stale)
    out = _closed(order, after, executions, open_now, view, rules)
    return replace(out, is_stale=is_stale and bool(executions))


def match_legs(legs: Sequence[tuple[Order, Quotation]], rules: Rules) -> tuple[Matched, ...] | None:
    """The legs of one combination, all whole or none: None where one of them is not filled whole.

    Source: Lean's `ComboLegLimitFill` and `ComboMarketFill` at commit 24863901.
    """
    out = tuple(match(order, data, rules) for order, data in legs)
    for (order, _), found in zip(legs, out, strict=True):
        if plus(_sum(found.executions), order.cum_quantity) != order.quantity:
            return None
    return out


def deadline_of(order: Order, session: Session | None) -> int | None:
    """From when on nothing of the order is filled: of GTD its own instant, of DAY the session's end; None of the others."""
    if order.time_in_force is TimeInForce.GTD:
        return None if order.terms is None else order.terms.expire_at_ms
    if order.time_in_force is TimeInForce.DAY and session is not None:
        return session.close_ms
    return None


def ended(order: Order, at_ms: int, session: Session | None) -> Matched | None:
    """The end of an order whose time is over at an instant; None while it is not."""
    deadline = deadline_of(order, session)
    if deadline is None or at_ms < deadline:
        return None
    return Matched(
        (), order.terms, OrderStatus.EXPIRED, f"It was {order.time_in_force.value}; its time is over."
    )


def _seen(order: Order, view: View, rules: Rules) -> tuple[View | None, bool]:
    """The part of the data that the order may meet, and whether that is an old price."""
    placed, session, model = order.created_at_ms, rules.session, rules.model
    if view.end_ms <= placed:
        age = placed - view.end_ms
        known = replace(view.at(view.close), start_ms=placed, end_ms=placed)
        is_open = model.extended_hours or _is_in(known, session)
        is_new = order.order_type is OrderType.MARKET and model.known_price_ms and age <= model.known_price_ms
        if is_open and is_new:
            return known, age > model.stale_after_ms
        return None, False
    if order.cum_quantity and view.end_ms <= order.updated_at_ms:  # used up by the last fill
        return None, False
    if not model.extended_hours and not _is_in(view, session):
        return None, False
    deadline = deadline_of(order, session)
    if order.time_in_force is TimeInForce.DAY and view.interval >= DAY_S:
        deadline = None
    is_cut = deadline is not None and view.end_ms > deadline
    if view.start_ms < placed:
        late = replace(view.at(view.close), start_ms=view.end_ms)
        return (None if is_cut else late), False
    if is_cut or (order.time_in_force in _AT_ONCE and order.order_type in _ACTIVE):
        return replace(view.at(view.open), end_ms=view.start_ms), False
    return view, False


def _is_in(view: View, session: Session | None) -> bool:
    """Whether intraday data has to do with the session; daily data always has."""
    if session is None or view.interval >= DAY_S:
        return True
    return view.start_ms < session.close_ms and (
        view.start_ms >= session.open_ms or view.end_ms > session.open_ms
    )


def _crosses(side: Side, terms: OrderTerms, view: View) -> bool:
    return terms.limit_price is not None and reaches(view, view.open, mirrored(side, terms.limit_price))


def _walk(
    order: Order, terms: OrderTerms, view: View, left: Decimal, rules: Rules, rests: bool
) -> tuple[Working, tuple[Executed, ...]]:
    """All views that the data is made of, one after another: a bar is one, or four points on its way."""
    now = working_of(order.side, terms)
    volume = view.volume
    if rules.model.participation is not None and volume is not None:
        volume = product(volume, rules.model.participation)
    if rules.model.order_share is not None:
        share = product(order.quantity, rules.model.order_share)
        left = min(left, max(floor_to_step(share, rules.lot), rules.lot))
    capped = rules.model.participation is not None and volume is not None
    out: list[Executed] = []
    before: Decimal | None = None
    for part, share_of in _parts(order.side, view, volume, rules):
        now, hit = meet(order.order_type, terms, now, part, rules.model, rests or before is not None, before)
        if hit is not None and left > 0:
            quantity = (
                min(left, floor_to_step(share_of, rules.lot)) if capped and share_of is not None else left
            )
            if quantity > 0:
                out.append(_execution(order, now, part, hit, quantity, rules))
                left = minus(left, quantity)
        before = part.close
    return now, tuple(out)


def _parts(
    side: Side, view: View, volume: Decimal | None, rules: Rules
) -> tuple[tuple[View, Decimal | None], ...]:
    if rules.model.convention is not Convention.PATH or view.low == view.high:
        return ((view, volume),)
    if side is Side.BUY:
        prices = Prices(view.open, view.high, view.low, view.close)
    else:
        prices = Prices(negated(view.open), negated(view.low), negated(view.high), negated(view.close))
    points = path_of(prices, rules.model.adaptive_path)
    shares = (None,) * 4 if volume is None else quarters(volume, rules.lot)
    return tuple((view.at(mirrored(side, one)), share) for one, share in zip(points, shares, strict=True))


def _execution(order: Order, now: Working, view: View, hit: Hit, quantity: Decimal, rules: Rules) -> Executed:
    seen = mirrored(order.side, hit.price)
    price = seen
    if not hit.is_maker:
        adverse = rules.slippage.adverse(order.side, seen)
        price = execution_price(order.side, seen, adverse, rules.tick)
        is_limited = order.order_type in LIMITED or order.order_type is OrderType.TRAILING_STOP_LIMIT
        if is_limited and now.limit is not None:
            limit = mirrored(order.side, now.limit)
            price = min(price, limit) if order.side is Side.BUY else max(price, limit)
    worse = minus(price, seen) if order.side is Side.BUY else minus(seen, price)
    liquidity = Liquidity.MAKER if hit.is_maker else Liquidity.TAKER
    return Executed(price, quantity, liquidity, worse, view.start_ms if hit.at_open else view.end_ms)


def _auctioned(order: Order, terms: OrderTerms, view: View, left: Decimal, rules: Rules) -> Matched:
    if rules.session is None:
        return Matched(
            (), order.terms, OrderStatus.REJECTED, "A market that never closes has no open and no close."
        )
    hit = None
    if view.end_ms > order.created_at_ms:
        hit = auction_price(order, view, rules.model, rules.session)
    if hit is None:
        return _closed(order, order.terms, (), left, view, rules)
    # A close is the end of the day that the order is for, so that of DAY it is in time; of GTD the instant decides.
    late = ended(order, view.start_ms if hit.at_open else view.end_ms, None)
    if late is not None:
        return late
    now = working_of(order.side, terms)
    if not is_within(hit, now.limit):
        return Matched((), order.terms, OrderStatus.EXPIRED, "The auction's price was beyond the limit.")
    volume = view.volume
    if rules.model.participation is not None and volume is not None:
        left_now = min(left, floor_to_step(product(volume, rules.model.participation), rules.lot))
    else:
        left_now = left
    if order.time_in_force is TimeInForce.FOK and left_now < left:
        return Matched((), order.terms, OrderStatus.CANCELED, "It was FOK.")
    done = (_execution(order, now, view, hit, left_now, rules),) if left_now > 0 else ()
    if left_now < left:
        return Matched(done, order.terms, OrderStatus.EXPIRED, "The auction is over.")
    return Matched(done, order.terms)


def _closed(
    order: Order,
    terms: OrderTerms | None,
    executions: tuple[Executed, ...],
    left: Decimal,
    view: View,
    rules: Rules,
) -> Matched:
    """The result, with the end of an order whose time is over when the data ends."""
    over = ended(order, view.end_ms, rules.session) if left else None
    if over is None:
        return Matched(executions, terms)
    return Matched(executions, terms, over.end, over.reason)


def _sum(executions: Sequence[Executed]) -> Decimal:
    out = ZERO
    for one in executions:
        out = plus(out, one.quantity)
    return out
