"""Who asks again under the same id: the same content has the same answer, other content is refused and noted, and never answered with it.

Content is all that a message says but its id and the instant at which it was said, so whoever repeats a request may say it later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, TypeAlias, get_args

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import ReusedId
from qmtl.foundation.contracts.dag import AdminAct, DagCommand, DagSubmission
from qmtl.foundation.contracts.diff import DiffRequest
from qmtl.services.dagmanager.act import Act

Request: TypeAlias = DagSubmission | DagCommand | DiffRequest

_IDS: Final = ("submission_id", "command_id", "request_id")
_APART: Final = frozenset((*_IDS, "submitted_at_ms", "issued_at_ms", "requested_at_ms"))

_CONTENT: Final[Mapping[type, tuple[tuple[str, Any], ...]]] = {
    kind: tuple(sorted((one.name, one.default) for one in fields(kind) if one.name not in _APART))
    for kind in get_args(Request)
}
"""Of each kind of request the fields that are content, in their order by name, each with its default."""

ANY_DIGEST: Final = "0" * 32
"""As long as each digest of content: stands for it while an answer is made that may not be written."""


def content_digest(request: Request) -> str:
    """BLAKE3, 32 hex digits, over the kind of a request and what it says beyond the defaults: a field that is added one day, with a
    default, changes no digest of a request that was sent before. A message, which may be long, counts by its own digest."""
    said: list[tuple[str, Any]] = []
    for name, default in _CONTENT[type(request)]:
        value = getattr(request, name)
        if default is MISSING or value != default:
            said.append((name, blake3_hex(value) if isinstance(value, bytes) else value))
    return blake3_hex(canonical_bytes(["qmtl request v1", type(request).__name__, *said]), 16)


def id_of(request: Request) -> str:
    """Under which it is answered."""
    return _id(request)[1]


def require_same(answered: str, request: Request) -> None:
    """Raises: ReusedId, where an answer is of other content.

    Args:
        answered: the digest of the content that was answered; empty in rows of old, which do not tell.
    """
    if not answered or answered == (digest := content_digest(request)):
        return
    field, value = _id(request)
    raise ReusedId(
        f"{field} was the text {value!a:.200}, under which something else was asked before: content {answered}, this is {digest}.",
        "Say it under an id of its own.",
    )


def same_as(request: Request) -> Callable[[Request], bool]:
    """Whether another request is this one: it has its id. Where that says something else, asking raises ReusedId."""
    name = id_of(request)

    def same(other: Request) -> bool:
        if id_of(other) != name:
            return False
        require_same(content_digest(other), request)
        return True

    return same


def note(act: Act, request: Request, refused: ReusedId, digest: str) -> None:
    """Tell the audit of a request that came under another one's id.

    Args:
        digest: of the whole record.
    """
    act.note(AdminAct.REPEATED, id_of(request), detail=f"refused: {refused}", digest=digest)


def _id(request: Request) -> tuple[str, str]:
    for field in _IDS:
        value = getattr(request, field, None)
        if value is not None:
            return field, value
    raise AssertionError("a request has an id")
