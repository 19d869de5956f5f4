"""The keys of node records: one text that says of which node, bucket and input window a value is.

`<node_id>:<interval>:<bucket_ts>:<input_window_hash>`, as UTF-8. What stands before the last colon is the partition key: it names the
execution, and alone chooses the partition, so that all windows of one execution lie in one. Both numbers are whole seconds: the
length of the node's buckets, and the instant since 1970 at which the bucket closed. The hash tells windows of one execution apart, and
symbols, as each symbol of a node has a window of its own.

The input window of a value is all that the value is a function of, beside the node itself: the symbol, what each port gave in this
bucket, and what the node had kept of earlier buckets and used (its `basis`). So values under one key are equal, other input
has another key, and no window depends on how long a node had been running, on which machine, or how often it was restarted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from qmtl.foundation.common.canonical import derived_hex
from qmtl.foundation.common.errors import InvalidValue, MalformedKey
from qmtl.foundation.common.identity import NODE_ID_FORM

WINDOW_BYTES: Final = 16
"""Of the hash: 128 bits. It tells the windows of one node and bucket apart, which are as many as the node has symbols, and 2^64 of them
would have to be made before two are likely to share a hash; the longer key would be paid for by every record."""

_CONTEXT: Final = "qmtl input window v1"
_KEY: Final = re.compile(
    rf"({NODE_ID_FORM}):([1-9][0-9]*):([1-9][0-9]*):([0-9a-f]{{{2 * WINDOW_BYTES}}})", re.ASCII
)
_LENGTH: Final = Struct(">Q").pack
_GIVEN: Final = Struct(">Bd").pack
_SILENT: Final = b"\x00"


class TextKey(str):
    """A record key that lies in the log as its UTF-8 text and not as a tuple of parts."""

    __slots__ = ()


class CommitKey(NamedTuple):
    """The parts of a node record's key.

    Attributes:
        interval: seconds.
        bucket_ts: seconds since 1970, the instant at which the bucket closed.
    """

    node_id: str
    interval: int
    bucket_ts: int
    input_window_hash: str


def partition_key(node_id: str, interval: int, bucket_ms: int) -> TextKey:
    """What chooses the partition of a node's values of one bucket: `<node_id>:<interval>:<bucket_ts>`.

    Args:
        interval: of the node, seconds.
        bucket_ms: the instant at which the bucket closed, whole seconds; the key has it in seconds.

    Raises:
        InvalidValue: as `commit_key`.
    """
    return TextKey(commit_key(node_id, interval, bucket_ms, _ANY)[: -len(_ANY) - 1])


def commit_key(node_id: str, interval: int, bucket_ms: int, input_window_hash: str) -> TextKey:
    """The key of a node's value: its `partition_key`, a colon, and the hash of its input window.

    Raises:
        InvalidValue: no node id, an interval or bucket that is not positive, a bucket within a second, another form of hash.
    """
    bucket_ts, within = divmod(bucket_ms, 1000)
    key = f"{node_id}:{interval}:{bucket_ts}:{input_window_hash}"
    if within or _KEY.fullmatch(key) is None:
        raise InvalidValue(
            f"the key of a node's value was made of {(node_id, interval, bucket_ms, input_window_hash)!a:.200}; a node id, a positive"
            f" number of seconds, a positive number of ms in whole seconds and {2 * WINDOW_BYTES} lowercase hex digits are required.",
            "Emit what a node has computed, with the hash of its input window.",
        )
    return TextKey(key)


def parse_commit_key(key: bytes) -> CommitKey:
    """The parts of a node record's key.

    Raises:
        MalformedKey: bytes that `commit_key` does not give.
    """
    try:
        found = _KEY.fullmatch(key.decode("ascii"))
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise MalformedKey(f"a key of {len(key)} bytes is none of a node's value.")
    return CommitKey(found[1], int(found[2]), int(found[3]), found[4])


def input_window_hash(
    symbol: str, inputs: Sequence[float | None], basis: bytes, compute_key: str = ""
) -> str:
    """The hash of the window that a value was computed from, 32 lowercase hex digits.

    It is BLAKE3's `derive_key` output over: the length of the symbol (8 bytes, big-endian, as all lengths) and its UTF-8; the number
    of ports, and of each a 00, or a 01 and the 8 bytes of its double, big-endian; the length of the basis, and the basis; and the
    compute key, where there is one: then no two contexts share a window.
    Equal numbers have equal bytes: -0.0 goes in as 0.0.

    Args:
        inputs: what each port gave in the bucket, in the order of the ports; None where it gave nothing.
        basis: what the node used of earlier buckets and of the bar (`Running.basis`).
        compute_key: of the node in its context (`compute_context.compute_key`); empty where nobody has said one.
    """
    name = symbol.encode()
    parts = [_LENGTH(len(name)), name, _LENGTH(len(inputs))]
    parts += [_SILENT if value is None else _GIVEN(1, value + 0.0) for value in inputs]
    parts += [_LENGTH(len(basis)), basis, compute_key.encode()]
    return derived_hex(b"".join(parts), _CONTEXT, WINDOW_BYTES)


_ANY: Final = "0" * 2 * WINDOW_BYTES
