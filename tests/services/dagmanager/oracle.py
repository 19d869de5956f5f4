"""The ids of a graph by the written rule and nothing of ours: an encoder of its own, recursion over names, and the blake3 package.

The rule. A value is a tag byte, the length of its payload in 8 bytes big-endian, and the payload: `z`, `t`, `f` for null, true and
false with none; `n` for a number as `<digits>e<power>` without trailing zeros; `s` for UTF-8 text; `l` for the elements of a list;
`m` for the pairs of a mapping in the order of the keys' bytes. A node is the list of a title, its type, interval, period, params,
sorted inputs, inputs by port, compatibility id and code hash; its id `blake3:` and the hash of that. The sorted checksums of the
artifacts that it uses are a parameter of it. A Python node has the code hash that it says, and where its function lies is no part of it. The version is called `version` or `strategy_version`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from blake3 import blake3

SHOWN_ONLY = [
    "name",
    "display_name",
    "label",
    "title",
    "description",
    "comment",
    "tags",
    "metadata",
    "color",
    "icon",
]
CALLED = ["name", "checksum"]
SECONDS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}


def encoded(value: Any) -> bytes:
    if value is None or value is True or value is False:
        return block({None: "z", True: "t", False: "f"}[value], b"")
    if isinstance(value, str):
        return block("s", value.encode("utf-8"))
    if isinstance(value, list):
        return block("l", b"".join(encoded(item) for item in value))
    if isinstance(value, dict):
        return block("m", b"".join(sorted(encoded(key) + encoded(item) for key, item in value.items())))
    return block("n", number(format(Decimal(str(value)), "f")).encode())


def block(tag: str, payload: bytes) -> bytes:
    return tag.encode() + len(payload).to_bytes(8, "big") + payload


def number(plain: str) -> str:
    """From `-12.50` to `-125e-1`: the point and the zeros at the end become a power of ten."""
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain)
    whole, _, places = digits.partition(".")
    power = -len(places)
    digits = (whole + places).lstrip("0")
    while digits.endswith("0"):
        digits, power = digits[:-1], power + 1
    return f"{sign}{digits}e{power}" if digits else "0e0"


def hashed(value: Any) -> str:
    return "blake3:" + blake3(encoded(value)).hexdigest()


def canonical(message: dict[str, Any]) -> dict[str, Any]:
    """What a sound message comes to: the ids of its nodes by name, those of its signals, and the commit hash."""
    by_name = {one["name"]: one for one in message["nodes"]}
    files = {
        one[key]: one["checksum"] for one in message.get("artifacts", []) for key in one if key in CALLED
    }
    ids: dict[str, str] = {}

    def id_of(name: str) -> str:
        if name not in ids:
            one = by_name[name]
            used = sorted({files[called] for called in one.get("artifacts", [])})
            ids[name] = hashed(content(one, [id_of(read) for read in one.get("inputs", [])], used))
        return ids[name]

    signals = [id_of(name) for name in message["signals"]]
    nodes = {one["name"]: id_of(one["name"]) for one in message["nodes"]}
    meta = message.get("meta", {})
    version = meta.get("version", meta.get("strategy_version", "v1"))
    commit = {"nodes": sorted(nodes.values()), "signals": signals, "version": version}
    return {"nodes": nodes, "signals": signals, "commit": hashed(commit).removeprefix("blake3:")}


def content(one: dict[str, Any], ports: list[str], used: list[str]) -> list[Any]:
    kind = one["node_type"]
    params = {name: value for name, value in one.get("params", {}).items() if name not in SHOWN_ONLY}
    if kind == "price":
        params["symbols"] = sorted(params["symbols"])
    if kind == "tag_query":
        params["query_tags"] = sorted(set(params["query_tags"]))
    if used:
        params["artifacts"] = used
    format_, code = kind, hashed(["qmtl built-in code hash v1", kind, "1"])
    if kind == "python":
        code = one["code_hash"]
        format_ = "python.target" if params["gives"] == "target" else kind
    interval = one["interval"]
    if isinstance(interval, str):
        interval = int(interval[:-1]) * SECONDS[interval[-1]]
    return [
        "qmtl node id v1",
        kind,
        interval,
        one.get("period", 1),
        params,
        sorted(ports),
        ports,
        one.get("schema_compat_id", f"qmtl.{format_}.v1"),
        code,
    ]
