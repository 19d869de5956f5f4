"""When a node may read the state that its own orders have changed: not before the bucket `lag` buckets ago is closed."""

from __future__ import annotations

from dataclasses import dataclass

from qmtl.foundation.common.errors import InvalidValue

_ENABLED_BY_MODE = {"simulate": False, "backtest": False, "paper": True, "live": True}


@dataclass(frozen=True, slots=True)
class WatermarkGate:
    """The rule that processing of bucket t waits for the cut of bucket t - lag of a state topic.

    Attributes:
        topic: the state topic whose close markers are awaited.
        lag: buckets, at least 1: with 0 a node would wait for itself.
        enabled: a closed gate that is switched off lets everything pass.

    Raises:
        InvalidValue: an empty topic or a lag below 1.
    """

    topic: str = "trade.portfolio"
    lag: int = 1
    enabled: bool = True

    def __post_init__(self) -> None:
        if not self.topic:
            raise InvalidValue(
                "topic of a watermark gate was empty; a topic name is required.", "Name the topic."
            )
        if type(self.lag) is not int or self.lag < 1:
            raise InvalidValue(
                f"lag of a watermark gate was {self.lag!r}; an integer of at least 1 is required.",
                "Send 1 to read the bucket before the current one.",
            )

    @classmethod
    def for_mode(cls, mode: str) -> WatermarkGate:
        """The default of a mode: off for `simulate` and `backtest`, on for `paper` and `live`.

        Raises:
            InvalidValue: another text.
        """
        enabled = _ENABLED_BY_MODE.get(mode)
        if enabled is None:
            raise InvalidValue(
                f"mode was {mode!r}; it must be one of {', '.join(_ENABLED_BY_MODE)}.", "Choose one of them."
            )
        return cls(enabled=enabled)

    def needed_bucket_ms(self, bucket_ms: int, interval: int) -> int:
        """The bucket whose cut is awaited before `bucket_ms` may be decided; `interval` in seconds."""
        return bucket_ms - self.lag * interval * 1000

    def ready(self, closed_bucket_ms: int | None, needed_bucket_ms: int) -> bool:
        """Whether the cut is there.

        Args:
            closed_bucket_ms: the newest bucket that the topic has closed; `None` before the first marker.
            needed_bucket_ms: as `needed_bucket_ms()` gives it.
        """
        if not self.enabled:
            return True
        return closed_bucket_ms is not None and closed_bucket_ms >= needed_bucket_ms
