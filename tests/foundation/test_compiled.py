"""Generated readers and writers against fastavro: the same bytes, and the same bytes refused."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, fields
from decimal import Decimal, localcontext
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common import money
from qmtl.foundation.common.errors import InvalidValue, MalformedValue, TooLarge, UnknownSchema
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import OrderRejection
from qmtl.foundation.contracts.world import WorldSettings
from qmtl.foundation.wire.avro import avro_schema, parsing_form
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES, Codec
from qmtl.foundation.wire.convert import converters, decimal_text
from qmtl.foundation.wire.registry import MESSAGES
from qmtl.foundation.wire.shape import shape_of
from tests.foundation.instances import messages, sample
from tests.foundation.mutants import corpus, mutant
from tests.foundation.test_avro import Every, Inner

EVERY = Codec([*MESSAGES, Every, Inner])
NAMED = pytest.mark.parametrize("message", [*MESSAGES, Every], ids=lambda message: message.__name__)
HEADER = 10


class Reference:
    """A codec by fastavro alone, which believes what it can write again in the same way."""

    def __init__(self, classes: list[type]) -> None:
        self._forms = {
            EVERY.fingerprint(one): (
                fastavro.parse_schema(parsing_form(avro_schema(one))),
                converters(shape_of(one)),
            )
            for one in classes
        }

    def encode(self, message: object) -> bytes:
        mark = EVERY.fingerprint(type(message))
        schema, (put, _) = self._forms[mark]
        return b"\xc3\x01" + mark + self._write(schema, put(message))

    def decode(self, data: bytes) -> Any:
        """The message; None where there is none."""
        form = self._forms.get(data[2:HEADER])
        if data[:2] != b"\xc3\x01" or form is None:
            return None
        schema, (_, take) = form
        try:
            record: Any = fastavro.schemaless_reader(io.BytesIO(data[HEADER:]), schema, None)
            return take(record) if self._write(schema, record) == data[HEADER:] else None
        except Exception:
            return None

    @staticmethod
    def _write(schema: Any, record: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, record, disable_tuple_notation=True)
        return out.getvalue()


REFERENCE = Reference([*MESSAGES, Every])


@NAMED
@settings(max_examples=40)
@given(st.data())
def test_every_message_is_written_as_fastavro_writes_it(message: type, data: st.DataObject) -> None:
    value = data.draw(messages(message))
    assert EVERY.encode(value) == REFERENCE.encode(value)


@NAMED
def test_many_messages_are_written_and_read_as_by_fastavro(message: type) -> None:
    chance = random.Random(11)
    for _ in range(100):
        value = sample(shape_of(message), chance)
        data = EVERY.encode(value)
        assert data == REFERENCE.encode(value)
        assert EVERY.decode(data) == REFERENCE.decode(data) == value


def test_of_damaged_records_the_same_are_read_as_the_same() -> None:
    chance = random.Random(20260229)
    good = corpus(EVERY, [*MESSAGES, Every], 6, chance)
    taken = 0
    for _ in range(20_000):
        data = mutant(good, chance)
        try:
            found = EVERY.decode(data)
        except (MalformedValue, UnknownSchema, TooLarge):
            found = None
        assert found == REFERENCE.decode(data), data.hex()
        taken += found is not None
    assert taken > 100


@dataclass(frozen=True, slots=True)
class Numbers:
    a: int
    b: str
    c: bytes


EDGES = sorted({sign * (1 << power) + near for power in range(63) for near in (-1, 0, 1) for sign in (-1, 1)})
SMALL = Codec([Numbers])


def test_every_width_of_a_number_is_written_as_fastavro_writes_it() -> None:
    schema = fastavro.parse_schema(parsing_form(avro_schema(Numbers)))
    for value in (*EDGES, 2**63 - 1, -(2**63)):
        data = SMALL.encode(Numbers(value, "", b""))
        assert data[HEADER:] == Reference._write(schema, {"a": value, "b": "", "c": b""})
        assert SMALL.decode(data).a == value


@pytest.mark.parametrize("length", [0, 1, 63, 64, 127, 1023, 1024, 8191, 8192, 70_000])
@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀"])
def test_every_length_of_a_text_is_counted_in_its_bytes(length: int, letter: str) -> None:
    value = Numbers(0, letter * length, (letter * length).encode())
    schema = fastavro.parse_schema(parsing_form(avro_schema(Numbers)))
    data = SMALL.encode(value)
    assert data[HEADER:] == Reference._write(schema, {"a": 0, "b": value.b, "c": value.c})
    assert SMALL.decode(data) == value


@NAMED
def test_what_is_read_is_frozen_and_nothing_but_the_message(message: type) -> None:
    value = EVERY.decode(EVERY.encode(sample(shape_of(message), random.Random(3))))
    assert type(value) is message
    with pytest.raises(AttributeError):
        setattr(value, fields(message)[0].name, None)


@pytest.mark.parametrize("text", ["NaN", "NaN1", "-NaN12", "sNaN", "sNaN7", "Infinity", "-Infinity"])
def test_what_is_no_finite_number_is_never_written(text: str) -> None:
    number = Decimal(text)
    for price in (Price(number), Price(Decimal(1), number), Price(Decimal(1), None, (number,))):
        with pytest.raises(InvalidValue):
            Codec([Price]).encode(price)


@dataclass(frozen=True, slots=True)
class Price:
    value: Decimal
    other: Decimal | None = None
    several: tuple[Decimal, ...] = ()


@dataclass(frozen=True)
class Loose:
    """No slots, and something to do when it is made."""

    a: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", True)


def test_a_message_that_is_more_than_its_slots_is_made_by_its_constructor() -> None:
    loose = Codec([Loose])
    found = loose.decode(loose.encode(Loose(5)))
    assert found == Loose(5)
    assert found.seen


# ---- series -----------------------------------------------------------------------------------------------------------


@NAMED
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_series_writes_what_its_messages_are_written_as(message: type, data: st.DataObject) -> None:
    names = [field.name for field in fields(message)]
    shared = data.draw(st.sets(st.sampled_from(names)))
    first = data.draw(messages(message))
    write = EVERY.series(message, {name: getattr(first, name) for name in shared})
    for one in (first, data.draw(messages(message))):
        values = [getattr(one, name) for name in names if name not in shared]
        meant = message(*[getattr(first if name in shared else one, name) for name in names])
        assert write(*values) == EVERY.encode(meant)


def test_a_series_refuses_what_a_message_would_refuse() -> None:
    shared = {"world_id": "w", "strategy_id": "s", "symbol": "A", "reason": RejectionReason.FREEZE}
    write = EVERY.series(OrderRejection, shared)
    assert EVERY.decode(write(1, 2, "d")).detail == "d"
    with pytest.raises(InvalidValue, match="OrderRejection could not be written"):
        write(1, "2", "d")
    with pytest.raises(TooLarge, match="a OrderRejection had"):
        write(1, 2, "d" * MAX_VALUE_BYTES)
    with pytest.raises(InvalidValue, match="OrderRejection could not be written"):
        EVERY.series(OrderRejection, {**shared, "symbol": 3})
    with pytest.raises(InvalidValue, match="no field 'colour'"):
        EVERY.series(OrderRejection, {"colour": 3})
    with pytest.raises(UnknownSchema):
        EVERY.series(int, {})


@given(st.integers(-(10**24), 10**24), st.integers(0, 30), st.integers(0, 9))
@settings(max_examples=300)
def test_a_decimal_is_written_in_its_one_form_however_it_was_computed(
    whole: int, places: int, zeros: int
) -> None:
    with localcontext(prec=100):
        value = Decimal(whole).scaleb(-places)
        longer = Decimal(whole * 10**zeros).scaleb(-places - zeros)
        minus = Decimal("-0.0").scaleb(-places)
    for one in (value, longer):
        assert decimal_text(one) == money.text(money.checked(one, "a decimal"))
    assert decimal_text(minus) == "0"
    write = EVERY.series(WorldSettings, {})
    bare = WorldSettings("USD", longer, value, minus, ())
    assert write("USD", longer, value, minus, (), "") == EVERY.encode(bare)
    assert EVERY.decode(EVERY.encode(bare)) == bare
