"""The node type `python`: parameters that are checked once, and a running part that calls an author's function once per bucket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from blake3 import blake3

from qmtl.foundation.common.errors import ComputeFailed, InvalidParameter, InvalidValue, QmtlError
from qmtl.foundation.common.money import MAX_DIGITS, MAX_POINT, ZERO, checked, parse_decimal, text
from qmtl.foundation.common.names import NAME_RULE, is_name
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow, PositionTarget
from qmtl.runtime.indicators.builtin import (
    Inputs,
    Output,
    PositionTargetValue,
    bad_period,
    kind,
    refuse_first,
    strangers,
)
from qmtl.runtime.sdk.raised_at import RaisedAt, raised_at
from qmtl.runtime.sdk.slots import Ring
from qmtl.runtime.sdk.view import CacheView, Sight

PYTHON: Final = "python"
"""The `node_type` of a node whose function an author wrote."""

VALUE: Final = "value"
TARGET: Final = "target"
GIVES: Final = (VALUE, TARGET)
"""What a function may give: numbers, or position targets."""

ALL: Final = "all"
ANY: Final = "any"
WHEN: Final = (ALL, ANY)
"""In which buckets it is called: where all inputs have a value, or any of them."""

MAX_SLOTS: Final = 40_000
"""What a window may hold, so that its row is a record: of each port as many as the period, and each bar as four."""

_KNOWN: Final = ("bars", "gives", "params", "ports", "when")
_SHOWN: Final = 200
_BUCKET: Final = Struct(">q").pack


@dataclass(frozen=True, slots=True)
class Target:
    """What a compute function may give: a share of the strategy's equity to hold in its symbol.

    Attributes:
        percent: from -1 (all short) to 1 (all long); a float counts as its shortest decimal.
        reference_price: what the decision saw, quote currency; the bar's close without it.
    """

    percent: Decimal | float | int | str
    reference_price: Decimal | None = None


Gives: TypeAlias = float | int | Target | None
ComputeFn: TypeAlias = Callable[[CacheView], Gives]
"""A compute function: of the view alone, a number or a target; None where it has nothing to say."""


@dataclass(frozen=True, slots=True)
class PythonParams:
    """The parameters of a Python node.

    Attributes:
        ports: what the function calls its inputs, by port.
        bars: how many bars it looks back on; 0 for no more than that of the bucket.
        params: the author's own, read only.
    """

    gives: str
    when: str
    ports: tuple[str, ...]
    bars: int
    params: Mapping[str, Any]
    period: int


class PythonRunning:
    """A node of one symbol while it runs. It satisfies `Running`; each step is O(1) beside the function.

    Args:
        interval: of the node, seconds.
    """

    __slots__ = ("_bars", "_function", "_params", "_rings", "_seen", "_sight", "_view", "_wants_all")

    def __init__(
        self, params: PythonParams, interval: int, function: ComputeFn, window: NodeWindow | None
    ) -> None:
        self._params = params
        self._function = function
        kept = () if window is None else window.ports
        self._rings = tuple(
            [
                Ring(params.period, kept[port] if port < len(kept) else None)
                for port in range(len(params.ports))
            ]
        )
        self._seen = 0 if window is None else window.seen
        self._bars: list[Bar] = [] if window is None or not params.bars else list(window.bars[-params.bars :])
        self._sight = Sight(params.bars)
        self._sight.bars = self._bars
        self._view = CacheView(params.ports, interval, self._rings, self._sight, params.params)
        self._wants_all = params.when == ALL

    def step(self, inputs: Inputs, bar: Bar) -> Output | None:
        """As `Running.step`: nothing until each port has seen `period` values and the node has its bars, and nothing where too few inputs
        have a value.

        Raises:
            ComputeFailed: the function raised, or gave what is no output of the node.
        """
        sight = self._sight
        bucket_ms = bar.open_time_ms + bar.interval * 1000
        is_ready = True
        is_whole = True
        for ring, value in zip(self._rings, inputs, strict=True):
            if value is None:
                is_whole = False
            else:
                ring.push(bucket_ms, value)
            is_ready = is_ready and ring.is_full
        self._seen += 1
        sight.move_to(bar, bucket_ms)
        kept = self._params.bars
        if kept:
            self._bars.append(bar)
            if len(self._bars) >= 2 * kept + 8:
                del self._bars[:-kept]
            is_ready = is_ready and len(self._bars) >= kept
        if not is_ready or (self._wants_all and not is_whole):
            return None
        return called(self._function, self._view, sight, self._params.gives)

    def basis(self, bar: Bar) -> bytes:
        """As `Running.basis`: of all that the view shows."""
        parts = [ring.digest() for ring in self._rings]
        kept = self._params.bars
        seen = self._bars[-kept:] if kept else [bar]
        hashed = blake3()
        for one in seen:
            hashed.update(_bar_bytes(one))
        return b"".join([_BUCKET(len(seen)), hashed.digest(), *parts])

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        kept = self._params.bars
        return NodeWindow(
            node_id,
            symbol,
            self._seen,
            ports=tuple([ring.to_window() for ring in self._rings]),
            bars=tuple(self._bars[-kept:]) if kept else (),
        )


@dataclass(frozen=True, slots=True)
class PythonNode:
    """A node type of which there are two: one that emits numbers, and one that emits position targets.

    Parameters: `gives`, `value` or `target`; `when`, `all` or `any`; `ports`, the names of its inputs for its function, one per port;
    `bars`, how many of them it looks back on; `params`, the author's own. The window is the node's `period`.
    """

    output: type[NodeValue] | type[PositionTarget]
    name: str = PYTHON
    version: str = "1"

    def parse(self, params: Mapping[str, object], period: int) -> PythonParams:
        """The checked parameters.

        Raises:
            InvalidParameter: the first of `refusals`.
        """
        refuse_first(self.refusals(params, period))
        own = cast(Mapping[str, Any], params["params"])
        return PythonParams(
            cast(str, params["gives"]),
            cast(str, params["when"]),
            tuple(cast("list[str]", params["ports"])),
            cast(int, params["bars"]),
            MappingProxyType({name: _plain(own[name]) for name in sorted(own)}),
            period,
        )

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        """All that is wrong with parameters."""
        yield from strangers(self.name, params, _KNOWN)
        yield from bad_period(self.name, period, least=1)
        if "gives" in params and params["gives"] not in GIVES:
            yield _refused("gives", params["gives"], "'value' or 'target' is required")
        if "when" in params and params["when"] not in WHEN:
            yield _refused("when", params["when"], "'all' or 'any' is required")
        if "params" in params and not isinstance(params["params"], Mapping):
            yield _refused("params", params["params"], "an object is required")
        ports, bars = params.get("ports"), params.get("bars")
        is_sized = "bars" in params and type(bars) is int and 0 <= bars <= MAX_SLOTS // 4
        if "bars" in params and not is_sized:
            yield _refused("bars", bars, f"a whole number from 0 to {MAX_SLOTS // 4} is required")
        if "ports" not in params:
            return
        if not isinstance(ports, list | tuple) or not ports or not all(map(is_name, ports)):
            yield _refused("ports", ports, f"a list of at least one name is required, where {NAME_RULE}")
        elif len(set(ports)) < len(ports):
            yield InvalidParameter(
                "ports of a python node held a name twice; each input has a name of its own.", "Rename one."
            )
        elif is_sized and type(period) is int and len(ports) * period + 4 * cast(int, bars) > MAX_SLOTS:
            yield InvalidParameter(
                f"the window of a python node was {len(ports)} ports of {period} and {bars} bars; ports * period + 4 * bars is at most {MAX_SLOTS}.",
                "Look back on less.",
            )


def _refused(name: str, value: object, rule: str) -> InvalidParameter:
    return InvalidParameter(
        f"{name} of a python node was {kind(value)}; {rule}.", "Write the message with qmtl's own SDK."
    )


def _plain(value: object) -> object:
    """A value of the message as a function gets it: nothing in it can be changed."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case float():
            return int(value) if value.is_integer() else value
        case Mapping():
            return MappingProxyType({str(key): _plain(value[key]) for key in sorted(value)})
        case list() | tuple():
            return tuple([_plain(one) for one in value])
        case _:
            return value


