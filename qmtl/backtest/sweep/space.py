"""What a sweep tries: the values of each parameter, and of all combinations those that its conditions allow, in one order whatever order they were said in."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise, product
from typing import Any, Final, TypeAlias

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import InvalidSweep
from qmtl.foundation.common.names import MAX_NAME

Value: TypeAlias = bool | int | float | str
"""What a parameter may be; all values of one parameter are of one of these kinds."""

MAX_COMBINATIONS: Final = 10_000
"""Strategies of one sweep, after its conditions."""

MAX_TRIED: Final = 1_000_000
"""Combinations of which conditions may choose."""

MAX_PARAMETERS: Final = 16
_DIGEST_BYTES: Final = 8
_MAX_TEXT: Final = 100

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_NUMBER: Final = r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,3})?"
_PARAMETER: Final = re.compile(rf"({_NAME})=(.*)", re.ASCII | re.DOTALL)
_IS_NUMBER: Final = re.compile(_NUMBER, re.ASCII)
_IS_WHOLE: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_TEXT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", re.ASCII)
_CONDITION: Final = re.compile(rf"\s*({_NAME})\s*(<=|>=|==|!=|<|>)\s*({_NAME}|{_NUMBER})\s*", re.ASCII)
_TRUTH: Final = {"true": True, "false": False}
_FORM: Final = (
    "Write NAME=FROM:TO:STEP or NAME=VALUE,VALUE,…; for example --param fast=5:50:5 --param slow=20,40,80."
)

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a strategy's constructor.

    Attributes:
        values: ascending, each once.
    """

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a parameter with another one or with a number.

    Attributes:
        right: a parameter's name, or the number itself.
    """

    left: str
    sign: str
    right: str | int | float

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether it is true of a combination."""
        left = values[self.left]
        right = values[self.right] if isinstance(self.right, str) else self.right
        assert not isinstance(left, str)
        assert not isinstance(right, str)
        return _COMPARE[self.sign](left, right)


@dataclass(frozen=True, slots=True)
class Combination:
    """One value for each parameter, by the parameters' names in order."""

    values: tuple[tuple[str, Value], ...]

    def digest(self) -> str:
        """16 hex digits that tell it from any other combination, of these parameters or of others."""
        return blake3_hex(canonical_bytes(dict(self.values)), _DIGEST_BYTES)

    def strategy_id(self, stem: str) -> str:
        """What its strategy is called: the name of the swept one, cut where it is long, and the digest."""
        return f"{stem[: MAX_NAME - 2 * _DIGEST_BYTES - 1].rstrip('.')}-{self.digest()}"

    def told(self) -> str:
        """It as people read it."""
        return ", ".join(f"{name} {value_text(value)}" for name, value in self.values)


@dataclass(frozen=True, slots=True)
class Space:
    """All that a sweep tries.

    Attributes:
        parameters: by name.
    """

    parameters: tuple[Parameter, ...]
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def of(cls, parameters: Iterable[Parameter], conditions: Iterable[Condition] = ()) -> Space:
        """The space of these, in one order.

        Raises:
            InvalidSweep: no parameters, too many, one said twice, or a condition on what there is not, or on texts.
        """
        ordered = tuple(sorted(parameters, key=lambda one: one.name))
        if not 1 <= len(ordered) <= MAX_PARAMETERS:
            raise InvalidSweep(
                f"the sweep had {len(ordered)} parameters; 1 to {MAX_PARAMETERS} are allowed.", _FORM
            )
        known = {one.name: one for one in ordered}
        if len(known) < len(ordered):
            twice = next(one.name for one, other in pairwise(ordered) if one.name == other.name)
            raise InvalidSweep(
                f"the parameter {twice!r} was said twice.", "Say all its values in one --param."
            )
        asked = tuple(conditions)
        for one in asked:
            for name in (one.left, one.right):
                if not isinstance(name, str):
                    continue
                if name not in known:
                    raise InvalidSweep(
                        f"a condition names {name!r}; the parameters are {', '.join(known)}.",
                        "Name those of the sweep.",
                    )
                if isinstance(known[name].values[0], str | bool):
                    raise InvalidSweep(
                        f"a condition compares {name!r}, whose values are no numbers.",
                        "Compare numbers alone.",
                    )
        return cls(ordered, asked)

    def combinations(self) -> tuple[Combination, ...]:
        """Those that hold all conditions: by the values of the first parameter, then the second, and so on.

        Raises:
            InvalidSweep: there are none, or too many.
        """
        tried = math.prod(len(one.values) for one in self.parameters)
        if tried > MAX_TRIED:
            raise InvalidSweep(
                f"the parameters have {tried} combinations; conditions may choose of {MAX_TRIED}.",
                "Give fewer values, or a greater step.",
            )
        found = tuple(self._held())
        if len(found) > MAX_COMBINATIONS:
            raise InvalidSweep(
                f"the sweep has {len(found)} combinations; at most {MAX_COMBINATIONS} are tried at once.",
                "Give fewer values, a greater step, or a condition with --where.",
            )
        if not found:
            raise InvalidSweep(
                "no combination holds all conditions.", "Leave out a condition, or give other values."
            )
        return found

    def _held(self) -> Iterator[Combination]:
        names = [one.name for one in self.parameters]
        for values in product(*(one.values for one in self.parameters)):
            by_name = dict(zip(names, values, strict=True))
            if all(one.holds(by_name) for one in self.conditions):
                yield Combination(tuple(by_name.items()))


