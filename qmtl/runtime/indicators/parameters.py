"""The rules of parameters: what each one may be, said once, and told in the same words by every node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.runtime.indicators.builtin import kind, strangers


class Unfit(Exception):
    """A value that its rule does not allow."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one parameter may be.

    Attributes:
        wanted: in words, after "was the number 3; ".
        remedy: what to send.
        read: the value in the node's form; raises `Unfit`.
    """

    wanted: str
    remedy: str
    read: Callable[[object], Any]

    def refusal(self, node_type: str, name: str, value: object) -> InvalidParameter:
        """The refusal of a value that is not allowed."""
        return InvalidParameter(
            f"{name} of {_article(node_type)} {node_type} node was {kind(value)}; {self.wanted}.", self.remedy
        )


Rules = Mapping[str, Rule]
NO_RULES: Final[Rules] = {}


def refusals(node_type: str, params: Mapping[str, object], rules: Rules) -> Iterator[InvalidParameter]:
    """All that is wrong with the parameters, each by itself; all of them are required."""
    yield from strangers(node_type, params, tuple(rules))
    for name, rule in rules.items():
        if name in params:
            try:
                rule.read(params[name])
            except Unfit:
                yield rule.refusal(node_type, name, params[name])


def read(params: Mapping[str, object], rules: Rules) -> dict[str, Any]:
    """The values of sound parameters."""
    return {name: rule.read(params[name]) for name, rule in rules.items()}


def whole(least: int, most: int) -> Rule:
    """A whole number of a range."""

    def read_whole(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Unfit
        return value

    return Rule(
        f"a whole number from {least} to {most} is required", f"Send one, such as {least}.", read_whole
    )


def number(least: float = -math.inf, most: float = math.inf, above: bool = False) -> Rule:
    """A finite number of a range, as a float.

    Args:
        above: `least` itself is none.
    """
    if least == -math.inf and most == math.inf:
        wanted = "a finite number is required"
    elif most == math.inf:
        wanted = f"a finite number {'above' if above else 'from'} {least:g} is required"
    else:
        wanted = f"a number from {least:g} to {most:g} is required"

    def read_number(value: object) -> float:
        found = _float(value)
        if not least <= found <= most or (above and found == least):
            raise Unfit
        return found

    return Rule(wanted, "Send a number.", read_number)


def choice(*texts: str) -> Rule:
    """One of some texts."""

    def read_choice(value: object) -> str:
        if not isinstance(value, str) or value not in texts:
            raise Unfit
        return value

    return Rule(f"one of {', '.join(texts)} is required", "Choose one of them.", read_choice)


def numbers(count: int) -> Rule:
    """A list of so many finite numbers, as floats."""

    def read_numbers(value: object) -> tuple[float, ...]:
        if not isinstance(value, list | tuple) or len(value) != count:
            raise Unfit
        return tuple(_float(one) for one in value)

    return Rule(f"a list of {count} finite numbers is required", "Send one number per input.", read_numbers)


def _float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Unfit
    try:
        found = float(value)
    except (OverflowError, ValueError):
        raise Unfit from None
    if not math.isfinite(found):
        raise Unfit
    return found + 0.0


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
