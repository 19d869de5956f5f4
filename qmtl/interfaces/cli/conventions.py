"""The options of verbs that compute figures: how, where people differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import click

from qmtl.interfaces.cli.options import interval_s


def convention_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--matching`, `--period`, `--periods-per-year`, `--risk-free`, `--returns` and `--population`, given to the command as `convention`."""

    @wraps(command)
    def bundled(
        *rest: Any,
        matching: str,
        period: int | None,
        periods_per_year: float | None,
        risk_free: float,
        returns: Literal["simple", "log"],
        population: bool,
        **named: Any,
    ) -> Any:
        from qmtl.runtime.performance.kpi import Convention
        from qmtl.runtime.performance.trades import Matching

        convention = Convention(
            period, periods_per_year, risk_free, returns, 0 if population else 1, matching=Matching(matching)
        )
        return command(*rest, convention=convention, **named)

    for option in (
        click.option(
            "--population", is_flag=True, help="Deviations of the population (n) instead of a sample (n - 1)."
        ),
        click.option(
            "--returns",
            type=click.Choice(["simple", "log"]),
            default="simple",
            show_default=True,
            help="Of what volatility and ratios are.",
        ),
        click.option(
            "--risk-free",
            type=click.FloatRange(min=-0.99, max=10),
            default=0.0,
            show_default=True,
            metavar="SHARE",
            help="Per year, such as 0.05.",
        ),
        click.option(
            "--periods-per-year",
            type=click.FloatRange(min=0, min_open=True, max=1e8),
            default=None,
            metavar="N",
            help="Of such returns; by default those of 365 days.",
        ),
        click.option(
            "--period",
            callback=interval_s,
            metavar="TIME",
            help="What one return covers, such as 1d; by default a bar.",
        ),
        click.option(
            "--matching",
            type=click.Choice(["fifo", "average"]),
            default="fifo",
            show_default=True,
            help="Which cost a closed part takes with it.",
        ),
    ):
        bundled = option(bundled)
    return bundled
