"""The codec: what is written is read as it was, and nothing is read that would not be written the same way."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue, MalformedValue, TooLarge, UnknownSchema
from qmtl.foundation.contracts.control import DeadLetter, InputPosition, PositionStamp
from qmtl.foundation.contracts.dag import CreateTopic, DagSubmission, StrategyVersion, TopicClass
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.foundation.contracts.trade import Fill, Side
from qmtl.foundation.wire.avro import avro_schema, fingerprint, parsing_form
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES, Codec
from qmtl.foundation.wire.json_view import from_json, to_json
from qmtl.foundation.wire.registry import MESSAGES, codec
from qmtl.foundation.wire.shape import shape_of
from tests.foundation.instances import messages, sample
from tests.foundation.mutants import BOMBS, accepted, corpus, mutant
from tests.foundation.test_avro import Every, Inner, Mode, plain

EVERY = Codec([*MESSAGES, Every, Inner])
NAMED = pytest.mark.parametrize("message", [*MESSAGES, Every], ids=lambda message: message.__name__)
FILL = Fill(
    "w",
    "s",
    "o" * 32,
    1,
    "BTCUSDT",
    Side.BUY,
    Decimal("0.5"),
    Decimal(100),
    Decimal("0.05"),
    "USDT",
    Decimal(0),
    1,
)


@NAMED
@settings(max_examples=25)
@given(st.data())
def test_every_message_is_read_as_it_was_written(message: type, data: st.DataObject) -> None:
    value = data.draw(messages(message))
    encoded = EVERY.encode(value)
    read = EVERY.decode(encoded)
    assert read == value
    assert type(read) is message
    assert EVERY.encode(read) == encoded


@NAMED
@settings(max_examples=10)
@given(st.data())
def test_apache_s_reader_reads_the_body_behind_the_header(message: type, data: st.DataObject) -> None:
    """Layout by the Avro specification, "Single-object encoding": C3 01, fingerprint little-endian, body."""
    value = data.draw(messages(message))
    encoded = EVERY.encode(value)
    theirs = avro.schema.parse(json.dumps(plain(avro_schema(message))))
    assert encoded[:2] == b"\xc3\x01"
    assert encoded[2:10] == theirs.fingerprint() == EVERY.fingerprint(message)
    body = io.BytesIO(encoded[10:])
    record: Any = avro.io.DatumReader(theirs).read(avro.io.BinaryDecoder(body))
    assert body.read() == b""
    for field in dataclasses.fields(message):
        if isinstance(getattr(value, field.name), str | int | float | bool | bytes | None):
            assert record[field.name] == getattr(value, field.name)


def test_one_record_byte_by_byte() -> None:
    value = NodeValue("n", "BTC", 1, 1.5, 60, "ab", "k")
    body = (
        b"\x02n" + b"\x06BTC" + b"\x02" + b"\x00\x00\x00\x00\x00\x00\xf8\x3f" + b"\x78" + b"\x04ab" + b"\x02k"
    )
    assert codec.encode(value) == b"\xc3\x01" + codec.fingerprint(NodeValue) + body


def test_decimals_are_written_in_normal_form_and_read_so() -> None:
    value = dataclasses.replace(FILL, quantity=Decimal("1.500"), price=Decimal("1E+3"), fee=Decimal("-0.0"))
    read = codec.decode(codec.encode(value))
    assert [str(read.quantity), str(read.price), str(read.fee)] == ["1.5", "1E+3", "0"]
    assert b"\x081000" in codec.encode(value)


@given(
    st.dictionaries(
        st.text("ab-type", max_size=6), st.text(max_size=3).filter(lambda t: t.isascii()), max_size=5
    )
)
def test_a_map_is_written_in_the_order_of_its_keys(memory: dict[str, str]) -> None:
    value = NodeWindow("n", "s", 1, memory=memory)
    backwards = NodeWindow("n", "s", 1, memory=dict(reversed(memory.items())))
    assert codec.encode(value) == codec.encode(backwards)
    assert codec.decode(codec.encode(value)) == value


# ---- hostile bytes ----------------------------------------------------------------------------------------


def test_damaged_records_are_refused_or_are_other_records() -> None:
    chance = random.Random(20240229)
    good = corpus(EVERY, [*MESSAGES, Every], 6, chance)
    assert all(accepted(EVERY, data) for data in good)
    taken = sum(accepted(EVERY, mutant(good, chance)) for _ in range(60_000))
    assert 0 < taken < 30_000


@settings(max_examples=300)
@given(st.sampled_from(MESSAGES), st.binary(max_size=200))
def test_random_bodies_are_refused_or_are_records(message: type, body: bytes) -> None:
    accepted(codec, b"\xc3\x01" + codec.fingerprint(message) + body)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_length_that_is_not_there_is_refused(bomb: bytes) -> None:
    good = codec.encode(PositionStamp("p", 1, (InputPosition("t", 0, 5),), (1, 2, 3)))
    body = b"\x02p\x02" + b"\x02\x02t\x00\x0a\x00" + b"\x06\x02\x04\x06\x00" + b"\x00\x00"
    assert good[10:] == body
    for at in (0, 3, 4, 8, 9, 13):  # lengths of texts, counts of items, ends of arrays
        assert not accepted(codec, good[:10] + body[:at] + bomb + body[at + 1 :])


def _stamp(body: bytes) -> bytes:
    """A stamp of this body, with no topics and no tables at its end."""
    return b"\xc3\x01" + codec.fingerprint(PositionStamp) + body + b"\x00\x00"


@pytest.mark.parametrize(
    "body,why",
    [
        (b"\x02p\x02\x00\x06\x02\x04\x06\x00", "the plain form"),
        (b"\x02p\x02\x00\x02\x02\x04\x04\x06\x00", "an array in two blocks"),
        (b"\x02p\x02\x00\x05\x06\x02\x04\x06\x00", "a block with its size"),
        (b"\x02p\x82\x00\x00\x06\x02\x04\x06\x00", "a number with a needless zero"),
        (b"\x02p\x02\x00\x06\x02\x04\x06\x00\x00", "a byte too many"),
        (b"\x02p\x02\x00\x06\x02\x04\x06", "a byte too few"),
        (b"\x02\xff\x02\x00\x06\x02\x04\x06\x00", "text that is not UTF-8"),
    ],
)
def test_one_byte_string_means_a_message(body: bytes, why: str) -> None:
    if why == "the plain form":
        assert codec.decode(_stamp(body)) == PositionStamp("p", 1, (), (1, 2, 3))
        return
    with pytest.raises(MalformedValue):
        codec.decode(_stamp(body))


@pytest.mark.parametrize("symbol", [b"\x01", b"\x04", b"\x06"])
def test_an_enum_index_that_names_no_member_is_refused(symbol: bytes) -> None:
    side = codec.encode(FILL).index(b"\x0eBTCUSDT") + 8
    data = codec.encode(FILL)
    assert codec.decode(data[:side] + b"\x02" + data[side + 1 :]).side is Side.SELL
    with pytest.raises(MalformedValue):
        codec.decode(data[:side] + symbol + data[side + 1 :])


DIGITS_61 = "1" * 61
HOSTILE_DECIMALS = [
    "",
    "NaN",
    "sNaN",
    "Infinity",
    "-Infinity",
    "-0",
    "0.0",
    "1.0",
    "1.50",
    "+1",
    "01",
    ".5",
    "5.",
    " 1",
    "1 ",
]
HOSTILE_DECIMALS += [
    "1_000",
    "1e3",
    "1E+3",
    "1e400",
    "1E-7",
    "٣",
    "１",
    "0x1",
    "1,5",
    DIGITS_61,
    "0." + "0" * 40 + "1",
    "1" + "0" * 41,
]


@pytest.mark.parametrize("text", HOSTILE_DECIMALS)
def test_a_decimal_in_any_other_form_is_refused(text: str) -> None:
    raw = text.encode()
    size = bytes((2 * len(raw),)) if len(raw) < 64 else bytes((2 * len(raw) & 0x7F | 0x80, 2 * len(raw) >> 7))
    data = codec.encode(FILL)
    assert data.count(b"\x060.5") == 1
    with pytest.raises(MalformedValue):
        codec.decode(data.replace(b"\x060.5", size + raw))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_float_that_is_not_finite_is_refused_both_ways(value: float) -> None:
    with pytest.raises(InvalidValue, match=r"NodeValue\.value"):
        codec.encode(NodeValue("n", "s", 1, value))
    good = NodeValue("n", "s", 1, 1.0)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, avro_schema(NodeValue), {**dataclasses.asdict(good), "value": value})
    with pytest.raises(MalformedValue):
        codec.decode(codec.encode(good)[:10] + out.getvalue())


def test_map_keys_out_of_order_or_twice_are_refused() -> None:
    data = codec.encode(CreateTopic("t", TopicClass.RAW, 1, 1, {"a": "1", "b": "2"}))
    assert data.endswith(b"\x04\x02a\x021\x02b\x022\x00")
    for pairs in (b"\x02b\x022\x02a\x021", b"\x02a\x021\x02a\x022"):
        with pytest.raises(MalformedValue):
            codec.decode(data[:-9] + pairs + b"\x00")


# ---- what may not be written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes,field",
    [
        ({"world_id": b"w"}, "world_id"),
        ({"world_id": "\ud800"}, "world_id"),
        ({"seq": 1.5}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 2**63}, "seq"),
        ({"seq": -(2**63) - 1}, "seq"),
        ({"side": "BUY"}, "side"),
        ({"side": None}, "side"),
        ({"price": 1}, "price"),
        ({"price": 0.1}, "price"),
        ({"price": Decimal("NaN")}, "price"),
        ({"price": Decimal("NaN1")}, "price"),
        ({"price": Decimal("Infinity")}, "price"),
        ({"price": Decimal("1E+999999")}, "price"),
        ({"price": Decimal(DIGITS_61)}, "price"),
    ],
)
def test_a_value_that_its_field_does_not_take_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue, match=rf"Fill\.{field} "):
        codec.encode(dataclasses.replace(FILL, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"positions": ("t",)}, {"positions": [1]}, {"buckets": (1.5,)}, {"buckets": "12"}, {"buckets": [1]}],
)
def test_a_wrong_element_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=rf"PositionStamp\.{next(iter(changes))}"):
        codec.encode(dataclasses.replace(PositionStamp("p", 1), **changes))


def test_a_whole_number_may_stand_for_a_float_that_is_it() -> None:
    assert codec.decode(codec.encode(NodeValue("n", "s", 1, 3))) == NodeValue("n", "s", 1, 3.0)
    with pytest.raises(InvalidValue):
        codec.encode(NodeValue("n", "s", 1, 2**53 + 1))


def test_a_class_outside_the_contracts_is_refused() -> None:
    with pytest.raises(UnknownSchema):
        codec.encode(object())
    with pytest.raises(UnknownSchema):
        codec.fingerprint(Every)


# ---- which schema, how much -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\xc3", b"\xc3\x01", b"\x00" * 40, b"{}", b"\xc3\x02" + b"\x00" * 20])
def test_bytes_of_no_known_schema_are_refused(data: bytes) -> None:
    with pytest.raises(UnknownSchema):
        codec.decode(data)


def test_a_place_takes_only_its_own_messages() -> None:
    assert codec.decode_as(codec.encode(FILL), frozenset({Fill})) == FILL
    with pytest.raises(UnknownSchema, match="a Fill"):
        codec.decode_as(codec.encode(FILL), frozenset({DeadLetter}))


def test_a_dag_message_of_one_mebibyte_fits_and_little_more() -> None:
    submission = DagSubmission("s", "w", b"x" * (1 << 20), 1)
    assert codec.decode(codec.encode(submission)) == submission
    too_large = dataclasses.replace(submission, dag_json=b"x" * MAX_VALUE_BYTES)
    with pytest.raises(TooLarge):
        codec.encode(too_large)
    with pytest.raises(TooLarge):
        codec.decode(codec.encode(submission)[:10] + b"x" * MAX_VALUE_BYTES)


def test_every_message_has_its_own_fingerprint() -> None:
    assert len({codec.fingerprint(message) for message in MESSAGES}) == len(MESSAGES)


# ---- older schemas ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trade:
    price: Decimal
    symbol: str
    mode: Mode
    venue: str | None
    note: str = "none"
    sizes: tuple[Decimal, ...] = (Decimal("1.5"),)


OLD_TRADE = {
    "type": "record",
    "name": "Trade",
    "namespace": "qmtl",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "gone", "type": {"type": "array", "items": "long"}},
        {"name": "mode", "type": {"type": "enum", "name": "Mode", "symbols": ["LIVE"]}},
        {"name": "price", "type": {"type": "string", "logicalType": "qmtl-decimal"}},
        {"name": "venue", "type": "string"},
    ],
}


def _old(record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsing_form(OLD_TRADE), record)
    return b"\xc3\x01" + fingerprint(OLD_TRADE) + out.getvalue()


def test_a_record_of_an_older_schema_is_read_in_the_current_form() -> None:
    young = Codec([Trade], older=lambda message: [OLD_TRADE])
    data = _old({"symbol": "BTC", "gone": [1, 2], "mode": "LIVE", "price": "1.5", "venue": "X"})
    expected = Trade(Decimal("1.5"), "BTC", Mode.LIVE, "X", "none", (Decimal("1.5"),))
    assert young.decode(data) == expected
    assert young.decode_as(data, frozenset({Trade})) == expected
    assert young.decode(young.encode(expected)) == expected
    with pytest.raises(UnknownSchema):
        Codec([Trade]).decode(data)


@pytest.mark.parametrize("change", ["tail", "blocks", "decimal"])
def test_a_record_of_an_older_schema_is_held_to_the_same_strictness(change: str) -> None:
    young = Codec([Trade], older=lambda message: [OLD_TRADE])
    record = {"symbol": "BTC", "gone": [1, 2], "mode": "LIVE", "price": "1.5", "venue": "X"}
    data = {
        "tail": _old(record) + b"\x00",
        "blocks": _old(record).replace(b"\x04\x02\x04\x00", b"\x02\x02\x02\x04\x00"),
        "decimal": _old({**record, "price": "1.50"}),
    }[change]
    assert data != _old(record)
    with pytest.raises(MalformedValue):
        young.decode(data)


def test_two_classes_of_one_name_can_not_share_a_codec() -> None:
    again = dataclasses.make_dataclass("Again", [("a", int)], frozen=True)
    same = dataclasses.make_dataclass("Again", [("a", int)], frozen=True)
    with pytest.raises(InvalidValue, match="Again"):
        Codec([again, same]).encode(again(1))


# ---- JSON -------------------------------------------------------------------------------------------------


@NAMED
@settings(max_examples=15)
@given(st.data())
def test_every_message_comes_back_from_json(message: type, data: st.DataObject) -> None:
    value = data.draw(messages(message))
    assert from_json(message, json.loads(json.dumps(to_json(value)))) == value


def test_json_has_decimals_as_text_enums_by_value_and_bytes_in_base64() -> None:
    view = to_json(Inner(Mode.COMPUTE_ONLY, Decimal("1E+2")))
    assert view == {"mode": "compute-only", "price": "100"}
    assert to_json(DeadLetter("p", "t", "c", "x", b"\x00\xff", None))["key"] == "AP8="


INNER = {"mode": "live", "price": "1.5"}


@pytest.mark.parametrize(
    "obj,field",
    [
        ([], "Inner "),
        ({"price": "1"}, r"Inner\.mode was missing"),
        ({**INNER, "x": 1}, r"Inner\.x was an unknown field"),
        ({**INNER, "price": 1}, r"Inner\.price "),
        ({**INNER, "price": 1.5}, r"Inner\.price "),
        ({**INNER, "price": "NaN"}, r"Inner\.price "),
        ({**INNER, "price": "1e5"}, r"Inner\.price "),
        ({**INNER, "price": "1\n"}, r"Inner\.price "),
        ({**INNER, "price": "٣"}, r"Inner\.price "),
        ({**INNER, "price": "9" * 61}, r"Inner\.price "),
        ({**INNER, "price": None}, r"Inner\.price "),
        ({**INNER, "mode": "COMPUTE_ONLY"}, r"Inner\.mode "),
        ({**INNER, "mode": None}, r"Inner\.mode "),
    ],
)
def test_json_that_is_no_message_is_refused_by_name(obj: object, field: str) -> None:
    with pytest.raises(InvalidValue, match=field):
        from_json(Inner, obj)


@pytest.mark.parametrize(
    "cls,changes,field",
    [
        (Fill, {"seq": True}, "seq"),
        (Fill, {"seq": 1.0}, "seq"),
        (Fill, {"seq": 2**63}, "seq"),
        (Fill, {"symbol": "\ud800"}, "symbol"),
        (NodeValue, {"value": math.inf}, "value"),
        (NodeValue, {"value": "1"}, "value"),
        (DeadLetter, {"key": "AP8"}, "key"),
        (DeadLetter, {"key": "AP9="}, "key"),
        (StrategyVersion, {"signals": ["a", 1]}, r"signals\[1\]"),
        (CreateTopic, {"config": {"a": 1}}, r"config\.a"),
    ],
)
def test_a_json_value_of_another_type_is_refused_by_name(
    cls: type, changes: dict[str, Any], field: str
) -> None:
    view = to_json(sample(shape_of(cls), random.Random(1)))
    with pytest.raises(InvalidValue, match=rf"{cls.__name__}\.{field} "):
        from_json(cls, {**view, **changes})


def test_a_field_with_a_default_may_be_left_out() -> None:
    assert from_json(Inner, {"mode": "live"}) == Inner(Mode.LIVE)
