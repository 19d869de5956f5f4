"""Holds a provider to the time that its answers may take: one that is silent is given up, and what it has given stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, NoReturn, TypeVar

from qmtl.foundation.common.errors import DataLate, InvalidValue
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.provider import Provider

T = TypeVar("T")

_END: Final = object()


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long may be waited, in seconds; None is as long as it takes.

    Attributes:
        closed_s: for the end of what is closed.
        chunk_s: for the first chunk of a history, and from each one to the next.
        total_s: for everything together, from the first call on; what is done with the chunks meanwhile counts too.
    """

    closed_s: float | None = None
    chunk_s: float | None = None
    total_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("closed_s", "chunk_s", "total_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidValue(
                    f"{name} was {value}; a deadline is a positive number of seconds.", "Give one."
                )


class Timely:
    """A provider whose answers come in time, or not at all.

    Each call runs in a thread of its own, which is left alone when its time is over: it ends with the answer that nobody waits for.
    """

    def __init__(
        self, provider: Provider, deadlines: Deadlines, clock: Callable[[], float] = monotonic
    ) -> None:
        self._provider = provider
        self._deadlines = deadlines
        self._clock = clock
        self._begun: float | None = None

    def source(self) -> Mapping[str, str]:
        return self._provider.source()

    def closed_ms(self, symbol: str, interval: int) -> int | None:
        """As the provider says.

        Raises:
            DataLate: not in time.
        """
        what = f"the end of what is closed of {symbol} and {interval} s"
        return self._asked(what, self._deadlines.closed_s, lambda: self._provider.closed_ms(symbol, interval))

    def history(self, symbol: str, interval: int, start_ms: int, end_ms: int) -> Iterator[BarColumns]:
        """As the provider gives them.

        Raises:
            DataLate: a chunk came not in time; those before it did.
        """

        def asked() -> Iterator[BarColumns]:  # begins where it is waited for
            yield from self._provider.history(symbol, interval, start_ms, end_ms)

        chunks = asked()
        while True:
            what = f"the next bars of {symbol} and {interval} s from {start_ms} to {end_ms}"
            found = self._asked(what, self._deadlines.chunk_s, lambda: next(chunks, _END))
            if not isinstance(found, BarColumns):
                return
            yield found

    def _asked(self, what: str, within_s: float | None, ask: Callable[[], T]) -> T:
        now = self._clock()
        self._begun = now if self._begun is None else self._begun
        total_s = self._deadlines.total_s
        left = None if total_s is None else self._begun + total_s - now
        wait = min((one for one in (within_s, left) if one is not None), default=None)
        if wait is None:
            return ask()
        answers: SimpleQueue[Callable[[], T]] = SimpleQueue()

        def answer() -> None:
            try:
                found = ask()
            except BaseException as error:  # whatever it is, it is raised where the answer is waited for
                answers.put(_raising(error))
            else:
                answers.put(lambda: found)

        if wait > 0:
            threading.Thread(target=answer, name="provider", daemon=True).start()
        try:
            given = answers.get(timeout=max(0.0, wait))
        except Empty:
            agreed = f"{within_s:g} s for this answer" if wait == within_s else f"{total_s:g} s for all"
            source = ", ".join(f"{key} {value}" for key, value in sorted(self._provider.source().items()))
            raise DataLate(
                f"the source of data ({source}) did not give {what} in time; {agreed} are agreed.",
                "Say it again: what was committed stays, and it goes on from there. Or agree on more time.",
            ) from None
        return given()


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def given() -> NoReturn:
        raise error

    return given
