"""What is wrong with a DAG message: every reason counted, the first ones told, and no text longer than a screen or two."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NoReturn

from qmtl.foundation.common.errors import InvalidDag, Reason

MAX_REASONS: Final = 20
"""Reasons that are told; of the others it is told how many there are."""

MAX_SHOWN: Final = 60
"""Characters of a text that are shown of it."""

MAX_PART: Final = 300
"""Characters of each part of a reason."""


class Faults:
    """Reasons as they are found. What comes after the first `MAX_REASONS` costs no more than its count."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []
        self.count = 0

    def add(self, kind: type[InvalidDag], path: str, found: object, rule: str, remedy: str) -> None:
        """One more reason.

        Args:
            found: the value; its kind is told.
        """
        if self.count < MAX_REASONS:
            self._keep(kind, path, kind_of(found), rule, remedy)
        self.count += 1

    def add_told(self, kind: type[InvalidDag], path: str, was: str, rule: str, remedy: str) -> None:
        """One more reason, where what was found takes words of its own."""
        if self.count < MAX_REASONS:
            self._keep(kind, path, was, rule, remedy)
        self.count += 1

    def _keep(self, kind: type[InvalidDag], path: str, was: str, rule: str, remedy: str) -> None:
        self.reasons.append(Reason(kind.code, path, *(_cut(part) for part in (was, rule, remedy))))

    def refuse_any(self) -> None:
        """Nothing, if there is no reason.

        Raises:
            InvalidDag: with all reasons; of the kind that they share, or of the general one.
        """
        if self.count:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raises: InvalidDag, as `refuse_any`."""
        told, more = tuple(self.reasons), self.count - len(self.reasons)
        kind = _KINDS.get(told[0].code, InvalidDag) if len({one.code for one in told}) == 1 else InvalidDag
        if self.count == 1:
            raise kind(told[0].what, told[0].remedy, told)
        raise kind(f"what was sent has {self.count} faults:\n{lines(told, more)}", "", told, more)


def lines(reasons: tuple[Reason, ...], more: int) -> str:
    """A line for each reason: code, field, what was found, rule and remedy; the last one counts the others."""
    out = [f"[{one.code}] {one.what} {one.remedy}".rstrip() for one in reasons]
    return "\n".join([*out, f"and {more} more."] if more else out)


def kind_of(value: object) -> str:
    """What a value is, in words and in ASCII, so that what looks alike or moves a cursor is seen as what it is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float() | Decimal():
            return f"the number {shortened(str(value))}" if _is_short(value) else "a number of many digits"
        case str():
            return f"the text {spelled(value)}"
        case Mapping():
            return f"an object of {len(value)} fields"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return f"a {type(value).__name__}"


def spelled(text: str) -> str:
    """A text between quotes with everything beyond ASCII written as an escape, cut to `MAX_SHOWN` characters."""
    shown = ascii(text[:MAX_SHOWN])
    return shown if len(text) <= MAX_SHOWN else f"{shown}... of {len(text)} characters"


def shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _is_short(number: int | float | Decimal) -> bool:
    """Whether its text is made without effort."""
    return not isinstance(number, int) or number.bit_length() < 4000


def _cut(part: str) -> str:
    part = part.encode("ascii", "backslashreplace").decode()
    return part if len(part) <= MAX_PART else f"{part[:MAX_PART]}..."


def _kinds(root: type[InvalidDag]) -> dict[str, type[InvalidDag]]:
    found = {root.code: root}
    for kind in root.__subclasses__():
        found.update(_kinds(kind))
    return found


_KINDS: Final = _kinds(InvalidDag)
