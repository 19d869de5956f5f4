"""All messages of the contracts, and the one codec that reads and writes them."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import ModuleType

from qmtl.foundation.contracts import (
    broker,
    context,
    control,
    dag,
    diff,
    market,
    node,
    release,
    retention,
    trade,
    world,
)
from qmtl.foundation.wire.avro import Schema
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.versions import schema_dir, stored_versions

CONTRACTS: tuple[ModuleType, ...] = (
    broker,
    context,
    control,
    dag,
    diff,
    market,
    node,
    release,
    retention,
    trade,
    world,
)


def _messages(module: ModuleType) -> list[type]:
    """The dataclasses that a module defines, in the order of its text."""
    own = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    )
    return [value for value in own if is_dataclass(value)]


def _stored(message: type) -> list[Schema]:
    return [schema for _, schema in stored_versions(schema_dir(), message.__name__)]


MESSAGES: tuple[type, ...] = tuple(message for module in CONTRACTS for message in _messages(module))
"""Every dataclass of the contracts, those that only lie inside others too."""

codec: Codec = Codec(MESSAGES, older=_stored)
"""The codec of the whole system; it builds its schemas when the first value comes."""
