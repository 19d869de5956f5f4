"""Messages of every class, made up from their shapes: as Hypothesis strategies, and by a seeded generator for long campaigns."""

from __future__ import annotations

import random
from decimal import Context, Decimal, Inexact, InvalidOperation, Rounded
from typing import Any, assert_never

from hypothesis import strategies as st

from qmtl.foundation.common import money
from qmtl.foundation.wire.shape import Choice, Lookup, Many, Maybe, Record, Scalar, Shape, shape_of

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)

UNUSABLE = Context(prec=1, traps=[Inexact, Rounded, InvalidOperation])
"""An ambient context in which an operator on decimals that money would not allow shows itself."""


def exact_decimals() -> st.SearchStrategy[Decimal]:
    """Decimals that money allows, in normal form."""
    return st.builds(
        lambda whole, places: money.checked(Decimal(whole).scaleb(-places), "made up"),
        st.integers(-(10**24), 10**24),
        st.integers(0, 16),
    )


_STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    str: UNICODE,
    int: INT64,
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=12),
    Decimal: exact_decimals(),
}


def messages(message: type) -> st.SearchStrategy[Any]:
    """Any instance of a message class."""
    return _strategy(shape_of(message))


def _strategy(shape: Shape) -> st.SearchStrategy[Any]:
    match shape:
        case Scalar(type=kind):
            return _STRATEGIES[kind]
        case Choice(enum):
            return st.sampled_from(list(enum))
        case Maybe(item):
            return st.none() | _strategy(item)
        case Many(item):
            return st.lists(_strategy(item), max_size=3).map(tuple)
        case Lookup(value):
            return st.dictionaries(UNICODE, _strategy(value), max_size=3)
        case Record():
            return st.builds(shape.message, **{field.name: _strategy(field.shape) for field in shape.fields})
        case _:
            assert_never(shape)


def sample(shape: Shape, chance: random.Random) -> Any:
    """One value of a shape, the same for the same state of `chance`."""
    match shape:
        case Scalar(type=kind):
            return _sample_scalar(kind, chance)
        case Choice(enum):
            return chance.choice(list(enum))
        case Maybe(item):
            return None if chance.random() < 0.3 else sample(item, chance)
        case Many(item):
            return tuple(sample(item, chance) for _ in range(chance.randrange(4)))
        case Lookup(value):
            return {_sample_scalar(str, chance): sample(value, chance) for _ in range(chance.randrange(4))}
        case Record():
            return shape.message(*(sample(field.shape, chance) for field in shape.fields))
        case _:
            assert_never(shape)


def _sample_scalar(kind: type, chance: random.Random) -> Any:
    if kind is str:
        return "".join(chance.choices("abcXYZ019-_:|é漢😀\0", k=chance.randrange(12)))
    if kind is int:
        return chance.choice([0, 1, -1, 1_700_000_000_000, chance.getrandbits(63), -chance.getrandbits(63)])
    if kind is float:
        return chance.choice([0.0, -0.0, chance.gauss(0, 1e6)])
    if kind is bool:
        return chance.random() < 0.5
    if kind is bytes:
        return chance.randbytes(chance.randrange(12))
    return money.checked(
        Decimal(chance.randrange(-(10**15), 10**15)).scaleb(-chance.randrange(12)), "made up"
    )
