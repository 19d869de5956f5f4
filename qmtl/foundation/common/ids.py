"""What an id that comes from outside may be: one rule for messages, requests, strategies and worlds.

It is the rule of names, so that an id is a key, a part of a key between colons, a topic's prefix and a word on a command line as it is.
"""

from __future__ import annotations

from typing import Final

from qmtl.foundation.common.errors import InvalidName, Reason
from qmtl.foundation.common.names import MAX_NAME, NAME_RULE, is_name

MAX_ID: Final = MAX_NAME
"""Characters."""

ID_RULE: Final = f"1 to {MAX_ID} characters are required, and only {NAME_RULE}"

_SHOWN: Final = 60
_REMEDY: Final = "Say it under another id."


def fault_of(field: str, text: str) -> Reason | None:
    """What is wrong with an id; None where nothing is.

    Args:
        field: that has it, as the message calls it.
    """
    if is_name(text, MAX_ID):
        return None
    return Reason(InvalidName.code, field, _kind(text), ID_RULE, _REMEDY)


def require_id(field: str, text: str) -> None:
    """Raises: InvalidName, where a text is no id."""
    if (fault := fault_of(field, text)) is not None:
        raise InvalidName(fault.what, fault.remedy, (fault,))


def unanswerable(field: str, text: str) -> Reason | None:
    """What is wrong with an id under which nothing can be kept, no answer either: it is blank or too long. None for every other text:
    whoever sent it finds out under it why it is no id."""
    return None if text.strip() and len(text) <= MAX_ID else fault_of(field, text)


def _kind(text: str) -> str:
    if not text.strip():
        return "an empty text" if not text else f"a text of {len(text)} blanks"
    shown = ascii(text[:_SHOWN])
    return f"the text {shown}" if len(text) <= _SHOWN else f"the text {shown}... of {len(text)} characters"
