"""What a compute function sees: the last values of its node's inputs up to the bucket that is computed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

from qmtl.foundation.common.errors import ViewMisused
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.sdk.slots import ReadOnly, Ring, Slots, Window, newest_of

NO_PARAMS: Final[Mapping[str, Any]] = MappingProxyType({})


class Named(Protocol):
    """A node, as far as a view asks it."""

    @property
    def name(self) -> str | None: ...


Input: TypeAlias = "str | int | Named"
"""An input of a node: by the name that it has there, by its port counted from 0, or the node itself."""


class Port(ReadOnly):
    """One input, by its interval."""

    __slots__ = ("_interval", "_label", "_slots")
    _interval: int
    _label: str
    _slots: Slots

    def __init__(self, label: str, interval: int, ring: Ring) -> None:
        object.__setattr__(self, "_label", label)
        object.__setattr__(self, "_interval", interval)
        object.__setattr__(self, "_slots", Slots(ring))

    def __getitem__(self, interval: int) -> Slots:
        """What came in, as long as the interval is that of the input, in seconds.

        Raises:
            ViewMisused: it is another one.
        """
        if interval != self._interval:
            raise ViewMisused(
                f"the input {self._label!r} was asked for at {interval!r} s; it has an interval of {self._interval} s.",
                "Read it at its own interval.",
            )
        return self._slots


class Sight:
    """What lies behind a view and moves on with its node; its worker's alone."""

    __slots__ = ("_bar", "bars", "bucket_ms", "kept", "symbol")

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._bar: Bar | None = None
        self.bars: Sequence[Bar] = ()
        self.bucket_ms = 0
        self.symbol = ""

    def move_to(self, bar: Bar, bucket_ms: int) -> None:
        """Show the bar of a bucket."""
        self._bar, self.bucket_ms, self.symbol = bar, bucket_ms, bar.symbol

    @property
    def bar(self) -> Bar:
        """The bar of the bucket that is computed."""
        assert self._bar is not None  # no function is called before there is one
        return self._bar

    @property
    def close(self) -> Decimal:
        """The close of that bar."""
        return self.bar.close


class CacheView(ReadOnly):
    """The one argument of a compute function, read only.

    `view[node][interval]` is what an input has seen (`Slots`), where `node` is the name that the input has for this node, its port counted
    from 0, or the node itself. Each read costs the same whatever the period. It holds nothing newer than the bucket that is computed.
    It is one object that moves on with its node, so keep no view: what is to be kept is returned.

    Args:
        labels: the inputs' names by port.
        rings: what each port has seen, by port.
        params: of the node.
    """

    __slots__ = ("_by", "_ports", "_sight", "params")
    _by: dict[str, Port]
    _ports: tuple[Port, ...]
    _sight: Sight
    params: Mapping[str, Any]
    """The node's own parameters, by name: whole numbers as int, others as float, lists as tuples."""

    def __init__(
        self,
        labels: Sequence[str],
        interval: int,
        rings: Sequence[Ring],
        sight: Sight,
        params: Mapping[str, Any] = NO_PARAMS,
    ) -> None:
        ports = tuple([Port(label, interval, ring) for label, ring in zip(labels, rings, strict=True)])
        object.__setattr__(self, "_ports", ports)
        object.__setattr__(self, "_by", dict(zip(labels, ports, strict=True)))
        object.__setattr__(self, "_sight", sight)
        object.__setattr__(self, "params", params)

    @property
    def symbol(self) -> str:
        """Whose values these are."""
        return self._sight.symbol

    @property
    def bucket_ms(self) -> int:
        """The instant at which the bucket closed that is computed, epoch ms."""
        return self._sight.bucket_ms

    @property
    def bar(self) -> Bar:
        """The symbol's bar of this bucket, with exact prices."""
        return self._sight.bar

    def __getitem__(self, node: Input) -> Port:
        """An input.

        Raises:
            ViewMisused: the node reads none that is called so.
        """
        if type(node) is str and (found := self._by.get(node)) is not None:
            return found
        if type(node) is int and 0 <= node < len(self._ports):
            return self._ports[node]
        name = getattr(node, "name", None)
        if isinstance(name, str) and name in self._by:
            return self._by[name]
        raise ViewMisused(
            f"the input {name or node!r} was asked for; the node reads {', '.join(self._by)}.",
            "Name one of these, or a port counted from 0.",
        )

    def window(self, node: Input, interval: int, count: int) -> Window:
        """The newest `count` slots of an input, or as many as there are.

        Raises:
            ViewMisused: no such input, another interval, or a count that is no whole number from 1 to the node's period.
        """
        port = self._by.get(node) if type(node) is str else None
        if port is None or interval != port._interval:
            return self[node][interval].newest(count)  # or what is wrong with it
        return newest_of(port._slots._ring, count)

    def bars(self, count: int) -> tuple[Bar, ...]:
        """The symbol's newest bars, oldest first, that of this bucket last; as many as there are.

        Raises:
            ViewMisused: no positive number, or more than the node keeps (its `bars`).
        """
        sight = self._sight
        if type(count) is not int or not 1 <= count <= max(sight.kept, 1):
            raise ViewMisused(
                f"{count!r} bars were asked for; a whole number from 1 to the {max(sight.kept, 1)} that the node keeps is required.",
                "Say with `bars=` of the node how many its function looks back on.",
            )
        if not sight.kept:
            return (self.bar,)
        return tuple(sight.bars[-count:])
