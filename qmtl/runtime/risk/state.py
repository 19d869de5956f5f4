"""What limits are judged on: holdings with what open orders can make of them, and what each book is and was worth.

A state is of one broker's books. Money on paper and money at a venue are never added: the one would make room for the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.money import ZERO, magnitude, minus, negated, plus, product, total
from qmtl.foundation.contracts.trade import BrokerMode, Order, Side

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Holding:
    """What one strategy holds of one symbol, and what its open orders can still add.

    Attributes:
        quantity: signed, base currency.
        mark: the last close, quote currency; 0 before the first.
        buying: what all open buys together can still fill, unsigned. One whose cancellation is awaited is among them.
        selling: the same of the open sells.
    """

    strategy_id: str
    symbol: str
    quantity: Decimal = ZERO
    mark: Decimal = ZERO
    buying: Decimal = ZERO
    selling: Decimal = ZERO

    @property
    def highest(self) -> Decimal:
        """The position when every open buy fills whole and no open sell does: signed."""
        return plus(self.quantity, self.buying)

    @property
    def lowest(self) -> Decimal:
        """The position when every open sell fills whole and no open buy does: signed."""
        return minus(self.quantity, self.selling)

    @property
    def worst(self) -> Decimal:
        """The greatest position that any fills of the open orders can lead to: unsigned."""
        return max(magnitude(self.highest), magnitude(self.lowest))


@dataclass(frozen=True, slots=True)
class Worth:
    """What a book, or a world's books together, are worth and were: quote currency.

    Attributes:
        day_equity: what the day (UTC) of `at_ms` began with.
        peak_equity: the greatest so far.
        at_ms: the bucket that `equity` is of.
    """

    equity: Decimal
    day_equity: Decimal
    peak_equity: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True)
class Placed:
    """How many orders a strategy has placed at one event time."""

    strategy_id: str
    at_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class RiskState:
    """All that the limits of a world ask, of the books of one broker.

    Attributes:
        holdings: one per strategy and symbol. One of nothing tells the mark of a symbol that the strategy does not hold.
        worths: of each strategy's book, by strategy id.
        world: of all of them together. Its peak is not the sum of their peaks.
        placed: the orders of the longest window of a rate limit; older ones may be left out.

    Raises:
        InvariantBroken: two holdings of one strategy and symbol, or two worths of one strategy.
    """

    mode: BrokerMode
    world: Worth
    worths: tuple[tuple[str, Worth], ...] = ()
    holdings: tuple[Holding, ...] = ()
    placed: tuple[Placed, ...] = ()

    def __post_init__(self) -> None:
        if len({(one.strategy_id, one.symbol) for one in self.holdings}) < len(self.holdings):
            raise InvariantBroken("a risk state had two holdings of one strategy and symbol.")
        if len({strategy_id for strategy_id, _ in self.worths}) < len(self.worths):
            raise InvariantBroken("a risk state had two worths of one strategy.")

    def holding(self, strategy_id: str, symbol: str) -> Holding:
        """What the strategy holds of the symbol: nothing where the state has no row."""
        for one in self.holdings:
            if one.strategy_id == strategy_id and one.symbol == symbol:
                return one
        return Holding(strategy_id, symbol)

    def worth(self, strategy_id: str) -> Worth:
        """What the strategy's book is worth.

        Raises:
            InvariantBroken: the state has no book of the strategy: nobody knows what it may lose.
        """
        for name, worth in self.worths:
            if name == strategy_id:
                return worth
        raise InvariantBroken(f"the risk state has no book of strategy {strategy_id!r}.")


def opened(equity: Decimal, at_ms: int) -> Worth:
    """A book that begins: nothing was lost yet."""
    return Worth(equity, equity, equity, at_ms)


def valued(worth: Worth, equity: Decimal, at_ms: int) -> Worth:
    """The worth at a later bucket. A new day begins with what the last bucket before it has left.

    Raises:
        InvariantBroken: a bucket before the one that the worth is of.
    """
    if at_ms < worth.at_ms:
        raise InvariantBroken(f"a worth of the bucket {worth.at_ms} was valued at {at_ms}, which is before.")
    is_new_day = at_ms // DAY_MS > worth.at_ms // DAY_MS
    return Worth(
        equity,
        worth.equity if is_new_day else worth.day_equity,
        max(worth.peak_equity, equity),
        at_ms,
    )


def moved(worth: Worth, amount: Decimal) -> Worth:
    """The worth after money came in (positive) or went out: neither a gain nor a loss, so all three numbers move.

    A strategy that begins brings its initial cash into the world's worth this way.
    """
    return replace(
        worth,
        equity=plus(worth.equity, amount),
        day_equity=plus(worth.day_equity, amount),
        peak_equity=plus(worth.peak_equity, amount),
    )


def with_order(state: RiskState, order: Order) -> RiskState:
    """The state in which an order is placed: what it can fill is reserved, and it counts in the rate.

    Raises:
        InvariantBroken: an order of another broker.
    """
    require_same_broker(state, order)
    held = reserved(state.holding(order.strategy_id, order.symbol), order)
    others = tuple(
        one for one in state.holdings if one.strategy_id != order.strategy_id or one.symbol != order.symbol
    )
    placed = Placed(order.strategy_id, order.created_at_ms, 1)
    return replace(state, holdings=(*others, held), placed=(*state.placed, placed))


def with_open_orders(holding: Holding, orders: Iterable[Order]) -> Holding:
    """The holding with what its open orders can fill reserved.

    Args:
        orders: of the holding's strategy and symbol, none of them ended.
    """
    for order in orders:
        holding = reserved(holding, order)
    return holding


def reserved(holding: Holding, order: Order) -> Holding:
    """The holding with what is left of one more open order."""
    left = total((order.quantity, negated(order.cum_quantity)))
    match order.side:
        case Side.BUY:
            return replace(holding, buying=plus(holding.buying, left))
        case Side.SELL:
            return replace(holding, selling=plus(holding.selling, left))


def reduces(holding: Holding, order: Order) -> bool:
    """Whether an order can only make the position smaller, whatever fills first: it is against the position, and fits into it together
    with the open orders of its side.

    An order through flat is none: what it opens on the other side is new. That an order is called reduce-only does not make it one here;
    who executes it may not keep to the word.
    """
    left = minus(order.quantity, order.cum_quantity)
    match order.side:
        case Side.BUY:
            return holding.quantity < 0 and plus(holding.highest, left) <= 0
        case Side.SELL:
            return holding.quantity > 0 and minus(holding.lowest, left) >= 0


def gross(holdings: Iterable[Holding]) -> Decimal:
    """`sum(worst * mark)`: the value of all holdings in the worst case."""
    return total(product(one.worst, one.mark) for one in holdings)


def require_same_broker(state: RiskState, order: Order) -> None:
    if order.mode is not state.mode:
        raise InvariantBroken(
            f"order {order.order_id} of the {order.mode.value} broker met a risk state of {state.mode.value}."
        )
