"""An event of a run as a line for people, and as an object for programs."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final, assert_never

from qmtl.foundation.common.money import product, text
from qmtl.foundation.common.wording import counted
from qmtl.foundation.contracts.diff import NodeOrigin
from qmtl.interfaces.cli.render import instant
from qmtl.interfaces.running.events import (
    Activated,
    Completed,
    FedBefore,
    Filled,
    Intent,
    NodeChanged,
    Ordered,
    Refused,
    Rejected,
    RunEvent,
    Stopped,
    Submitted,
    Unanswered,
    VersionChanged,
    WorldChanged,
)

_HEAD: Final = 10
_HUNDRED: Final = Decimal(100)


def told(event: RunEvent) -> str:
    """One line: what kind of event, and what it says."""
    head, rest = _words(event)
    return f"{head.ljust(_HEAD)} {rest}"


def _words(event: RunEvent) -> tuple[str, str]:
    match event:
        case Submitted():
            new = sum(one.origin is NodeOrigin.NEW for one in event.nodes)
            how = "published" if event.is_new else "published before"
            return (
                "submitted",
                f"{event.strategy_id} {event.version} in world {event.world_id}: {how}, {new} of {counted(len(event.nodes), 'node')} {'was' if new == 1 else 'were'} new",
            )
        case Refused():
            return "refused", f"[{event.code}] {event.what}"
        case VersionChanged():
            share = f", {event.weight_bp / 100:g} % of the traffic" if event.weight_bp else ""
            return "version", f"{event.sentinel_id} is {event.status.value}{share}"
        case WorldChanged():
            return "world", f"{event.world_id} is {event.status.value}"
        case NodeChanged():
            state = "gone" if event.status is None else event.status.value
            since = f" since {instant(event.since_bucket_ms)}" if event.since_bucket_ms else ""
            return "node", f"{event.name} is {state}{since}" + (f": {event.cause}" if event.cause else "")
        case Activated():
            return (
                "gate",
                f"long {event.long.value}, short {event.short.value} ({event.etag}: {event.effective_mode.value}, weight {text(event.weight)})",
            )
        case Intent():
            percent = text(product(event.target_percent, _HUNDRED))
            return (
                "intent",
                f"{instant(event.bucket_ms)} {event.symbol} {percent} % at {text(event.reference_price)}",
            )
        case Ordered():
            done = f", {text(event.filled)} filled" if event.filled else ""
            what = f"{event.side.value} {text(event.quantity)} {event.symbol}"
            return "order", f"{instant(event.at_ms)} {what} is {event.status.value}{done}"
        case Filled():
            what = f"{event.side.value} {text(event.quantity)} {event.symbol} at {text(event.price)}"
            return (
                "fill",
                f"{instant(event.at_ms)} {what}, fee {text(event.fee)} {event.fee_currency}",
            )
        case Rejected():
            return (
                "rejected",
                f"{instant(event.bucket_ms)} {event.symbol}: {event.reason.value} ({event.detail})",
            )
        case Unanswered():
            return (
                "unanswered",
                f"the tag query {event.name!r}: it and what reads it are silent until a node has its tags at its interval",
            )
        case FedBefore():
            rest = "nothing is left to feed" if event.is_all else "the rest is fed now"
            return (
                "fed",
                f"buckets up to {instant(event.bucket_ms)} were closed before: {rest}, and nodes that are new see only what is fed from now on",
            )
        case Completed():
            failed = f"; in state error: {', '.join(event.failed)}" if event.failed else ""
            return "completed", f"all bars up to {instant(event.bucket_ms)} are computed and traded{failed}"
        case Stopped():
            return "stopped", event.why
        case _:
            assert_never(event)


def as_json(event: RunEvent) -> dict[str, Any]:
    """The event as an object: its kind in `event`, and its fields."""
    kind = "".join(f"_{one.lower()}" if one.isupper() else one for one in type(event).__name__)
    return {"event": kind.lstrip("_"), **_fields(event)}


def _fields(value: Any) -> dict[str, Any]:
    return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return _fields(value) if is_dataclass(value) else value
