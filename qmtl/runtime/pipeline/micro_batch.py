"""Payloads of one bucket together, so that what follows is called once per bucket and not once per payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from qmtl.foundation.common.errors import InvalidValue

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[_T]):
    """What a bucket has brought so far, or has brought: its payloads in the order in which they came."""

    bucket_ms: int
    payloads: tuple[_T, ...] = ()


class MicroBatchNode(Generic[_T]):
    """Gathers the payloads of a bucket, and gives them as one list when the bucket closes. What is gathered is the caller's to keep."""

    def add(self, gathered: Batch[_T] | None, bucket_ms: int, payload: _T) -> Batch[_T]:
        """What is gathered with one payload more.

        Args:
            gathered: of this bucket; None before its first payload.

        Raises:
            InvalidValue: what is gathered is of another bucket, which was not closed.
        """
        if gathered is None:
            return Batch(bucket_ms, (payload,))
        _require_same(gathered, bucket_ms)
        return Batch(bucket_ms, (*gathered.payloads, payload))

    def close(self, gathered: Batch[_T] | None, bucket_ms: int) -> Batch[_T]:
        """The payloads of the bucket that closes; an empty one closes too, with none. After it nothing is gathered.

        Raises:
            InvalidValue: what is gathered is of another bucket.
        """
        if gathered is None:
            return Batch(bucket_ms)
        _require_same(gathered, bucket_ms)
        return gathered


def _require_same(gathered: Batch[_T], bucket_ms: int) -> None:
    if gathered.bucket_ms != bucket_ms:
        raise InvalidValue(
            f"bucket_ms was {bucket_ms} and the open batch is of {gathered.bucket_ms}; one bucket is gathered at a time.",
            "Close the open one first.",
        )