# ---- what a function gives ------------------------------------------------------------------------------------------

_ADDRESS: Final = re.compile("0x[0-9a-fA-F]+")
"""Where something lay in memory: another place in each process, so it is no part of a cause."""

_REPAIR: Final = "Repair the function and publish the strategy again: another function is another node."


def called(
    function: ComputeFn, view: CacheView, sight: Sight, gives: str
) -> float | PositionTargetValue | None:
    """What a function gives of a view, held to what its node gives.

    Args:
        sight: what the view shows.

    Raises:
        ComputeFailed: it raised, or gave something else.
    """
    try:
        found = function(view)
    except MemoryError:
        raise  # the machine's and not the function's: another one may have room
    except (Exception, SystemExit) as error:  # a function ends itself, never its worker
        at = raised_at(error, function)
        raise ComputeFailed(_raised(sight, error, at), _REPAIR, "" if at is None else at.in_file) from error
    if found is None:
        return None
    return _number(found, sight) if gives == VALUE else _target(found, sight)


def _number(found: object, sight: Sight) -> float:
    if type(found) is not float:
        if isinstance(found, bool) or not isinstance(found, float | int):
            raise _wrong(sight, _told(found), "a number or None is required")
        try:
            found = float(found)
        except OverflowError:
            found = float("inf")
    if not isfinite(found):
        raise _wrong(sight, f"the number {found}", "a finite one is required")
    return found


