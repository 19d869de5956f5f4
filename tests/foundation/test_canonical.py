"""Canonical bytes and text: one value, one form; what has none is refused with its path."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import (
    MAX_DEPTH,
    canonical_bytes,
    canonical_json,
    parse_canonical_json,
    spliced_bytes,
)
from qmtl.foundation.common.errors import NoCanonicalForm
from tests.foundation.instances import UNICODE

NUMBERS = (
    st.integers(-(10**50), 10**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False)
)
JSON_LEAVES = st.none() | st.booleans() | NUMBERS | UNICODE
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    JSON_LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(UNICODE, inner, max_size=4),
    max_leaves=12,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    JSON_LEAVES | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(UNICODE, inner, max_size=4)
        | st.frozensets(JSON_LEAVES | st.binary(max_size=4), max_size=4)
    ),
    max_leaves=12,
)


def model(value: Any) -> Any:
    """What two values must share to be one value, in words of the standard library alone: exact fractions, tagged tuples."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, float):
        return ("number", Fraction(repr(value)))
    if isinstance(value, int | Decimal):
        return ("number", Fraction(value))
    if isinstance(value, str | bytes):
        return (type(value).__name__, value)
    if isinstance(value, frozenset | set):
        return ("set", frozenset(model(item) for item in value))
    if isinstance(value, dict):
        return ("mapping", frozenset((key, model(item)) for key, item in value.items()))
    return ("list", tuple(model(item) for item in value))


@given(VALUES, VALUES)
def test_two_values_share_their_bytes_exactly_if_they_are_one_value(left: Any, right: Any) -> None:
    assert (canonical_bytes(left) == canonical_bytes(right)) == (model(left) == model(right))


@given(NUMBERS)
def test_a_number_has_one_form_whatever_type_carries_it(number: Any) -> None:
    exact = Fraction(repr(number) if isinstance(number, float) else number)
    forms = [number, Decimal(repr(number)) if isinstance(number, float) else Decimal(number)]
    forms += [int(exact)] if exact.denominator == 1 else []
    assert len({canonical_bytes(form) for form in forms}) == 1
    assert len({canonical_json(form) for form in forms}) == 1


@pytest.mark.parametrize(
    "left,right",
    [
        (1, 1.0),
        (1, Decimal("1.00")),
        (0.3, Decimal("0.30")),
        (0, -0.0),
        (0, Decimal("-0.000")),
        (1e22, 10**22),
        (100, Decimal("1E+2")),
        ((1, 2), [1, 2]),
        ({2, 1}, frozenset([1.0, 2])),
        ({Decimal("1.0"), Decimal("1.10")}, {1, Decimal("1.1")}),
        ({"b": 1, "a": 2}, OrderedDict(a=2, b=1)),
        ({"a": 1}, MappingProxyType({"a": 1})),
    ],
)
def test_equal_in_meaning_is_equal_in_bytes(left: object, right: object) -> None:
    assert canonical_bytes(left) == canonical_bytes(right)


@pytest.mark.parametrize(
    "left,right",
    [
        (1, True),
        (0, False),
        (None, False),
        (1, "1"),
        (1, "1e0"),
        (b"a", "a"),
        (None, ""),
        ("a", b"a"),
        (0.1 + 0.2, 0.3),
        ([], {}),
        ([], set()),
        ([1, 2], [2, 1]),
        (["ab", "c"], ["a", "bc"]),
        ([["a"], "b"], ["a", ["b"]]),
        ({"a": "b"}, [["a", "b"]]),
        ("é", "e\u0301"),
    ],
)
def test_different_in_meaning_is_different_in_bytes(left: object, right: object) -> None:
    assert canonical_bytes(left) != canonical_bytes(right)


class Level(IntEnum):
    ONE = 1


def _nested(levels: int, inmost: Sequence[Any] = ()) -> list[Any]:
    out = list(inmost)
    for _ in range(levels - 1):
        out = [out]
    return out