def read_parameter(text: str) -> Parameter:
    """A parameter as a command line says it: `fast=5:50:5` (both ends within, where the steps reach them) or `slow=20,40,80`.

    Values are whole numbers, decimal numbers, `true` and `false`, or texts. Where one of several numbers is no whole one, all are floats.

    Raises:
        InvalidSweep: another form, no values, a step that leads nowhere, values of several kinds, one that is said twice.
    """
    said = _PARAMETER.fullmatch(text)
    if said is None:
        raise InvalidSweep(f"--param was {_cut(text)!r}; it has the form NAME=VALUES.", _FORM)
    name, values = said[1], said[2].strip()
    if not values:
        raise InvalidSweep(f"the parameter {name!r} had no values.", _FORM)
    if ":" in values:
        return parameter(name, _range(name, values))
    return parameter(name, [_value(name, one.strip()) for one in values.split(",")])


def parameter(name: str, values: Sequence[Value]) -> Parameter:
    """A parameter of these values.

    Raises:
        InvalidSweep: no values, too many, values of several kinds, one that is said twice.
    """
    if not 1 <= len(values) <= MAX_COMBINATIONS:
        raise InvalidSweep(
            f"the parameter {name!r} had {len(values)} values; 1 to {MAX_COMBINATIONS} are allowed.", _FORM
        )
    if len({_kind(one) for one in values}) > 1:
        raise InvalidSweep(
            f"the parameter {name!r} had values of several kinds, such as {value_text(values[0])!r}"
            f" and {next(value_text(one) for one in values if _kind(one) is not _kind(values[0]))!r}.",
            "Give numbers alone, true and false alone, or texts alone.",
        )
    made = [float(one) + 0.0 for one in values] if any(isinstance(one, float) for one in values) else values
    if any(isinstance(one, float) and not math.isfinite(one) for one in made):
        raise InvalidSweep(
            f"the parameter {name!r} had a number that is not finite.",
            "Give numbers up to the largest float.",
        )
    ordered: list[Any] = sorted(made)  # of one kind, which is ordered
    for one, other in pairwise(ordered):
        if one == other:
            raise InvalidSweep(
                f"the parameter {name!r} had the value {value_text(one)} twice.", "Give each value once."
            )
    return Parameter(name, tuple(ordered))


def read_condition(text: str) -> Condition:
    """A condition as a command line says it: `fast<slow`, `slow>=30`. It is a comparison of these two and nothing else.

    Raises:
        InvalidSweep: another form.
    """
    said = _CONDITION.fullmatch(text)
    if said is None:
        raise InvalidSweep(
            f"--where was {_cut(text)!r}; it compares a parameter with another one or with a number.",
            "For example --where 'fast<slow' --where 'slow>=30'; the signs are < <= > >= == !=.",
        )
    left, sign, right = said.groups()
    return Condition(left, sign, right if _IS_NUMBER.fullmatch(right) is None else _number(right))


def value_text(value: Value) -> str:
    """A value as a command line says it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _range(name: str, text: str) -> list[Value]:
    parts = [one.strip() for one in text.split(":")]
    if len(parts) != 3 or any(_IS_NUMBER.fullmatch(one) is None for one in parts):
        raise InvalidSweep(f"the values of {name!r} were {_cut(text)!r}; a range has three numbers.", _FORM)
    first, last, step = (Decimal(one) for one in parts)
    if not step:
        raise InvalidSweep(
            f"the range of {name!r} has a step of 0, which leads nowhere.", "Give a step above 0."
        )
    count = (last - first) / step
    if count < 0:
        raise InvalidSweep(
            f"the range of {name!r} is empty: no step of {parts[2]} leads from {parts[0]} to {parts[1]}.",
            "Give a lower number first, and a step above 0.",
        )
    if count >= MAX_COMBINATIONS:
        raise InvalidSweep(
            f"the range of {name!r} has more than {MAX_COMBINATIONS} values.", "Give a greater step."
        )
    whole = all(_IS_WHOLE.fullmatch(one) for one in parts)
    found = [first + at * step for at in range(int(count) + 1)]
    return [int(one) for one in found] if whole else [float(one) for one in found]


def _value(name: str, text: str) -> Value:
    if text in _TRUTH:
        return _TRUTH[text]
    if _IS_NUMBER.fullmatch(text) is not None:
        return _number(text)
    if len(text) <= _MAX_TEXT and _TEXT.fullmatch(text) is not None:
        return text
    raise InvalidSweep(
        f"a value of {name!r} was {_cut(text)!r}; numbers, true, false, and words of letters, digits, '_', '.', '/' and '-' are values.",
        _FORM,
    )


def _number(text: str) -> int | float:
    return int(text) if _IS_WHOLE.fullmatch(text) else float(text)


def _kind(value: Value) -> type:
    return float if type(value) is int else type(value)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
