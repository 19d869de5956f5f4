"""Instants as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from qmtl.foundation.common.errors import InvalidValue

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS: Final = 2**63 - 1


def epoch_ms(text: str) -> int:
    """Epoch milliseconds of a text that has them, or of ISO 8601, in UTC where it has no offset.

    Raises:
        InvalidValue: neither of them, before 1970, or no whole number of milliseconds.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MAX_MS:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(
            f"{text[:60]!r} is neither epoch milliseconds nor ISO 8601, such as 2018-04-04T00:01:00Z."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole, rest = divmod(moment - _EPOCH, timedelta(milliseconds=1))
    if rest or whole < 0:
        raise InvalidValue(f"{text[:60]!r} is no whole number of milliseconds since 1970.")
    return whole
