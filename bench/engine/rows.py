"""The generated input as plain numbers and texts, and what must come out of it: the oracle, which shares no code with any engine.

Money is counted here in whole units of its last digit: quantities and fees in thousandths, prices in hundredths. A snapshot's
bytes are written by the few lines below from the Avro specification (zigzag numbers, texts with their length), so that an
output is right when it is equal byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

STEP = 7919
"""Spreads consecutive numbers over the keys; prime, and so without a common divisor with any number of keys that is used."""
START_MS = 1_522_800_000_000
CURRENCY = "USD"


class Row(NamedTuple):
    """One fill.

    Attributes:
        quantity, fee: in thousandths.
        price, slippage: in hundredths.
    """

    number: int
    symbol: str
    buys: bool
    quantity: int
    price: int
    fee: int
    slippage: int


def row(number: int, keys: int) -> Row:
    """The fill of a number."""
    return Row(
        number,
        f"K{number * STEP % keys:07d}",
        number % 3 != 0,
        1 + number % 97,
        10_000 + number % 1009,
        number % 13,
        number % 7,
    )


def rows(count: int, keys: int) -> Iterator[Row]:
    """The fills of the numbers from 0 on."""
    return (row(number, keys) for number in range(count))


class Held(NamedTuple):
    """What one key has come to: quantity and fees in thousandths, cost in hundred-thousandths."""

    quantity: int
    cost: int
    fees: int
    fills: int


NOTHING = Held(0, 0, 0, 0)


def after(held: Held, one: Row) -> Held:
    """The rule: a signed sum of quantities and of their costs, a sum of fees, a count."""
    sign = 1 if one.buys else -1
    return Held(
        held.quantity + sign * one.quantity,
        held.cost + sign * one.quantity * one.price,
        held.fees + one.fee,
        held.fills + 1,
    )


def snapshot(header: bytes, held: Held, one: Row) -> bytes:
    """The bytes of a snapshot: symbol, quantity, cost, fees, mark as texts, then fills and time as numbers."""
    return b"".join(
        (
            header,
            _text(one.symbol),
            _text(scaled(held.quantity, 3)),
            _text(scaled(held.cost, 5)),
            _text(scaled(held.fees, 3)),
            _text(scaled(one.price, 2)),
            _number(held.fills),
            _number(START_MS + one.number),
        )
    )


def scaled(units: int, places: int) -> str:
    """A count of units as a decimal text in normal form: no exponent, no needless zero, no negative zero."""
    digits = f"{abs(units):0{places + 1}d}"
    whole, part = digits[:-places], digits[-places:].rstrip("0")
    return ("-" if units < 0 else "") + whole + ("." + part if part else "")


def _text(text: str) -> bytes:
    raw = text.encode("ascii")
    return _number(len(raw)) + raw


def _number(value: int) -> bytes:
    left = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


@dataclass(frozen=True, slots=True)
class Expected:
    """All snapshots that must come out, per symbol in their order."""

    count: int
    snapshots: dict[str, list[bytes]]

    def last(self) -> dict[str, bytes]:
        """The last snapshot of every symbol."""
        return {symbol: found[-1] for symbol, found in self.snapshots.items()}


def expected(count: int, keys: int, header: bytes) -> Expected:
    """The oracle: what an engine must give for the first `count` fills."""
    held: dict[str, Held] = {}
    out: dict[str, list[bytes]] = {}
    for one in rows(count, keys):
        now = held[one.symbol] = after(held.get(one.symbol, NOTHING), one)
        out.setdefault(one.symbol, []).append(snapshot(header, now, one))
    return Expected(count, out)


def symbol_of(value: bytes, header: int) -> str:
    """The symbol of a snapshot: its first field, shorter than 64 characters, so that one byte tells its length."""
    return value[header + 1 : header + 1 + (value[header] >> 1)].decode("ascii")


def judge(want: Expected, values: Iterable[bytes], header: int) -> str | None:
    """What is wrong with an engine's output; None when it is exactly the snapshots that must come out, in order per symbol."""
    seen: dict[str, int] = {}
    count = 0
    for value in values:
        count += 1
        symbol = symbol_of(value, header)
        at = seen.get(symbol, 0)
        must = want.snapshots.get(symbol, [])
        if at >= len(must):
            return f"{symbol} has more than its {len(must)} snapshots"
        if value != must[at]:
            return f"snapshot {at + 1} of {symbol} is {value.hex()}, must be {must[at].hex()}"
        seen[symbol] = at + 1
    if count != want.count:
        return f"{count} snapshots came out, must be {want.count}"
    return None
