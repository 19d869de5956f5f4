"""How much memory remembered nodes take, beside how much is counted for them; run as a program, which has nothing else in its memory."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bench.dag import admission
from qmtl.services.dagmanager.prescan import Prescan, split
from tests.services.graphs import T0, Node, crossing, price, sma, strategy, text

NARROW = 400_000
"""The bytes of a memo that has to forget."""


@dataclass(frozen=True, slots=True)
class Fill:
    """A memo after its messages.

    Attributes:
        taken: bytes that are there and were not before.
        known, rows: bytes that it counts for texts and for rows.
        texts: how many it remembers.
    """

    taken: int
    known: int
    rows: int
    texts: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Each fill in a memo with room for it, with a faulty graph, and in a narrow memo; how often gaps are there while they are split."""

    sound: Mapping[str, Fill]
    dangling: Mapping[str, Fill]
    narrow: Mapping[str, Fill]
    peak_of_gaps: float


def raw(nodes: list[Node]) -> bytes:
    return json.dumps(strategy(nodes), ensure_ascii=False).encode()


def with_symbols(at: int, count: int, ending: str) -> bytes:
    """A message that nobody sent before, whose parameters take most of its room."""
    return raw(crossing(symbols=[f"{at}-{place}{ending}" for place in range(count)]))


FILLS: Mapping[str, Sequence[bytes]] = {
    "common nodes": [admission.message(range(at, at + 40)) for at in range(0, 400, 40)],
    "long parameters": [with_symbols(at, 100, "x" * 100) for at in range(60)],
    "long parameters beyond ASCII": [with_symbols(at, 100, "\U0001f600" * 100) for at in range(30)],
    "many short parameters": [with_symbols(at, 2_000, "") for at in range(40)],
    "long notes": [
        raw([*crossing(), price(f"p{at}", metadata={"note": f"{at}".ljust(5_000)})]) for at in range(100)
    ],
    "many tags": [
        raw([*crossing(), price(f"p{at}", tags=[f"{at}-{tag}" for tag in range(100)])]) for at in range(200)
    ],
}


def texts_of(data: bytes) -> Sequence[bytes]:
    texts = split(data)
    assert texts is not None
    return texts.nodes


def fill(memo: Prescan, messages: Sequence[bytes]) -> Fill:
    gc.collect()
    tracemalloc.start()
    try:
        for data in messages:
            memo.plain(data, T0)
            for one in map(memo.known.get, texts_of(data)):
                if one is not None:
                    msgspec.json.encode(one.row.params_canon)  # a text keeps its UTF-8 once it was asked for
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return Fill(taken, memo.known.size, memo.rows.size, len(memo.known))


def peak_of_gaps() -> float:
    """The most memory while nodes with a gap between them are split, as a multiple of the message."""
    gap = b" " * 400_000
    data = b'{"nodes":[' + b"{}" + gap + b"," + b",".join([b"{}"] * 9_000) + b"]}"
    tracemalloc.start()
    try:
        assert split(data) is None
        return tracemalloc.get_traced_memory()[1] / len(data)
    finally:
        tracemalloc.stop()


def main() -> None:
    Prescan().admit(text(strategy(crossing())), T0)  # what is made once is there
    dangling = text(sma("dangling", 2, "nowhere"))
    faulty = {
        how: [data.replace(b'"nodes": [', b'"nodes": [' + dangling + b", ") for data in messages]
        for how, messages in FILLS.items()
    }
    found = Measured(
        {how: fill(Prescan(), messages) for how, messages in FILLS.items()},
        {how: fill(Prescan(), messages) for how, messages in faulty.items()},
        {how: fill(Prescan(NARROW), messages) for how, messages in FILLS.items()},
        peak_of_gaps(),
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
