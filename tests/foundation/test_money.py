"""Money: exact, one text each, and loud where a digit would be lost."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qmtl.foundation.common import money
from qmtl.foundation.common.errors import InexactMoney, InvalidValue
from tests.foundation.instances import UNUSABLE, exact_decimals

STEPS = st.sampled_from([Decimal(text) for text in ("1", "0.1", "0.01", "0.00001", "0.25", "5", "100")])
PLACES = st.integers(0, 18)


def test_the_anomaly_of_binary_numbers_is_absent() -> None:
    assert money.total([Decimal("0.1"), Decimal("0.2")]) == Decimal("0.3")


@given(exact_decimals())
def test_a_value_has_one_text_and_the_text_gives_it_back(value: Decimal) -> None:
    text = money.text(value)
    assert money.parse_decimal(text, "price") == value
    assert not set(text) - set("-0123456789.")
    assert not ("." in text and text.endswith("0"))


@given(exact_decimals(), st.integers(0, 6))
def test_trailing_zeros_change_no_text(value: Decimal, zeros: int) -> None:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    assume(len(value.as_tuple().digits) + zeros + abs(exponent) < 28)  # the default context rounds beyond
    padded = value.quantize(Decimal(1).scaleb(exponent - zeros))
    assert money.text(padded) == money.text(value)
    assert str(money.checked(padded, "price")) == str(money.checked(value, "price"))


@pytest.mark.parametrize(
    "text,normal",
    [
        ("1.50", "1.5"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("1E+2", "100"),
        ("1e-7", "0.0000001"),
        ("+5", "5"),
        ("0" * 50 + "7", "7"),
    ],
)
def test_every_text_of_a_value_leads_to_the_normal_one(text: str, normal: str) -> None:
    assert money.text(money.parse_decimal(text, "price")) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,5",
        "0x1",
        "NaN",
        "sNaN",
        "Infinity",
        "-inf",
        "1e400",
        "1e41",
        "1e-41",
        "1e999999999999",
        "1" * 61,
        "1" * 200,
    ],
)
def test_a_text_that_is_no_amount_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"^\[QMTL-101\] price "):
        money.parse_decimal(text, "price")


@given(exact_decimals(), exact_decimals())
@example(Decimal("9" * 20 + "." + "9" * 10), Decimal("9" * 10 + "." + "9" * 20))
@example(Decimal("1e-20"), Decimal("1e-20"))
@example(Decimal("9e19"), Decimal("9e19"))
def test_the_product_of_two_factors_is_a_value(a: Decimal, b: Decimal) -> None:
    assume(money.is_factor(a) and money.is_factor(b))
    out = money.product(a, b)
    assert Fraction(money.checked(out, "price")) == Fraction(a) * Fraction(b)


@pytest.mark.parametrize("value", ["1e20", "1e-21", "1" * 20 + "." + "1" * 11, "NaN", "Infinity"])
def test_a_longer_value_is_no_factor(value: str) -> None:
    assert not money.is_factor(Decimal(value))


@given(exact_decimals(), exact_decimals())
def test_a_product_is_exact_or_refused(a: Decimal, b: Decimal) -> None:
    try:
        out = money.product(a, b)
    except InexactMoney:
        assert len(a.as_tuple().digits) + len(b.as_tuple().digits) > money.MAX_DIGITS
        return
    assert Fraction(out) == Fraction(a) * Fraction(b)


@given(st.lists(exact_decimals(), max_size=12))
def test_a_sum_is_exact_whatever_its_order(values: list[Decimal]) -> None:
    assert Fraction(money.total(values)) == sum(map(Fraction, values), Fraction(0))
    assert money.total(values) == money.total(reversed(values))


@pytest.mark.parametrize("texts", [("1e40", "1e-40", "-1e40"), ("1e-40", "1e40", "-1e40")])
def test_a_sum_is_exact_where_a_part_of_it_is_not(texts: tuple[str, ...]) -> None:
    assert money.total(map(Decimal, texts)) == Decimal("1e-40")


@given(st.tuples(st.integers(-(10**61), 10**61), st.integers(-45, 45)))
@example((0, -400))
@example((-1, -39))
def test_what_is_a_value_can_be_checked(number: tuple[int, int]) -> None:
    for value in (Decimal(f"{number[0]}e{number[1]}"), Decimal("NaN"), Decimal("-Infinity")):
        try:
            money.checked(value, "price")
        except InvalidValue:
            assert not money.is_value(value)
        else:
            assert money.is_value(value)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: money.product(Decimal("1" * 31), Decimal("1" * 31)),
        lambda: money.total([Decimal("1e40"), Decimal("1e-40")]),
        lambda: money.whole_steps(Decimal("1e40"), Decimal("1e-40")),
        lambda: money.floor_to_step(Decimal("1e40"), Decimal("1e-40")),
        lambda: money.quotient(Decimal("1e40"), Decimal("1e-20"), 18),
    ],
)
def test_a_result_that_would_lose_digits_is_refused(operation: Callable[[], Decimal]) -> None:
    with pytest.raises(InexactMoney):
        operation()


@given(exact_decimals(), exact_decimals(), exact_decimals().filter(bool), PLACES, STEPS)
@example(Decimal("9" * 60), Decimal("-1." + "9" * 39), Decimal("0.7"), 18, Decimal("0.25"))
def test_no_result_depends_on_the_ambient_context(
    a: Decimal, b: Decimal, c: Decimal, places: int, step: Decimal
) -> None:
    def answers() -> list[tuple[int, ...] | type]:
        return [answer_of(one) for one in operations]

    operations: list[Callable[[], Decimal]] = [
        lambda: money.negated(a),
        lambda: money.magnitude(b),
        lambda: money.product(a, b),
        lambda: money.total([a, b, c]),
        lambda: money.quotient(a, c, places),
        lambda: money.round_places(b, min(places, max(0, -int(b.as_tuple().exponent)))),
        lambda: money.whole_steps(a, step),
        lambda: money.floor_to_step(b, step),
        lambda: money.round_to_step(b, step),
    ]
    with localcontext(Context(prec=200)):
        expected = answers()
        assert (money.negated(a), money.magnitude(b)) == (-a, abs(b))
    with localcontext(UNUSABLE):
        assert answers() == expected


def answer_of(operation: Callable[[], Decimal]) -> tuple[int, ...] | type:
    try:
        out = operation()
    except InexactMoney as error:
        return type(error)
    return Fraction(out).as_integer_ratio()


@pytest.mark.parametrize("value", ["2." + "9" * 59, "-2." + "9" * 59])
def test_a_floor_is_no_step_that_a_rounded_quotient_only_seems_to_reach(value: str) -> None:
    assert money.magnitude(money.floor_to_step(Decimal(value), Decimal(3))) == 0


def half_even(value: Fraction, unit: Fraction) -> Fraction:
    """`value` in whole units by Python's own rounding of fractions, which is half-even."""
    return round(value / unit) * unit


