"""Columns of exact decimals out of texts, fast where the texts are plain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import MAX_FACTOR_POINT, parse_decimal
from qmtl.runtime.columns import MAX_UNITS, Scaled

_PLAIN: Final = re.compile(r"(?:[0-9]{1,18}(?:\.[0-9]{1,18})?\n)*+", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


class BadNumber(Exception):
    """A text of which there is no column.

    Args:
        column: from 0.
        row: from 0.
        rule: what a text has to be, as a sentence.
    """

    def __init__(self, column: int, row: int, rule: str, remedy: str) -> None:
        super().__init__(rule)
        self.column = column
        self.row = row
        self.rule = rule
        self.remedy = remedy


def scaled_together(columns: Sequence[Sequence[str]]) -> tuple[Scaled, ...]:
    """These columns, all in the fewest places that hold every one of them.

    Raises:
        BadNumber: a text that is no finite decimal number, or has more digits than a column holds in these places.
    """
    return _plain(columns) or _any(columns)


def _plain(columns: Sequence[Sequence[str]]) -> tuple[Scaled, ...] | None:
    if not all(_PLAIN.fullmatch("\n".join([*column, ""])) for column in columns):
        return None
    parts = [[text.partition(".") for text in column] for column in columns]
    tails = [[tail.rstrip("0") for _, _, tail in column] for column in parts]
    places = max((len(tail) for column in tails for tail in column), default=0)
    made = []
    for heads, rests in zip(parts, tails, strict=True):
        units = [int(head + rest.ljust(places, "0")) for (head, _, _), rest in zip(heads, rests, strict=True)]
        if units and max(units) > MAX_UNITS:
            return None  # the slow way finds which
        made.append(Scaled(np.array(units, dtype=np.int64), places))
    return tuple(made)


def _any(columns: Sequence[Sequence[str]]) -> tuple[Scaled, ...]:
    values = []
    for at, column in enumerate(columns):
        numbers = []
        for row, text in enumerate(column):
            if _NUMBER.fullmatch(text) is None:
                raise BadNumber(
                    at, row, "it is a finite decimal number", "Send digits with a point, without spaces."
                )
            try:
                numbers.append(parse_decimal(text, ""))
            except InvalidValue as error:
                raise BadNumber(
                    at, row, "at most 60 digits within 1e-40 to 1e40 are kept", error.remedy
                ) from None
        values.append(numbers)
    places = max((max(-int(one.as_tuple().exponent), 0) for column in values for one in column), default=0)
    made = []
    for at, column_values in enumerate(values):
        for row, value in enumerate(column_values):
            if places > MAX_FACTOR_POINT or abs(value) * 10**places > MAX_UNITS:
                raise BadNumber(
                    at,
                    row,
                    f"with the {places} digits after the point of its neighbours it is at most {len(str(MAX_UNITS))} digits long",
                    "Round the data.",
                )
        made.append(Scaled.of(column_values, places))
    return tuple(made)


def rescaled(column: Scaled, places: int) -> Scaled:
    """The same values in more places.

    Raises:
        InvalidValue: one has more digits than a column holds then.
    """
    if places == column.places:
        return column
    factor = 10 ** (places - column.places)
    if len(column) and int(np.abs(column.units).max()) > MAX_UNITS // factor:
        raise InvalidValue(
            f"a number had more digits than a column holds: {len(str(MAX_UNITS))} in all, {places} of them after the point.",
            "Read fewer bars at once, or round the data.",
        )
    return Scaled(column.units * factor, places)
