"""Why an intent did not become an order, in words that a trader understands."""

from __future__ import annotations

from enum import Enum


class RejectionReason(Enum):
    """The closed set of reasons; the value is the wire text."""

    ACTIVATION_MISSING = "activation_missing"
    ACTIVATION_INACTIVE = "activation_inactive"
    STALE_ACTIVATION = "stale_activation"
    FREEZE = "freeze"
    DRAIN = "drain"
    WATERMARK = "watermark"
    BACKPRESSURE = "backpressure"
    RECOVERING = "recovering"
    RISK_TRIPPED = "risk_tripped"
    UNKNOWN_WORLD = "unknown_world"
    NO_REFERENCE_PRICE = "no_reference_price"
    BELOW_MINIMUM_SIZE = "below_minimum_size"
    INSUFFICIENT_EQUITY = "insufficient_equity"
    INVALID_INTENT = "invalid_intent"
    DUPLICATE_INTENT = "duplicate_intent"
