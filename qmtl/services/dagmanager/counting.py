"""Counts of references, in which nothing stays that counts for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")


def add(counts: Counter[K], keys: Iterable[K], by: int) -> list[K]:
    """Count, and forget what counts for nothing; returns what was nothing before, or is so now."""
    changed = []
    for key in keys:
        before = counts.get(key, 0)
        after = before + by
        if after:
            counts[key] = after
        else:
            del counts[key]
        if not (before and after):
            changed.append(key)
    return changed
