"""What is added to a strategy behind one of its signals, and is no node itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmtl.runtime.sdk.nodes import Node


class Attachment:
    """A whole that hangs on one signal; a strategy keeps it beside its nodes, and its message is that of its nodes."""

    __slots__ = ()

    def attached_to(self) -> Node:
        """The signal, which is a node of the strategy."""
        raise NotImplementedError