@given(st.lists(JSON_VALUES | UNICODE, max_size=4), st.lists(JSON_VALUES | UNICODE, max_size=4))
def test_the_bytes_of_a_list_are_spliced_from_those_of_its_parts(left: list[Any], right: list[Any]) -> None:
    """A list of nothing but text, which is written in one go, among them."""
    assert spliced_bytes(canonical_bytes(left), canonical_bytes(right)) == canonical_bytes([*left, *right])


@given(st.integers(0, 20).flatmap(lambda size: st.lists(st.text("aé✓", min_size=size, max_size=size))))
def test_texts_of_one_length_are_framed_as_any_others(texts: list[str]) -> None:
    """In a list of nothing else one frame may serve them all; beside a number it does not."""
    framed = b"".join(map(canonical_bytes, texts))
    assert canonical_bytes(texts)[9:] == framed
    assert canonical_bytes([*texts, 1])[9:].startswith(framed)


@pytest.mark.parametrize("form", [canonical_bytes, canonical_json])
@pytest.mark.parametrize(
    "value,path",
    [
        ({"a": [0, math.nan]}, "$.a[1]"),
        ({"a": math.inf}, "$.a"),
        ([Decimal("-Infinity")], "$[0]"),
        ([Decimal("sNaN")], "$[0]"),
        ({"a": object()}, "$.a"),
        ({"a": Level.ONE}, "$.a"),
        ({"a": 1j}, "$.a"),
        ({"a": {1: 2}}, "$.a"),
        ({"a": "\ud800"}, "$.a"),
        ({"\udfff": 1}, "$"),
        ([10**5000], "$[0]"),
        (["a", "\ud800"], "$[1]"),
        (_nested(MAX_DEPTH + 1), "$" + "[0]" * MAX_DEPTH),
        (_nested(MAX_DEPTH + 1, ["a"]), "$" + "[0]" * MAX_DEPTH),
    ],
)
def test_a_value_without_a_form_is_refused_by_its_path(form: Any, value: object, path: str) -> None:
    with pytest.raises(NoCanonicalForm) as refused:
        form(value)
    assert refused.value.what.startswith(f"{path} was ")


def test_the_deepest_allowed_value_has_a_form() -> None:
    assert canonical_json(_nested(MAX_DEPTH)) == "[" * MAX_DEPTH + "]" * MAX_DEPTH


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NoCanonicalForm):
        canonical_bytes(loop)


@given(JSON_VALUES)
def test_canonical_json_is_json_and_gives_the_value_back(value: Any) -> None:
    text = canonical_json(value)
    json.loads(text)
    assert canonical_bytes(parse_canonical_json(text)) == canonical_bytes(value)
    assert canonical_json(parse_canonical_json(text)) == text


@given(JSON_VALUES, JSON_VALUES)
def test_two_values_share_their_json_exactly_if_they_share_their_bytes(left: Any, right: Any) -> None:
    assert (canonical_json(left) == canonical_json(right)) == (
        canonical_bytes(left) == canonical_bytes(right)
    )


def test_json_numbers_have_one_text() -> None:
    numbers = [1.0, Decimal("1.50"), -0.0, 1e22, Decimal("1E+400"), Decimal("-1.5E-60"), 0.1]
    assert canonical_json(numbers) == "[1,1.5,0,10000000000000000000000,1e400,-15e-61,0.1]"
    assert canonical_json({"b": "é", "a": [True, None]}) == '{"a":[true,null],"b":"é"}'


@pytest.mark.parametrize("value", [b"a", {1}, frozenset()])
def test_what_json_could_not_give_back_is_refused(value: object) -> None:
    canonical_bytes(value)
    with pytest.raises(NoCanonicalForm):
        canonical_json(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        " 1",
        "1.0",
        "-0",
        "NaN",
        "Infinity",
        '{"b":1,"a":2}',
        '{"a":1,"a":1}',
        '"\\u00e9"',
        '"\\ud800"',
        "1E5",
        "9" * 200,
        "[" * 100_000,
    ],
)
def test_only_canonical_text_is_parsed(text: str) -> None:
    with pytest.raises(NoCanonicalForm):
        parse_canonical_json(text)
