"""Exact money and quantities: decimals that enter through one door, never lose digits unnoticed, and have one text each."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation, localcontext

from qmtl.foundation.common.errors import InexactMoney, InvalidValue

MAX_DIGITS = 60
"""Significant digits that a value may have: enough for any product of two published prices and sizes."""

MAX_POINT = 40
"""Digits after the point, and powers of ten before it, that a value may have."""

MAX_FACTOR_DIGITS = MAX_DIGITS // 2
"""Significant digits that a published price or size may have."""

MAX_FACTOR_POINT = MAX_POINT // 2
"""Digits that a published price or size may have after the point, and before it."""

ZERO = Decimal(0)

_EXACT = Context(prec=MAX_DIGITS, traps=[Inexact, InvalidOperation])
_SUMMED = Context(prec=4 * MAX_DIGITS, traps=[Inexact, InvalidOperation])
_ROUNDED = Context(prec=MAX_DIGITS)


def parse_decimal(text: str, field: str) -> Decimal:
    """The value of a decimal text.

    Args:
        text: digits with an optional sign, point and exponent.
        field: the name of the field, for the message.

    Raises:
        InvalidValue: not a number, not finite, or too many digits.
    """
    if len(text) > 2 * MAX_DIGITS:
        raise InvalidValue(
            f"{field} was a text of {len(text)} characters; at most {2 * MAX_DIGITS} are allowed.",
            "Send fewer digits.",
        )
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidValue(
            f"{field} was the text {text!r}, which is no decimal number.", "Send digits."
        ) from None
    return checked(value, field)


def checked(value: Decimal, field: str) -> Decimal:
    """`value` in normal form (1.50 → 1.5, -0 → 0).

    Raises:
        InvalidValue: not finite or too many digits.
    """
    if not value.is_finite():
        raise InvalidValue(f"{field} was {value}; only finite numbers are allowed.", "Send a finite number.")
    if not value:
        return ZERO
    try:
        value = value.normalize(_EXACT)
    except Inexact:
        raise InvalidValue(
            f"{field} had more than {MAX_DIGITS} significant digits.", "Round it first."
        ) from None
    if value.adjusted() > MAX_POINT or int(value.as_tuple().exponent) < -MAX_POINT:
        raise InvalidValue(
            f"{field} was {value}, outside 1e-{MAX_POINT} to 1e{MAX_POINT}.", "Check its unit."
        )
    return value


def is_value(value: Decimal) -> bool:
    """Whether `checked` lets a number pass."""
    text = str(value)
    if len(text) <= MAX_POINT and "E" not in text and "N" not in text and "y" not in text:
        return True
    try:
        checked(value, "")
    except InvalidValue:
        return False
    return True


def is_factor(value: Decimal) -> bool:
    """Whether a value in normal form is short enough for its product with any other such value to be exact and a value again."""
    if not value.is_finite():
        return False
    parts = value.as_tuple()
    return (
        len(parts.digits) <= MAX_FACTOR_DIGITS
        and int(parts.exponent) >= -MAX_FACTOR_POINT
        and value.adjusted() < MAX_FACTOR_POINT
    )


def text(value: Decimal) -> str:
    """The one text of a value: no exponent, no trailing zeros, no negative zero."""
    if not value:
        return "0"
    out = format(value, "f")
    if "." in out:
        out = out.rstrip("0").rstrip(".")
    return out


def product(a: Decimal, b: Decimal) -> Decimal:
    """`a * b` without loss.

    Raises:
        InexactMoney: the product has more than `MAX_DIGITS` digits.
    """
    try:
        return _EXACT.multiply(a, b)
    except Inexact:
        raise InexactMoney(
            f"{a} * {b} has more than {MAX_DIGITS} digits.", "Round one factor first."
        ) from None


def plus(a: Decimal, b: Decimal) -> Decimal:
    """`a + b` without loss: `total` of two, in a third of its time.

    Raises:
        InexactMoney: the sum has more than `MAX_DIGITS` digits.
    """
    try:
        return _EXACT.add(a, b)
    except Inexact:
        raise InexactMoney(f"{a} + {b} has more than {MAX_DIGITS} digits.", "Round one term first.") from None


def minus(a: Decimal, b: Decimal) -> Decimal:
    """`a - b` without loss.

    Raises:
        InexactMoney: the difference has more than `MAX_DIGITS` digits.
    """
    try:
        return _EXACT.subtract(a, b)
    except Inexact:
        raise InexactMoney(f"{a} - {b} has more than {MAX_DIGITS} digits.", "Round one term first.") from None


def total(values: Iterable[Decimal]) -> Decimal:
    """The exact sum, 0 for nothing; the order of the values makes no difference.

    Raises:
        InexactMoney: the sum has more than `MAX_DIGITS` digits.
    """
    out = ZERO
    try:
        for value in values:
            out = _SUMMED.add(out, value)
        return _EXACT.plus(out)
    except Inexact:
        raise InexactMoney(f"a sum has more than {MAX_DIGITS} digits.", "Round its terms first.") from None


def negated(value: Decimal) -> Decimal:
    """`-value` with all its digits, where the operator rounds to the ambient context; 0 for 0."""
    return value.copy_negate() if value else ZERO


def magnitude(value: Decimal) -> Decimal:
    """`abs(value)` with all its digits, where the built-in rounds to the ambient context."""
    return value.copy_abs()


def whole_steps(value: Decimal, step: Decimal) -> Decimal:
    """How often `step` (> 0) fits into `value`: an integer with the sign of `value`, rounded towards zero without another rounding.

    Raises:
        InexactMoney: the number has more than `MAX_DIGITS` digits.
    """
    try:
        return _EXACT.divide_int(value, step)
    except InvalidOperation:
        raise InexactMoney(
            f"{value} in steps of {step} has more than {MAX_DIGITS} digits.", "Make the step larger."
        ) from None


def quotient(a: Decimal, b: Decimal, places: int) -> Decimal:
    """`a / b` rounded half-even to `places` digits after the point; the one place where money may be rounded.

    Raises:
        InexactMoney: it has more than `MAX_DIGITS` digits with them.
    """
    try:
        return _ROUNDED.divide(a, b).quantize(
            Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN, context=_ROUNDED
        )
    except InvalidOperation:
        raise InexactMoney(
            f"{a} / {b} with {places} digits after the point has more than {MAX_DIGITS} digits.",
            "Round to fewer places.",
        ) from None


def round_places(value: Decimal, places: int) -> Decimal:
    """`value` rounded half-even to `places` digits after the point."""
    return value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN, context=_ROUNDED)


def floor_to_step(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` (> 0) whose magnitude does not exceed `value`'s, with its sign.

    Raises:
        InexactMoney: it is more than `MAX_DIGITS` digits of steps.
    """
    return product(whole_steps(value, step), step)


def round_to_step(value: Decimal, step: Decimal) -> Decimal:
    """The multiple of `step` (> 0) nearest to `value`, half-even."""
    with localcontext(_ROUNDED):
        return (value / step).to_integral_value(rounding=ROUND_HALF_EVEN) * step
