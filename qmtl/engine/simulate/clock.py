"""The simulated clock: time passes only where somebody waits or asks."""

from __future__ import annotations

from typing import Final

START_MS: Final = 1_600_000_000_000


class Clock:
    """Epoch milliseconds that only go forward."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def seconds(self) -> float:
        """The same as `time.monotonic` would say it."""
        return self.now_ms / 1e3

    def pass_ms(self, ms: int) -> int:
        """Let time pass; returns the time after it."""
        self.now_ms += ms
        return self.now_ms
