"""A strategy as its author writes it: a class that names its nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Final, TypeAlias

from qmtl.foundation.common.errors import InvalidStrategy
from qmtl.foundation.common.names import MAX_NAME, NAME_RULE, is_name
from qmtl.runtime.indicators.builtin import kind
from qmtl.runtime.sdk.attachment import Attachment
from qmtl.runtime.sdk.nodes import Node, interval_of, period_of

Nodes: TypeAlias = "Node | Attachment | Iterable[Nodes]"
"""A node, what hangs on one (a node set), or any nesting of them."""

_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MAX_LEVELS: Final = 32


class Strategy:
    """Subclass it, and add nodes in `setup`.

    It has no hooks that run beside the nodes: a strategy is its nodes, and what happens to its orders is on the log.

    Args:
        default_interval: of nodes that have none and read none; seconds, or a text such as `1m`.
        default_period: of nodes that have none and read others.
    """

    strategy_id: ClassVar[str] = ""
    """What it is called in its world; without one the class's name, in lower case and with underscores."""

    version: ClassVar[str] = "v1"
    description: ClassVar[str] = ""

    def __init__(self, default_interval: int | str | None = None, default_period: int | None = None) -> None:
        whose = f"the strategy {type(self).__name__}"
        self.default_interval = None if default_interval is None else interval_of(default_interval, whose)
        self.default_period = None if default_period is None else period_of(default_period, whose)
        self._nodes: dict[int, Node] = {}
        self._attachments: dict[int, Attachment] = {}
        self._is_set_up = False

    def setup(self) -> None:
        """Add the nodes. Asked once, by whoever publishes or runs the strategy."""
        raise InvalidStrategy(
            f"the strategy {type(self).__name__} has no setup; it adds the nodes.", "Write `def setup(self)`."
        )

    def add_nodes(self, nodes: Nodes) -> None:
        """Add a node, or all of any nesting of them; one that was added before counts once. A node set brings its signal, and is kept beside the nodes.

        Raises:
            InvalidStrategy: something else than a node, or a second node set on one signal.
        """
        self._add(nodes, 0)

    def _add(self, nodes: object, level: int) -> None:
        if isinstance(nodes, Node):
            self._nodes.setdefault(id(nodes), nodes)
        elif isinstance(nodes, Attachment):
            self._attach(nodes)
        elif isinstance(nodes, Iterable) and not isinstance(nodes, str | bytes) and level < _MAX_LEVELS:
            for one in nodes:
                self._add(one, level + 1)
        else:
            raise InvalidStrategy(
                f"add_nodes of {type(self).__name__} was given {kind(nodes)}; nodes are required.",
                "Give it nodes.",
            )

    def _attach(self, one: Attachment) -> None:
        signal = one.attached_to()
        known = self._attachments.setdefault(id(signal), one)
        if known is not one:
            raise InvalidStrategy(
                f"add_nodes of {type(self).__name__} was given two node sets on the signal {signal.called!r}; a signal is executed once.",
                "Take one of them out.",
            )
        self._nodes.setdefault(id(signal), signal)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The node sets that were added, in that order; `setup` is asked first."""
        return tuple(self._attachments.values()) if self.nodes else ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that were added, in that order; `setup` is asked first."""
        if not self._is_set_up:
            self._is_set_up = True
            self.setup()
        return tuple(self._nodes.values())

    @property
    def name(self) -> str:
        """Its id in a world.

        Raises:
            InvalidStrategy: it is no name.
        """
        found = self.strategy_id or _WORD.sub("_", type(self).__name__).lower()
        if not is_name(found):
            raise InvalidStrategy(
                f"strategy_id of {type(self).__name__} was {kind(found)}; {NAME_RULE}, {MAX_NAME} at most.",
                "Rename it.",
            )
        return found
