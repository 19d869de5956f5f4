"""Values made the fast way are those of the slow way: equal, of the class, and frozen."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.evolving import changing, making
from qmtl.foundation.contracts.trade import Order
from tests.foundation.instances import messages


@given(messages(Order), messages(Order), st.data())
def test_a_changed_value_is_what_replace_gives(before: Order, other: Order, data: st.DataObject) -> None:
    every = [field.name for field in fields(Order)]
    names = data.draw(st.lists(st.sampled_from(every), unique=True))
    values = [getattr(other, name) for name in names]
    untouched = replace(before)

    after = changing(Order, *names)(before, *values)

    assert after == replace(before, **dict(zip(names, values, strict=True)))
    assert type(after) is Order
    assert hash(after) == hash(replace(after))
    assert before == untouched


@given(messages(Order))
def test_a_value_made_of_its_fields_is_what_the_class_makes(one: Order) -> None:
    values = [getattr(one, field.name) for field in fields(Order)]
    made = making(Order)(*values)
    assert made == one
    with pytest.raises(FrozenInstanceError):
        made.status = one.status  # type: ignore[misc]  # it is frozen, which is what is tried


@given(messages(Order), messages(Order))
def test_what_all_values_share_is_not_given(one: Order, other: Order) -> None:
    make = making(Order, status=one.status, session=one.session)
    values = [
        getattr(other, field.name) for field in fields(Order) if field.name not in ("status", "session")
    ]
    assert make(*values) == replace(other, status=one.status, session=one.session)


@dataclass(frozen=True, slots=True)
class Checked:
    number: int

    def __post_init__(self) -> None:
        assert self.number > 0


def test_a_class_that_checks_its_values_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="Checked is more than its slots"):
        making(Checked)
    with pytest.raises(InvariantBroken, match="Checked is more than its slots"):
        changing(Checked, "number")


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="no field 'nothing'"):
        changing(Order, "nothing")
    with pytest.raises(InvariantBroken, match="no field 'nothing'"):
        making(Order, nothing=1)
