"""Which of a strategy's two versions a key belongs to: the stable one, or the canary that has a part of the traffic.

The rule. Every key has a place among 2^64, which only the canary's id and the key decide: the first 8 bytes, big-endian, of BLAKE3's
`derive_key` output over the canonical bytes of both. The canary of `w` basis points has the keys whose place lies in the first
`w / 10000` of all places. So

- a key that is the canary's at one weight is so at every higher one: stepping a canary up takes no key back;
- every process, restart and replay gives the same answer, as nothing else goes in;
- each canary has keys of its own: that a symbol was tried by one says nothing of the next.

The share of the places is exact to 2^-64; the share of the keys that are there is what chance gives, and of a single key all or nothing.
"""

from __future__ import annotations

from typing import Final

from qmtl.foundation.common.canonical import canonical_bytes, derived_hex
from qmtl.foundation.common.errors import InvalidValue

BASIS_POINTS: Final = 10_000
"""All of the traffic."""

_CONTEXT: Final = "qmtl canary traffic v1"
_PLACE_BYTES: Final = 8
_PLACES: Final = 1 << 8 * _PLACE_BYTES


def is_canarys(sentinel_id: str, key: str, weight_bp: int) -> bool:
    """Whether a key belongs to the canary; otherwise it is the stable version's.

    Args:
        sentinel_id: of the canary.
        key: what the traffic is split by, a symbol.
        weight_bp: the canary's part in basis points; of none no key is the canary's, of all every key is.

    Raises:
        InvalidValue: the weight is not between none and all.
    """
    require_weight(weight_bp)
    return place_of(sentinel_id, key) * BASIS_POINTS < weight_bp * _PLACES


def place_of(sentinel_id: str, key: str) -> int:
    """The place of a key among the 2^64 of a canary."""
    return int(derived_hex(canonical_bytes((sentinel_id, key)), _CONTEXT, _PLACE_BYTES), 16)


def require_weight(weight_bp: int) -> None:
    """Hold a weight to what one can be.

    Raises:
        InvalidValue: it is not between none and all.
    """
    if not 0 <= weight_bp <= BASIS_POINTS:
        raise InvalidValue(
            f"traffic_weight was the number {weight_bp}; basis points from 0 to {BASIS_POINTS} are required.",
            "Send 1000 for a tenth of the traffic.",
        )
