"""What a fee is taken on, and what it is: an execution as a fee model sees it, and a charge with its currency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import Protocol

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, plus, product, quotient
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.parameters import AMOUNT_PLACES, ONE, finite, kept, named, not_negative, positive

_HALF = Decimal("0.5")


class Liquidity(Enum):
    """Whether an execution has given liquidity or taken it. It is known from the fill, and never guessed from the kind of the order."""

    MAKER = "maker"
    TAKER = "taker"


class FeeCurrency(Enum):
    """In which currency of its market a fee is taken.

    Attributes:
        QUOTE: always the quote currency (Coinbase).
        BASE: always the base currency.
        RECEIVED: what the execution brings: a buyer pays base, a seller quote (Binance, Bybit, Bitfinex, Alpaca).
        GIVEN: what the execution gives away: a buyer pays quote, a seller base (Kraken, as Lean has it).
        BASE_OF_MAKER_BUY: base for the buy of a maker, else quote (FTX, as Lean has it).
    """

    QUOTE = "quote"
    BASE = "base"
    RECEIVED = "received"
    GIVEN = "given"
    BASE_OF_MAKER_BUY = "base_of_maker_buy"


class PriceBasis(Enum):
    """On which price a fee is taken.

    Attributes:
        FILL: the price of the execution.
        LIMIT: the order's limit price; of an order without one, the price of the execution (Binance spot and Kraken, as Lean has them).
        MARKET: the market's price at that time, even for a limit order (Coinbase and Alpaca, as Lean has them).
        MID: half way between bid and ask (futures of Binance and Bybit, as Lean has them).
        BID, ASK: that quote.
        LIMIT_OR_NEAR: the order's limit price; of an order without one the quote of its own side, the bid for a buy (Lean's premium of options at
            Interactive Brokers).
    """

    FILL = "fill"
    LIMIT = "limit"
    MARKET = "market"
    MID = "mid"
    BID = "bid"
    ASK = "ask"
    LIMIT_OR_NEAR = "limit_or_near"


@dataclass(frozen=True, slots=True)
class Charge:
    """A fee.

    Attributes:
        amount: in `currency`; negative is a rebate.
    """

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """One unit of `source` is worth `rate` units of `target`.

    Raises:
        InvalidValue: a rate that is not above 0, or a currency without a name.
    """

    source: str
    target: str
    rate: Decimal

    def __post_init__(self) -> None:
        named("source", self.source)
        named("target", self.target)
        positive("rate", self.rate)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an order has been filled and has paid before an execution; all zero for its first. It is the state of `PerOrderFee`.

    Attributes:
        quantity: base currency, or contracts.
        value: the sum of quantity * price * multiplier, quote currency, by the price basis of the fee.
        inverse_value: the sum of quantity * multiplier / price, base currency.
        fee: paid so far, in the currency of the order's fee.
        currency: that currency; empty before anything was charged.
    """

    quantity: Decimal = ZERO
    value: Decimal = ZERO
    inverse_value: Decimal = ZERO
    fee: Decimal = ZERO
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution as a fee model sees it. State that a fee hangs on (volume, holdings, earlier fills) comes in here.

    Attributes:
        quantity: that was FILLED, unsigned, base currency or contracts; never the quantity of the order.
        price: of the execution, slippage included, quote currency.
        base, quote: the currencies of the market.
        multiplier: base currency (linear), or quote currency (inverse), per contract; 1 for spot.
        limit_price, market_price, bid, ask: quote currency; only for a fee whose price basis asks for it.
        kind: of the security, such as option; only for a `KindFee`.
        at_ms: when it was filled.
        volume: traded before, in the unit of the schedule that asks for it (for most, the quote currency of 30 days): before the execution, or in a
            `PerOrderFee` before the order.
        holding: the position before, signed.
        balances: what the account has, by asset.
        conversions: what is needed for a fee in another currency than base and quote.
        earlier: of the same order.
        is_whole: whether `charged_quantity` and `value` cover the earlier fills, too.

    Raises:
        InvalidValue: a quantity or a price that is not above 0, a volume below 0, a currency without a name.
    """

    side: Side
    quantity: Decimal
    price: Decimal
    base: str
    quote: str
    liquidity: Liquidity = Liquidity.TAKER
    multiplier: Decimal = ONE
    limit_price: Decimal | None = None
    market_price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    kind: str = ""
    at_ms: int = 0
    volume: Decimal = ZERO
    holding: Decimal = ZERO
    balances: tuple[tuple[str, Decimal], ...] = ()
    conversions: tuple[Conversion, ...] = ()
    earlier: Earlier = Earlier()
    is_whole: bool = False

    def __post_init__(self) -> None:
        positive("quantity", self.quantity)
        positive("price", self.price)
        positive("multiplier", self.multiplier)
        not_negative("volume", self.volume)
        finite("holding", self.holding)
        named("base", self.base)
        named("quote", self.quote)

    @property
    def charged_quantity(self) -> Decimal:
        """What is charged: the filled quantity, or all that was filled of the order so far."""
        return plus(self.quantity, self.earlier.quantity) if self.is_whole else self.quantity

    def value(self, basis: PriceBasis = PriceBasis.FILL) -> Decimal:
        """quantity * price * multiplier, quote currency.

        Raises:
            InvalidValue: as `price_of`.
        """
        alone = product(product(self.quantity, self.price_of(basis)), self.multiplier)
        return plus(alone, self.earlier.value) if self.is_whole else alone

    def inverse_value(self, basis: PriceBasis = PriceBasis.FILL) -> Decimal:
        """quantity * multiplier / price, base currency, rounded half-even to `AMOUNT_PLACES` digits: the value of an inverse contract."""
        alone = quotient(product(self.quantity, self.multiplier), self.price_of(basis), AMOUNT_PLACES)
        return plus(alone, self.earlier.inverse_value) if self.is_whole else alone

    def price_of(self, basis: PriceBasis) -> Decimal:
        """The price that a fee is taken on.

        Raises:
            InvalidValue: the execution does not say it.
        """
        match basis:
            case PriceBasis.FILL:
                return self.price
            case PriceBasis.LIMIT:
                return self.price if self.limit_price is None else self._said("limit_price", self.limit_price)
            case PriceBasis.MARKET:
                return self._said("market_price", self.market_price)
            case PriceBasis.MID:
                return product(plus(self._said("bid", self.bid), self._said("ask", self.ask)), _HALF)
            case PriceBasis.BID:
                return self._said("bid", self.bid)
            case PriceBasis.ASK:
                return self._said("ask", self.ask)
            case PriceBasis.LIMIT_OR_NEAR:
                if self.limit_price is not None:
                    return self._said("limit_price", self.limit_price)
                return self._said("bid", self.bid) if self.side is Side.BUY else self._said("ask", self.ask)

    def currency_of(self, convention: FeeCurrency) -> str:
        """The currency of a fee by its convention."""
        is_buy = self.side is Side.BUY
        is_base = {
            FeeCurrency.QUOTE: False,
            FeeCurrency.BASE: True,
            FeeCurrency.RECEIVED: is_buy,
            FeeCurrency.GIVEN: not is_buy,
            FeeCurrency.BASE_OF_MAKER_BUY: is_buy and self.liquidity is Liquidity.MAKER,
        }[convention]
        return self.base if is_base else self.quote

    def balance_of(self, asset: str) -> Decimal:
        """What the account has of an asset; 0 where nothing is said."""
        return next((amount for name, amount in self.balances if name == asset), ZERO)

    def converted(self, amount: Decimal, source: str, target: str) -> Decimal:
        """`amount` in another currency, at the first conversion that names both; from base to quote and back at the price of the execution. Turned
        round it is a division, which is rounded as `kept` does.

        Raises:
            InvalidValue: no conversion between them is said.
        """
        if source == target:
            return amount
        for known in (*self.conversions, Conversion(self.base, self.quote, self.price)):
            if (known.source, known.target) == (source, target):
                return kept(product(amount, known.rate))
            if (known.target, known.source) == (source, target):
                return kept(quotient(amount, known.rate, AMOUNT_PLACES))
        raise InvalidValue(
            f"conversions had none between {source} and {target}, in which the fee is.",
            "Send a Conversion of the two with the execution.",
        )

    def whole(self) -> Execution:
        """The same, with the earlier fills of its order counted in."""
        return replace(self, is_whole=True)

    def after(self, charge: Charge, basis: PriceBasis = PriceBasis.FILL) -> Earlier:
        """What the next execution of the same order finds as `earlier`.

        Args:
            charge: of this one.
            basis: of the fee model.
        """
        alone = replace(self, is_whole=False)
        return Earlier(
            plus(self.earlier.quantity, self.quantity),
            plus(self.earlier.value, alone.value(basis)),
            plus(self.earlier.inverse_value, alone.inverse_value(basis)),
            plus(self.earlier.fee, charge.amount),
            charge.currency,
        )

    def _said(self, field: str, value: Decimal | None) -> Decimal:
        if value is None or not value.is_finite() or value <= 0:
            raise InvalidValue(
                f"{field} was {value}; the fee is taken on it, and it must be above 0.",
                "Send it with the execution, or take another price basis.",
            )
        return value


class ChargeModel(Protocol):
    """What a broker takes for one execution, in any currency."""

    def charge(self, execution: Execution) -> Charge:
        """The fee on the filled quantity.

        Raises:
            InvalidValue: the execution does not say what the fee hangs on.
        """
        ...
