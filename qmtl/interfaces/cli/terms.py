"""The options of verbs that trade in memory: on what terms."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from typing import Any

import click

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import parse_decimal
from qmtl.foundation.contracts.world import Instrument


def terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--cash`, `--currency`, `--fee-rate`, `--slippage-rate` and `--instrument`, given to the command as `terms`."""

    @wraps(command)
    def bundled(
        *rest: Any,
        cash: Decimal,
        currency: str,
        fee_rate: Decimal,
        slippage_rate: Decimal,
        instruments: tuple[Instrument, ...],
        **named: Any,
    ) -> Any:
        from qmtl.backtest.simulation import Terms

        return command(*rest, terms=Terms(currency, cash, fee_rate, slippage_rate, instruments), **named)

    for option in (
        click.option(
            "--instrument",
            "instruments",
            multiple=True,
            callback=_instruments,
            metavar="SYMBOL=TICK,LOT,MINIMUM",
            help="Limits of orders, repeatable; by default those that are published, or the finest steps.",
        ),
        click.option(
            "--slippage-rate",
            metavar="SHARE",
            callback=_number,
            default="0.0005",
            show_default=True,
            help="Share of the price, against the order.",
        ),
        click.option(
            "--fee-rate",
            metavar="SHARE",
            callback=_number,
            default="0.001",
            show_default=True,
            help="Share of what is traded.",
        ),
        click.option("--currency", default="USD", show_default=True, help="Of the cash."),
        click.option(
            "--cash",
            metavar="MONEY",
            callback=_number,
            default="100000",
            show_default=True,
            help="Of each strategy, to begin with.",
        ),
    ):
        bundled = option(bundled)
    return bundled


def _number(context: click.Context, parameter: click.Parameter, value: str) -> Decimal:
    """The callback of an option that takes an exact number."""
    try:
        return parse_decimal(value, parameter.opts[0])
    except InvalidValue as error:
        raise click.BadParameter(f"{error.what} {error.remedy}") from None


def _instruments(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Instrument, ...]:
    """The callback of an option that takes `SYMBOL=TICK,LOT,MINIMUM`, repeatable."""
    found: dict[str, Instrument] = {}
    for value in values:
        symbol, _, limits = value.partition("=")
        parts = limits.split(",")
        if not symbol or len(parts) != 3:
            raise click.BadParameter(
                f"{value[:80]!r} has not the form SYMBOL=TICK,LOT,MINIMUM, such as BTC-USD=0.01,0.00001,0.001."
            )
        if symbol in found:
            raise click.BadParameter(f"{symbol} was said twice.")
        try:
            tick, lot, minimum = (parse_decimal(one, "a limit") for one in parts)
        except InvalidValue as error:
            raise click.BadParameter(f"{error.what} {error.remedy}") from None
        found[symbol] = Instrument(symbol, tick, lot, minimum)
    return tuple(found.values())
