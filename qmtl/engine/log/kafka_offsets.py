"""Tells an offset that the client gives from a number that says only that nobody knew one."""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import OFFSET_END, OFFSET_INVALID, KafkaError, KafkaException

AT_THE_END: Final = OFFSET_END
"""Instead of the offset at a time: no record is so late."""

NEVER_COMMITTED: Final = OFFSET_INVALID
"""Instead of a committed position: the group has none."""


def sure(where: Any, offset: int, error: KafkaError | None = None, *, also: int | None = None) -> int:
    """An offset, or the one other number that means something in this answer.

    While the leader of a partition is being replaced the client may answer with -1001, or with -1, and without an error. Taken for
    an offset it would be an empty log.

    Args:
        where: has the topic and partition that the answer is for.
        error: what the client says of this partition alone.
        also: `AT_THE_END` or `NEVER_COMMITTED`, where that may be the answer.

    Raises:
        KafkaException: the error; or OFFSET_NOT_AVAILABLE, as a leader says that does not yet know: ask again.
    """
    if error is not None:
        raise KafkaException(error)
    if offset >= 0 or offset == also:
        return offset
    raise KafkaException(
        KafkaError(
            KafkaError.OFFSET_NOT_AVAILABLE,
            f"{where.topic}[{where.partition}] had no offset to tell, only {offset}",
        )
    )