@given(exact_decimals(), exact_decimals().filter(bool), PLACES)
def test_a_quotient_is_the_nearest_to_the_exact_one(a: Decimal, b: Decimal, places: int) -> None:
    exact = Fraction(a) / Fraction(b)
    assume(abs(exact) < 10**30)
    assert abs(Fraction(money.quotient(a, b, places)) - exact) <= Fraction(1, 2 * 10**places) + Fraction(
        abs(exact), 10**58
    )


@pytest.mark.parametrize(
    "a,places,rounded", [("1", 2, "0.12"), ("3", 2, "0.38"), ("-1", 2, "-0.12"), ("1", 3, "0.125")]
)
def test_a_quotient_in_the_middle_goes_to_the_even_neighbour(a: str, places: int, rounded: str) -> None:
    assert money.quotient(Decimal(a), Decimal(8), places) == Decimal(rounded)


@given(exact_decimals(), PLACES)
@example(Decimal("0.125"), 2)
@example(Decimal("-2.5"), 0)
def test_rounding_to_places_is_half_even(value: Decimal, places: int) -> None:
    assert Fraction(money.round_places(value, places)) == half_even(Fraction(value), Fraction(1, 10**places))


@given(exact_decimals(), STEPS)
def test_a_floor_is_the_last_step_towards_zero(value: Decimal, step: Decimal) -> None:
    out = money.floor_to_step(value, step)
    assert Fraction(out) / Fraction(step) == int(Fraction(value) / Fraction(step))
    assert abs(Fraction(out)) <= abs(Fraction(value)) < abs(Fraction(out)) + Fraction(step)


@given(exact_decimals(), STEPS)
@example(Decimal("0.125"), Decimal("0.25"))
@example(Decimal("-2.5"), Decimal(1))
def test_rounding_to_a_step_is_half_even(value: Decimal, step: Decimal) -> None:
    assert Fraction(money.round_to_step(value, step)) == half_even(Fraction(value), Fraction(step))
