"""What a dead letter or a late record says: bytes and coordinates of the record, and a cause that is the same at every replay.

A replay on another machine must write the same letter (law 6), so nothing goes in that differs between processes: no line
numbers, no addresses in memory, no clock. The text of an error is an output of its processor as any other: it has to be a
function of record and tables.
"""

from __future__ import annotations

import re
from traceback import walk_tb
from types import TracebackType
from typing import Final, NamedTuple

from blake3 import blake3

from qmtl.engine.log.port import Record
from qmtl.engine.processor import Arrival
from qmtl.foundation.common.errors import HandlerFailed, PoisonRecord, QmtlError, Quarantined
from qmtl.foundation.contracts.control import DeadLetter, LateRecord
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.foundation.wire.keys import MAX_KEY_BYTES

WHOLE_KEY_BYTES: Final = 2 * MAX_KEY_BYTES
WHOLE_VALUE_BYTES: Final = MAX_VALUE_BYTES - (24 << 10)
"""A value up to this size is kept whole: what a letter may have, less what surrounds the value."""

HEAD_BYTES: Final = 64 << 10
"""How much is kept of a larger value."""

CAUSE_CHARACTERS: Final = 1000
_TYPE_CHARACTERS: Final = 300
_DIGEST_BYTES: Final = 8
_ADDRESS: Final = re.compile(r"\b0x[0-9a-fA-F]{4,}")


_READING_A_ROW: Final = ("qmtl.engine.table", "Version.message")


class Cause(NamedTuple):
    """Why a record can't be used.

    Attributes:
        attempts: how often the rule allows the record to be tried.
    """

    code: str
    text: str
    error_type: str = ""
    stack_digest: str = ""
    attempts: int = 1


class _Kept(NamedTuple):
    """What is kept of a record's bytes."""

    key: bytes
    value: bytes | None
    key_bytes: int | None
    value_bytes: int | None
    digest: str


def letter_of(processor: str, task: int, record: Record | Arrival, cause: Cause) -> DeadLetter:
    """The letter of a record."""
    kept = _keep(record.key, record.value)
    return DeadLetter(
        processor,
        record.topic,
        cause.code,
        cause.text,
        kept.key,
        kept.value,
        record.partition,
        record.offset,
        task,
        cause.error_type,
        cause.stack_digest,
        cause.attempts,
        kept.key_bytes,
        kept.value_bytes,
        kept.digest,
    )


def late_record(processor: str, task: int, arrival: Arrival, bucket_ms: int, last_ms: int) -> LateRecord:
    """What is told of a record of the bucket `bucket_ms` that came after `last_ms` was closed."""
    kept = _keep(arrival.key, arrival.value)
    return LateRecord(
        processor,
        arrival.topic,
        bucket_ms,
        last_ms,
        last_ms - bucket_ms,
        kept.key,
        kept.value,
        arrival.partition,
        arrival.offset,
        task,
        kept.key_bytes,
        kept.value_bytes,
        kept.digest,
    )


def whole_digest(key: bytes, value: bytes | None) -> str:
    """BLAKE3 (64 hex) over key and value, each with its length before it."""
    body = b"" if value is None else value
    return blake3(b"%d:%d:%d:" % (len(key), value is not None, len(body)) + key + body).hexdigest()


def _keep(key: bytes, value: bytes | None) -> _Kept:
    small_key = len(key) <= WHOLE_KEY_BYTES
    small_value = value is None or len(value) <= WHOLE_VALUE_BYTES
    if small_key and small_value:
        return _Kept(key, value, None, None, "")
    return _Kept(
        key if small_key else key[:WHOLE_KEY_BYTES],
        value if value is None or small_value else value[:HEAD_BYTES],
        None if small_key else len(key),
        None if value is None or small_value else len(value),
        whole_digest(key, value),
    )


# ---- causes -------------------------------------------------------------------------------------------------------


def undecodable(error: QmtlError) -> Cause:
    """Bytes that are no message of their topic."""
    return Cause(error.code, _sentence(error.what))


def failed(error: Exception) -> Cause:
    """A handler that raised an error on a record."""
    told = error.cause if isinstance(error, PoisonRecord) else error
    if isinstance(told, str):
        return Cause(PoisonRecord.code, _sentence(told), _type_of(error), stack_digest(error))
    code = told.code if isinstance(told, QmtlError) else HandlerFailed.code
    text = told.what if isinstance(told, QmtlError) else f"{type(told).__name__}: {_said(told)}"
    return Cause(code, _sentence(text), _type_of(told), stack_digest(told))


def quarantined(deaths: int) -> Cause:
    """A record at which the process died so often."""
    return Cause(
        Quarantined.code, f"QUARANTINED: the process died at this record {deaths} times.", "", "", deaths
    )


def stack_digest(error: Exception) -> str:
    """BLAKE3 (16 hex) over the class of an error and the functions outside the engine on the way to where it was raised.

    A function counts once, where it first appears: how deep a recursion went depends on who called it. Of a stack that ran
    out only the handler itself counts, for what was called last depends on how much of it was used before.
    """
    names = dict.fromkeys(_functions(error.__traceback__))
    if isinstance(error, RecursionError):
        names = dict.fromkeys(list(names)[:1])
    text = "\n".join((_type_of(error), *names))
    return blake3(text.encode("utf-8", "backslashreplace")).hexdigest(_DIGEST_BYTES)


def _functions(trace: TracebackType | None) -> list[str]:
    """`module:function` of each frame outside the engine, outermost first."""
    frames = [frame for frame, _ in walk_tb(trace)]
    found = [(str(frame.f_globals.get("__name__", "?")), frame.f_code.co_qualname) for frame in frames]
    return [f"{module}:{name}" for module, name in found if not _is_engine(module)]


def raised_by_engine(error: Exception) -> bool:
    """Whether the engine, and neither the handler nor what it called elsewhere, is where an error comes from.

    That is: its own code raised it, or a row of a table could not be read. A coded error that it raises about a value that it
    was given (a key that can't be written, a message that its topic refuses) comes from the foundation, and is not one.
    """
    frames = [
        (str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname)
        for frame, _ in walk_tb(error.__traceback__)
    ]
    return bool(frames) and (_is_engine(frames[-1][0]) or _READING_A_ROW in frames)


def _is_engine(name: str) -> bool:
    return name.startswith("qmtl.engine.")


def _type_of(error: Exception) -> str:
    kind = type(error)
    return _readable(f"{kind.__module__}.{kind.__qualname__}", _TYPE_CHARACTERS)


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # whatever it is: an error that can't say what it is must not hide that there is one
        return "(its text can't be made)"


def _sentence(text: str) -> str:
    return _readable(_ADDRESS.sub("0x…", text), CAUSE_CHARACTERS)


def _readable(text: str, characters: int) -> str:
    """A text that can be written in UTF-8 and is not longer than it may be."""
    sound = text[:characters].encode("utf-8", "backslashreplace").decode()
    return sound if len(text) <= characters else sound + "…"
