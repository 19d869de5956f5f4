"""Numbers of things in sentences that people read."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """`1 node`, `2 nodes`, `0 nodes`.

    Args:
        one: what one of them is called.
        many: what more of them are called; without it, `one` with an s.
    """
    return f"{count} {one if count == 1 else many or one + 's'}"
