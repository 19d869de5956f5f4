"""Messages as somebody might spell them: sound, strange, damaged, hostile; most of them a small step away from a sound one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.kinds import SCHEMA, SCHEMAS
from tests.services.graphs import T0, Node, cross, crossing, price, sma, strategy, target, text

Step = Callable[[Random, Any], Any]


class Spelled(str):
    """JSON as it is to stand in the message."""


# ---- sound ones ---------------------------------------------------------------------------------------------------


def said(nodes: list[Node]) -> list[Node]:
    """The nodes with the ids that they have."""
    ids = {one.name: one.node.node_id for one in admit(text(strategy(nodes)), T0).nodes}
    return [{**one, "node_id": ids[one["name"]]} for one in nodes]


def wide(count: int) -> list[Node]:
    nodes = crossing()
    for at in range(count):
        nodes += [sma(f"f{at}", 3 + at), sma(f"s{at}", 9), cross(f"c{at}", f"f{at}", f"s{at}")]
    return nodes


SOUND: tuple[dict[str, Any], ...] = (
    strategy(crossing()),
    strategy(crossing(4, 9), "s2"),
    strategy(wide(3)),
    strategy(crossing()[::-1]),
    strategy(said(crossing())),
    strategy([*crossing(), sma("again", 3), target("twin")], signals=("twin", "target")),
    strategy([*crossing(), price("other", ["Ü-USD", "\u2028"]), sma("alone", 5, "other")]),
    strategy([price("nodes", metadata={"nodes": [{"name": "nodes"}]}), sma("a", 2, "nodes"), *crossing()]),
    strategy(
        [{**one, "interval": "1m", "schema_compat_id": f"qmtl.{one['node_type']}.v1"} for one in crossing()]
    ),
    strategy([{**one, "schema_hash": min(SCHEMAS[one["node_type"]])} for one in crossing()]),
    strategy([*crossing(), *(sma(one[-4:], 3, schema_hash=one) for one in sorted(SCHEMAS["sma"]))]),
    strategy(
        [price(params={"symbols": ["B", "A"], "label": 1.5, "node_set_version": "n@1"}), *crossing()[1:]]
    ),
)


# ---- steps away from them: on the message ---------------------------------------------------------------------------


def any_object(draw: Random, message: Any) -> dict[str, Any]:
    """An object of the message, at any place."""
    found: list[dict[str, Any]] = []
    open_values = [message]
    while open_values:
        one = open_values.pop()
        if isinstance(one, dict):
            found.append(one)
            open_values.extend(one.values())
        elif isinstance(one, list):
            open_values.extend(one)
    return draw.choice(found)


def nodes_of(message: Any) -> list[Any]:
    listed = message.get("nodes")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    60,
    2.5,
    "",
    "price",
    "slow",
    "1m",
    "a|b",
    "x" * 201,
    [],
    {},
    ["price"],
    ["price", "price"],
    [["price"]],
    {"world_id": 1},
    {"symbols": ["A"]},
    "blake3:" + "0" * 64,
    SCHEMA["sma"],
    Spelled('"\\u0000"'),
    Spelled('"\\ud800"'),
    Spelled('"\\ud83d\\ude00"'),
    Spelled('"p\\u0072ice"'),
    Spelled('"a\0b"'),
    Spelled("6e1"),
    Spelled("60.0"),
    Spelled("060"),
    Spelled("+60"),
    Spelled("-0"),
    Spelled("1e400"),
    Spelled("1e999999999999999999999"),
    Spelled("NaN"),
    Spelled("-Infinity"),
    Spelled("nul"),
    Spelled("9" * 4096),
    Spelled("9" * 4097),
    Spelled("'a'"),
    Spelled("[1,]"),
    Spelled("[1 2]"),
    Spelled("{} {}"),
    Spelled("{},{}"),
    Spelled('{"a":1,"a":1}'),
    Spelled('{"nodes":[]}'),
    Spelled('"\\"nodes\\":["'),
    *(Spelled('{"a":' + "[" * deep + "]" * deep + "}") for deep in (1, 26, 27, 28, 29, 33, 200)),
    *(Spelled("[" * deep + "]" * deep) for deep in (28, 29, 30, 31, 32, 5000)),
)
KEYS = (
    "name",
    "node_type",
    "interval",
    "period",
    "params",
    "inputs",
    "tags",
    "metadata",
    "node_id",
    "code_hash",
    "schema_hash",
)
MORE_KEYS = (
    *KEYS,
    "nodes",
    "signals",
    "meta",
    "schema_version",
    "strategy_id",
    "version",
    "other",
    "symbols",
)


def change_a_value(draw: Random, message: Any) -> Any:
    one = any_object(draw, message)
    one[draw.choice(list(one) or ["a"])] = draw.choice(VALUES)
    return message


def add_a_key(draw: Random, message: Any) -> Any:
    any_object(draw, message)[draw.choice(MORE_KEYS)] = draw.choice(VALUES)
    return message


def drop_a_key(draw: Random, message: Any) -> Any:
    one = any_object(draw, message)
    one.pop(draw.choice(list(one) or ["a"]), None)
    return message


def change_a_node(draw: Random, message: Any) -> Any:
    nodes = nodes_of(message)
    if nodes:
        one, other = draw.choice(nodes), draw.choice(nodes)
        for key in draw.sample(KEYS, draw.randint(1, 2)):
            one[key] = other.get(key, one.get(key))
    return message


def read_another(draw: Random, message: Any) -> Any:
    nodes = nodes_of(message)
    if nodes:
        one = draw.choice(nodes)
        reads = draw.choices(nodes, k=draw.choice((0, 1, 1, 2)))
        one["inputs"] = [other.get("name", "lost") for other in reads]
    return message


def shuffle_nodes(draw: Random, message: Any) -> Any:
    if isinstance(message.get("nodes"), list):
        draw.shuffle(message["nodes"])
    return message


def repeat_a_node(draw: Random, message: Any) -> Any:
    if isinstance(message.get("nodes"), list) and message["nodes"]:
        message["nodes"].append(draw.choice([*message["nodes"], *VALUES]))
    return message


def change_signals(draw: Random, message: Any) -> Any:
    nodes = nodes_of(message)
    message["signals"] = (
        [one.get("name") for one in draw.choices(nodes, k=draw.randint(0, 3))] if nodes else []
    )
    return message


CHANGES: tuple[Step, ...] = (
    change_a_value,
    add_a_key,
    drop_a_key,
    change_a_node,
    read_another,
    shuffle_nodes,
    repeat_a_node,
    change_signals,
)


# ---- steps away from them: on the spelling --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Habits:
    """How often a writer puts a space or an escape or takes another order, spells a number otherwise, says a key twice."""

    loose: float = 0.0
    numbers: float = 0.0
    twice: float = 0.0


def habits(draw: Random) -> Habits:
    return Habits(
        draw.choice((0.0, 0.0, 0.02, 0.3)), draw.choice((0.0, 0.0, 0.05)), draw.choice((0.0, 0.0, 0.0, 0.05))
    )


def spelled(draw: Random, value: Any, how: Habits) -> str:
    """A value as JSON."""

    def odd() -> bool:
        return draw.random() < how.loose

    def space() -> str:
        return draw.choice((" ", "\n\t", "\r\n   ")) if odd() else ""

    match value:
        case Spelled():
            return value
        case dict():
            pairs = list(value.items())
            if odd():
                draw.shuffle(pairs)
            if pairs and draw.random() < how.twice:
                pairs.insert(draw.randint(0, len(pairs)), (draw.choice(pairs)[0], draw.choice(pairs)[1]))
            inner = [
                f"{space()}{spelled(draw, key, how)}{space()}:{space()}{spelled(draw, item, how)}{space()}"
                for key, item in pairs
            ]
            return "{" + ",".join(inner) + "}"
        case list():
            return "[" + ",".join(f"{space()}{spelled(draw, one, how)}{space()}" for one in value) + "]"
        case str():
            if odd():
                letters = (f"\\u{ord(one):04x}" if odd() else json.dumps(one)[1:-1] for one in value)
                return '"' + "".join(letters) + '"'
            return json.dumps(value, ensure_ascii=odd())
        case bool() | None:
            return json.dumps(value)
        case _:
            odd_ones = (f"{value}.0", f"{value}e0", f"{value}0e-1")
            return draw.choice(odd_ones) if draw.random() < how.numbers else json.dumps(value)


def flip_a_byte(draw: Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def put_bytes_in(draw: Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    pieces = (
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b",",
        b'"',
        b"\\",
        b"]",
        b"}",
        b" ",
        b"{}",
        b"\x0b",
        b"\xc2\xa0",
        b'"nodes":[',
    )
    return data[:at] + draw.choice(pieces) + data[at:]


def cut_out(draw: Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.choice((1, 1, 2, 8, 40, len(data))) :]


def copy_a_part(draw: Random, data: bytes) -> bytes:
    at, to = draw.randrange(len(data)), draw.randrange(len(data))
    return data[:to] + data[at : at + draw.choice((1, 5, 60, 300, len(data)))] + data[to:]


def put_around(draw: Random, data: bytes) -> bytes:
    before, after = draw.choice(
        (
            (b"\xef\xbb\xbf", b""),
            (b" \n", b"\t "),
            (b"", b"{}"),
            (b"[", b"]"),
            (b"", b"\0"),
            (b"", b"," + data),
            (b"//\n", b""),
        )
    )
    return before + data + after


DAMAGES: tuple[Step, ...] = (flip_a_byte, put_bytes_in, cut_out, copy_a_part, put_around)


def message(draw: Random) -> bytes:
    """A sound message a few steps on; one of four goes none but in its spelling."""
    made: Any = json.loads(json.dumps(draw.choice(SOUND)))
    for _ in range(draw.choice((0, 0, 1, 1, 1, 3))):
        made = draw.choice(CHANGES)(draw, made)
    data = spelled(draw, made, habits(draw)).encode("utf-8", "surrogatepass")
    for _ in range(draw.choice((0, 0, 0, 0, 0, 1))):
        data = draw.choice(DAMAGES)(draw, data or b" ")
    return data