def _target(found: object, sight: Sight) -> PositionTargetValue:
    if not isinstance(found, Target):
        raise _wrong(sight, _told(found), "a Target or None is required of a node that gives targets")
    said = found.reference_price
    price = sight.close if said is None else _price(said, sight)
    share: object = found.percent
    rule = "its percent is a number from -1 to 1"
    if isinstance(share, bool) or not isinstance(share, Decimal | float | int | str):
        raise _wrong(sight, f"a target of {_told(share)}", rule)
    try:
        percent = _share(repr(float(share)) if isinstance(share, float) else str(share))
    except (InvalidValue, ValueError):  # of an integer that is too long Python makes no text
        raise _wrong(sight, f"a target of {_told(share)}", rule) from None
    if not -1 <= percent <= 1:
        raise _wrong(sight, f"a target of {_told(share)}", rule)
    return PositionTargetValue(percent, price)


@lru_cache(maxsize=4096)
def _share(shown: str) -> Decimal:
    return parse_decimal(shown, "percent")


def _price(said: object, sight: Sight) -> Decimal:
    try:
        price = checked(said, "reference_price") if isinstance(said, Decimal) else ZERO
    except InvalidValue:
        price = ZERO
    if price <= 0:
        rule = f"its price is a positive Decimal, of at most {MAX_DIGITS} digits and below 1e{MAX_POINT + 1}"
        raise _wrong(sight, f"a target at {_told(said)}", rule)
    return price


def _told(value: object) -> str:
    try:
        return kind(value)[:_SHOWN]
    except ValueError:  # of an integer that is too long Python makes no text
        return f"a {type(value).__name__}"


def _wrong(sight: Sight, was: str, rule: str) -> ComputeFailed:
    return ComputeFailed(
        f"it gave {was} for {sight.symbol} in the bucket {sight.bucket_ms}; {rule}.", _REPAIR
    )


def _raised(sight: Sight, error: BaseException, at: RaisedAt | None) -> str:
    try:
        said = f"{error.code}: {error.what}" if isinstance(error, QmtlError) else str(error)
    except Exception:  # an author's error may fail to say what it is
        said = "which can't be told"
    plain = _ADDRESS.sub("0x...", said)[:_SHOWN]
    shown = "".join(letter if letter.isprintable() else " " for letter in plain)
    where = "" if at is None else f", on {at.in_function}"
    return f"it raised {type(error).__name__} ({shown}) for {sight.symbol} in the bucket {sight.bucket_ms}{where}."


def _bar_bytes(bar: Bar) -> bytes:
    """The canonical bytes of a bar; its symbol and interval are the node's."""
    numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return "|".join([str(bar.open_time_ms), *map(text, numbers), ""]).encode()
