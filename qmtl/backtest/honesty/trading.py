"""What a program trades, as one digest: for runs in different processes to be held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from qmtl.backtest.honesty.findings import Cause, Finding
from qmtl.backtest.honesty.steady import ELSEWHERE
from qmtl.backtest.honesty.subject import Subject
from qmtl.backtest.run import Run
from qmtl.backtest.simulation import Terms, simulate
from qmtl.runtime.sdk.functions import register

TRADING: Final = 3
"""So many processes trade: the first, one in which nothing was changed, and one in which texts hash otherwise. No author's code is in trading."""


@dataclass(frozen=True, slots=True)
class Traded:
    """Asks for the digest of a backtest of messages."""

    messages: tuple[bytes, ...]
    terms: Terms

    def answer(self, subject: Subject) -> str:
        for function in subject.functions.values():
            register(function)  # so that it is found, wherever its module lies
        return digest_of(simulate(self.messages, subject.bars, self.terms).run)


def digest_of(run: Run) -> str:
    """BLAKE3 of intents, orders, fills, rejections, accounts and positions, in their order."""
    hashed = blake3()
    parts: Sequence[Sequence[object]] = (
        run.intents,
        tuple(run.orders.values()),
        run.fills,
        run.rejections,
        tuple(run.rows()),
    )
    for part in parts:
        for one in part:
            hashed.update(repr(one).encode())
        hashed.update(b"\n")
    return hashed.hexdigest()


def apart(digests: Sequence[str]) -> tuple[Finding, ...]:
    """The first process that traded otherwise than the first of all.

    Args:
        digests: of the first process, and of the first ones of `ELSEWHERE`, in their order.
    """
    for digest, (_, _, changing) in zip(digests[1:], ELSEWHERE, strict=False):
        if digest != digests[0]:
            was, became = (f"orders and fills with the digest {one[:16]}" for one in (digests[0], digest))
            return (Finding(Cause.TRADING, "", "", "", "", 0, was, became, changing),)
    return ()
