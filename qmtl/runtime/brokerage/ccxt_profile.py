"""A brokerage profile from what ccxt says of a market: its fees as a model, its limits as data. Offline, and without ccxt itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, parse_decimal
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.fees import (
    Charge,
    ChargeModel,
    Conversion,
    ConvertedFee,
    Execution,
    FeeCurrency,
    FixedFee,
    InverseFee,
    Liquidity,
    LiquidityFee,
    MakerTakerFee,
    Schedule,
    Tier,
    TieredFee,
)
from qmtl.runtime.brokerage.parameters import ONE

DEFAULT_MAKER = Decimal("0.0002")
DEFAULT_TAKER = Decimal("0.0007")
"""The rates where neither market nor exchange says one."""

_DECIMAL_PLACES, _SIGNIFICANT_DIGITS, _TICK_SIZE = 2, 3, 4
_SIDES = {
    "get": FeeCurrency.RECEIVED,
    "give": FeeCurrency.GIVEN,
    "base": FeeCurrency.BASE,
    "quote": FeeCurrency.QUOTE,
}


class RateSource(Enum):
    """Who has said a rate."""

    MARKET = "market"
    EXCHANGE = "exchange"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class MarketLimits:
    """What a market accepts, as far as it says so; None where it does not.

    Attributes:
        tick: smallest price step, quote currency.
        lot: smallest step of a quantity, base currency or contracts.
        min_quantity, max_quantity: of an order, base currency or contracts.
        min_price, max_price: quote currency.
        min_notional, max_notional: quantity * price of an order, quote currency.
    """

    tick: Decimal | None = None
    lot: Decimal | None = None
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    min_notional: Decimal | None = None
    max_notional: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CcxtBrokerage:
    """A market of an exchange, for a broker that simulates it.

    Attributes:
        symbol: by ccxt, such as BTC/USDT or BTC/USDT:USDT.
        multiplier: of a contract; 1 for spot.
        fees: in base, quote, settlement currency or another asset, as the market says.
        maker_from, taker_from: who has said the rates.
        limits: as data.
    """

    symbol: str
    base: str
    quote: str
    multiplier: Decimal
    fees: ChargeModel
    maker_from: RateSource
    taker_from: RateSource
    limits: MarketLimits

    def charge(
        self,
        side: Side,
        quantity: Decimal,
        price: Decimal,
        liquidity: Liquidity,
        volume: Decimal = ZERO,
        conversions: tuple[Conversion, ...] = (),
    ) -> Charge:
        """The fee of an execution of this market.

        Args:
            quantity: filled, unsigned, base currency or contracts.
            liquidity: what the fill says.
            volume: of 30 days, for a schedule.
            conversions: for a fee in another asset.

        Raises:
            InvalidValue: as `Execution` and the fee.
        """
        return self.fees.charge(
            Execution(
                side,
                quantity,
                price,
                self.base,
                self.quote,
                liquidity,
                self.multiplier,
                volume=volume,
                conversions=conversions,
            )
        )


def make_ccxt_brokerage(
    market: Mapping[str, object],
    exchange: Mapping[str, object] | None = None,
    *,
    default_maker: Decimal = DEFAULT_MAKER,
    default_taker: Decimal = DEFAULT_TAKER,
    is_tiered: bool = False,
    fee_asset: str = "",
) -> CcxtBrokerage:
    """The profile of a market.

    Each thing is taken from the market itself; where it does not say it, from the exchange (for a contract from the fees of its kind, `linear` or `inverse`,
    before those of all); where that does not say it either, from the default. That holds for maker, taker, `percentage`, `feeSide` and tiers alone, one by one.

    `feeSide` names the currency: `get` what is received, `give` what is given away, `base`, `quote`, and `other` a third asset, which has to be named. A
    contract pays in its settlement currency: a linear one on `quantity * contractSize * price`, an inverse one on `quantity * contractSize / price`.
    With `percentage` false the rates are amounts per execution. Source: ccxt 4.5, `base/exchange.py` (`calculate_fee_with_rate`) and its manual's
    "market structure", "precision" and "fee structure"; ccxt itself charges contracts without their size.

    Args:
        market: what `ccxt`'s `market()` gives.
        exchange: `fees` and `precisionMode` of the exchange, as `describe()` gives them. A `precisionMode` that is not said is that of tick sizes.
        default_maker, default_taker: fractions.
        is_tiered: charge by the tiers that market or exchange state, by the volume of each execution; else at one rate.
        fee_asset: for `feeSide` other.

    Raises:
        InvalidValue: a market without symbol, base or quote; a number that is none; a contract that is neither linear nor inverse; a `feeSide` nobody knows,
            or a third asset that is not named; tiers that are asked for and not there.
    """
    told = _Told(market, exchange or {})
    symbol, base, quote = (told.name(field) for field in ("symbol", "base", "quote"))
    maker, maker_from = told.rate("maker", default_maker)
    taker, taker_from = told.rate("taker", default_taker)
    fees = _fees(told, maker, taker, base, quote, is_tiered, fee_asset)
    size = _number(market.get("contractSize"), "contractSize") if told.kind else None
    return CcxtBrokerage(
        symbol,
        base,
        quote,
        ONE if size is None else size,
        fees,
        maker_from,
        taker_from,
        _limits(market, _precision_mode(exchange or {})),
    )


class _Told:
    """What market and exchange say, in this order."""

    def __init__(self, market: Mapping[str, object], exchange: Mapping[str, object]) -> None:
        self.market = market
        self.kind = _contract_kind(market)
        fees = _table(exchange.get("fees"), "fees")
        of_kind = _table(fees.get(self.kind), f"fees.{self.kind}") if self.kind else {}
        self._places = (
            (RateSource.MARKET, market),
            (RateSource.EXCHANGE, _table(of_kind.get("trading"), "fees.trading")),
            (RateSource.EXCHANGE, _table(fees.get("trading"), "fees.trading")),
        )

    def name(self, field: str) -> str:
        value = self.market.get(field)
        if not isinstance(value, str) or not value:
            raise InvalidValue(
                f"{field} of the market was {value!r}; it must be a text.", "Send what ccxt's market() gives."
            )
        return value

    def value(self, field: str) -> object:
        return self._found(field)[1]

    def rate(self, field: str, default: Decimal) -> tuple[Decimal, RateSource]:
        source, value = self._found(field)
        number = _number(value, field)
        return (default, RateSource.DEFAULT) if number is None else (number, source)

    def flag(self, field: str, default: bool) -> bool:
        value = self.value(field)
        if value is not None and not isinstance(value, bool):
            raise InvalidValue(f"{field} was {value!r}; it must be true or false.", "Send true or false.")
        return default if value is None else value

    def _found(self, field: str) -> tuple[RateSource, object]:
        for source, place in self._places:
            if place.get(field) is not None:
                return source, place[field]
        return RateSource.DEFAULT, None


def _fees(
    told: _Told, maker: Decimal, taker: Decimal, base: str, quote: str, is_tiered: bool, fee_asset: str
) -> ChargeModel:
    convention, asset = _currency(told, fee_asset)
    settle = told.name("settle") if told.kind else quote
    if not told.flag("percentage", default=True):
        currency = asset or (settle if told.kind else "")
        return LiquidityFee(FixedFee(maker, currency), FixedFee(taker, currency))
    fee: ChargeModel
    if told.kind == "inverse":
        if is_tiered:
            raise InvalidValue(
                "is_tiered was true for an inverse contract, whose volume is in another unit.",
                "Leave is_tiered out.",
            )
        fee, own = InverseFee(maker, taker), base
    else:
        fee, own = MakerTakerFee(maker, taker, convention), quote
        if is_tiered:
            fee = TieredFee(_schedule(told.value("tiers")), currency=convention)
    if asset:
        return ConvertedFee(fee, asset)
    return ConvertedFee(fee, settle) if told.kind and settle != own else fee


def _currency(told: _Told, fee_asset: str) -> tuple[FeeCurrency, str]:
    """By which convention, and the third asset where the fee is in one."""
    side = told.value("feeSide")
    if side == "other":
        if not fee_asset:
            raise InvalidValue("feeSide was 'other', and no asset was named.", "Send fee_asset, such as BNB.")
        return FeeCurrency.QUOTE, fee_asset
    if side is not None and (not isinstance(side, str) or side not in _SIDES):
        raise InvalidValue(
            f"feeSide was {side!r}; it must be one of {', '.join(_SIDES)}, other.", "Send get."
        )
    return FeeCurrency.QUOTE if side is None or told.kind else _SIDES[str(side)], ""


def _contract_kind(market: Mapping[str, object]) -> str:
    """`linear` or `inverse`; empty for spot."""
    if market.get("contract") is not True and market.get("spot") is not False:
        return ""
    for kind, same in (("linear", "quote"), ("inverse", "base")):
        is_silent = market.get("linear") is None and market.get("inverse") is None
        if market.get(kind) is True or (is_silent and market.get("settle") == market.get(same)):
            return kind
    raise InvalidValue(
        f"linear and inverse were {market.get('linear')!r} and {market.get('inverse')!r} for a contract that settles in {market.get('settle')!r};"
        " it must be one of the two.",
        "Quanto contracts have no model.",
    )


def _schedule(tiers: object) -> Schedule:
    """ccxt has a list of volume and rate for makers and another for takers; a schedule has one list, with every volume of both."""
    if tiers is None:
        raise InvalidValue(
            "tiers were asked for, and neither market nor exchange states them.", "Leave is_tiered out."
        )
    lists = {}
    for field in ("maker", "taker"):
        found = _table(tiers, "tiers").get(field)
        if not isinstance(found, list | tuple) or not found:
            raise InvalidValue(
                f"tiers.{field} was {found!r}; it must be a list.", "Send [[volume, rate], ...]."
            )
        lists[field] = [_tier(pair, field) for pair in found]
    volumes = sorted({volume for found in lists.values() for volume, _ in found})
    return Schedule(
        tuple(Tier(volume, _at(lists["maker"], volume), _at(lists["taker"], volume)) for volume in volumes)
    )


def _tier(pair: object, field: str) -> tuple[Decimal, Decimal]:
    if isinstance(pair, list | tuple) and len(pair) == 2:
        volume, rate = (_number(value, f"tiers.{field}") for value in pair)
        if volume is not None and rate is not None:
            return volume, rate
    raise InvalidValue(f"a tier of {field} was {pair!r}; it must be a volume and a rate.", "Send [0, 0.001].")


def _at(tiers: list[tuple[Decimal, Decimal]], volume: Decimal) -> Decimal:
    """The rate at a volume; of the first tier below it."""
    return next((rate for start, rate in reversed(tiers) if start <= volume), tiers[0][1])


def _limits(market: Mapping[str, object], mode: int) -> MarketLimits:
    precision, limits = (_table(market.get(field), field) for field in ("precision", "limits"))

    def step(field: str) -> Decimal | None:
        value = _number(precision.get(field), f"precision.{field}")
        if value is None or mode == _SIGNIFICANT_DIGITS:
            return None
        if mode == _DECIMAL_PLACES:
            if value != int(value):
                raise InvalidValue(
                    f"precision.{field} was {value}; in this mode it is a number of digits.",
                    "Check precisionMode.",
                )
            return ONE.scaleb(-int(value))
        return value

    def bound(field: str, side: str) -> Decimal | None:
        return _number(_table(limits.get(field), f"limits.{field}").get(side), f"limits.{field}.{side}")

    return MarketLimits(
        step("price"),
        step("amount"),
        bound("amount", "min"),
        bound("amount", "max"),
        bound("price", "min"),
        bound("price", "max"),
        bound("cost", "min"),
        bound("cost", "max"),
    )


def _precision_mode(exchange: Mapping[str, object]) -> int:
    """2: digits after the point; 3: significant digits, which is no fixed step; 4: the step itself."""
    mode = exchange.get("precisionMode")
    if mode is None:
        return _TICK_SIZE
    if isinstance(mode, bool) or mode not in (_DECIMAL_PLACES, _SIGNIFICANT_DIGITS, _TICK_SIZE):
        raise InvalidValue(f"precisionMode was {mode!r}; ccxt has 2, 3 and 4.", "Send the exchange's own.")
    return int(str(mode))


def _table(value: object, field: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{field} was {value!r}; it must be a table.", "Send what ccxt gives.")
    return value


def _number(value: object, field: str) -> Decimal | None:
    """ccxt's numbers are floats, whose shortest text is the number that was meant; texts and Decimals stay as they are."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise InvalidValue(f"{field} was {value!r}; it must be a number.", "Send what ccxt gives.")
    return parse_decimal(str(value), field)
