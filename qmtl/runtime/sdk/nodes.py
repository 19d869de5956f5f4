"""The nodes of a strategy, as its author writes them: values that say what is computed, and compute nothing themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qmtl.foundation.common.canonical import canonical_json
from qmtl.foundation.common.code_identity import function_hash
from qmtl.foundation.common.errors import (
    InvalidDag,
    InvalidStrategy,
    InvalidValue,
    NoCanonicalForm,
    QmtlError,
)
from qmtl.foundation.common.identity import functional_params, tag_query_params
from qmtl.foundation.common.names import MAX_NAME, MAX_TAG, NAME_RULE, is_name
from qmtl.foundation.contracts.node import NodeValue, PositionTarget
from qmtl.runtime.indicators.builtin import kind
from qmtl.runtime.indicators.registry import SOURCE, TAG_QUERY, builtin
from qmtl.runtime.sdk.functions import CODE_RULE, MAX_CODE, code_path
from qmtl.runtime.sdk.portfolio_node import FIELDS, LAG, PORTFOLIO, PORTFOLIO_NODE, STRATEGY
from qmtl.runtime.sdk.purity import require_compute_fn
from qmtl.runtime.sdk.python_node import ALL, PYTHON, TARGET, VALUE, ComputeFn, PythonNode

MAX_INTERVAL_S: Final = 86_400
MAX_PERIOD: Final = 10_000
MAX_TAGS: Final = 100
MAX_INPUTS: Final = 1_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, init=False)
class Node:
    """What all nodes have. Two are one for the system if they compute the same, whatever they are called.

    Attributes:
        name: in its strategy; without one it is named after what it computes.
        interval: seconds; without one that of its inputs, or the strategy's.
        period: how many values of each input it looks back on; without one 1, or the strategy's where it reads others.
        tags: what tag queries find it by.
    """

    name: str | None = None
    interval: int | None = None
    period: int | None = None
    tags: tuple[str, ...] = ()

    @property
    def node_type(self) -> str:
        """Its type in a message."""
        return ""

    @property
    def inputs(self) -> tuple[Node, ...]:
        """What it reads, by port."""
        return ()

    @property
    def called(self) -> str:
        """What an error calls it."""
        return self.name or self.stem

    @property
    def stem(self) -> str:
        """What it is named after if it has no name."""
        return self.node_type

    @property
    def gives_targets(self) -> bool:
        """Whether it can be a signal."""
        return False

    def params_of(self, interval: int) -> dict[str, Any]:
        """Its parameters in a message, once its interval is known."""
        return {}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, init=False)
class StreamInput(Node):
    """A source: the bars of some symbols. Its value is the close.

    Two sources are one if they read the same symbols at the same interval; tags say what tag queries find it by, and choose no data.

    Args:
        preset: not taken: there is no prepared choice of data that a name could stand for.

    Raises:
        InvalidStrategy: no symbols, or what no node may have.
    """

    symbols: tuple[str, ...] = ()

    def __init__(
        self,
        symbols: Iterable[str] = (),
        tags: Iterable[str] = (),
        interval: int | str | None = None,
        period: int | None = None,
        name: str | None = None,
        preset: str | None = None,
    ) -> None:
        _begin(self, name, interval, period, tags)
        if preset is not None:
            raise InvalidStrategy(
                f"preset of the StreamInput {self.called!r} was {kind(preset)}; there is no preset of that name, nor any other.",
                "Leave it out, and name what it reads with symbols=.",
            )
        chosen = tuple(symbols) if not isinstance(symbols, str) else (symbols,)
        if not chosen:
            raise InvalidStrategy(
                f"symbols of the StreamInput {self.called!r} was empty; a source reads at least one symbol.",
                "Name them, such as symbols=['BTC-USD']; data that others compute is found by its tags with a TagQueryNode.",
            )
        object.__setattr__(self, "symbols", chosen)
        _require_builtin(self, {"symbols": list(chosen)}, self.period or 1)

    @property
    def node_type(self) -> str:
        return SOURCE

    def params_of(self, interval: int) -> dict[str, Any]:
        return {"symbols": sorted(self.symbols)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, init=False)
class BuiltinNode(Node):
    """A node of a built-in type, as `qmtl.runtime.sdk.builtins` makes them."""

    kind: str = ""
    reads: tuple[Node, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        kind: str,
        reads: Sequence[Node],
        *,
        params: Mapping[str, Any] | None = None,
        name: str | None = None,
        interval: int | str | None = None,
        period: int | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        found = builtin(kind)  # raises of a type that is none
        object.__setattr__(self, "kind", kind)
        _begin(self, name, interval, period, tags)
        object.__setattr__(self, "reads", _nodes(self, reads))
        object.__setattr__(self, "params", dict(params or {}))
        if kind in (SOURCE, TAG_QUERY):
            maker = "StreamInput" if kind == SOURCE else "TagQueryNode"
            raise InvalidStrategy(
                f"the node {self.called!r} was made as a {kind}; it has a class of its own.", f"Use {maker}."
            )
        if len(self.reads) != found.ports:
            raise InvalidStrategy(
                f"the node {self.called!r} was given {len(self.reads)} inputs; a {kind} node takes {found.ports}.",
                "Give one node per port.",
            )
        _require_builtin(self, self.params, self.period or 1)

    @property
    def node_type(self) -> str:
        return self.kind

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.reads

    @property
    def stem(self) -> str:
        return self.kind if self.period is None else f"{self.kind}_{self.period}"

    @property
    def gives_targets(self) -> bool:
        return builtin(self.kind).output is PositionTarget

    def params_of(self, interval: int) -> dict[str, Any]:
        return dict(self.params)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, init=False)
class ProcessingNode(Node):
    """A node whose function its author wrote.

    The function is called once per symbol and bucket with a `CacheView`, once every input has given `period` values, and gives a number, a
    `Target` (with `gives="target"`), or None for nothing. It is published by import path and hash, so it is written with `def` at the top of a
    module, and what it gives follows from its view alone.

    Args:
        input: a node, nodes by port, or nodes by the names that the function calls them. Without such names it calls them as they are named.
        when: `all`: it is called in buckets in which all inputs have a value; `any`: in which one has.
        bars: how many of the symbol's bars `view.bars` reaches back to.
        params: what the function is told besides, as `view.params`: JSON.
        gives: `value` or `target`; the nodes of a strategy that give targets are its signals.
        lag: 0, or left out: what is read back is read by a `PortfolioInput`, which says how late.

    Raises:
        InvalidStrategy: names the node, what was wrong and what to do.
        ImpureFunction: the function names the clock, chance or what can change outside of it.
        NoCanonicalForm: the function has no hash.
    """

    compute_fn: ComputeFn
    reads: tuple[Node, ...] = ()
    labels: tuple[str, ...] | None = None
    code_hash: str = ""
    when: str = ALL
    gives: str = VALUE
    bars: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        input: Node | Sequence[Node] | Mapping[str, Node],
        compute_fn: ComputeFn,
        name: str | None = None,
        interval: int | str | None = None,
        period: int | None = None,
        tags: Iterable[str] = (),
        params: Mapping[str, Any] | None = None,
        *,
        when: str = ALL,
        gives: str = VALUE,
        bars: int = 0,
        lag: int = 0,
    ) -> None:
        object.__setattr__(self, "compute_fn", compute_fn)
        _begin(self, name, interval, period, tags)
        labels = tuple(input) if isinstance(input, Mapping) else None
        read = tuple(input.values()) if isinstance(input, Mapping) else input
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "reads", _nodes(self, read))
        if not self.reads:
            raise InvalidStrategy(
                f"input of the node {self.called!r} was empty; it reads at least one node.", "Give it one."
            )
        if lag != 0:
            raise InvalidStrategy(
                f"lag of the node {self.called!r} was {lag!r}; a function sees its inputs as they are in its own bucket, so 0 is the only one.",
                f"Leave it out, and read the portfolio with PortfolioInput(node, field=…, lag={LAG}).",
            )
        require_compute_fn(compute_fn, self.called)
        code = code_path(compute_fn)
        if len(code) > MAX_CODE or not code.isascii():
            raise InvalidStrategy(
                f"the path of compute_fn of the node {self.called!r} was {code[:80]!a}; {CODE_RULE}.",
                "Rename it.",
            )
        object.__setattr__(self, "code_hash", _hash_of(self, compute_fn))
        object.__setattr__(self, "when", when)
        object.__setattr__(self, "gives", gives)
        object.__setattr__(self, "bars", bars)
        object.__setattr__(self, "params", dict(params or {}))
        _require_params(self, self._params(labels or tuple(f"port{port}" for port in range(len(self.reads)))))

    @property
    def node_type(self) -> str:
        return PYTHON

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.reads

    @property
    def stem(self) -> str:
        return getattr(self.compute_fn, "__name__", PYTHON)

    @property
    def gives_targets(self) -> bool:
        return self.gives == TARGET

    def _params(self, ports: Sequence[str]) -> dict[str, Any]:
        return {
            "gives": self.gives,
            "when": self.when,
            "ports": list(ports),
            "bars": self.bars,
            "params": dict(self.params),
        }

    def params_with(self, names: Sequence[str]) -> dict[str, Any]:
        """Its parameters in a message, where its inputs have these names."""
        return self._params(self.labels or names)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, init=False)
class TagQueryNode(Node):
    """A node that reads whatever nodes have some tags, of all strategies, and gives one number out of theirs.

    Which nodes these are is asked of the graph while it runs, and is no part of what it is.

    Args:
        match_mode: `any` or `all` of the tags.
        aggregate: what becomes of their values: mean, sum, min, max, median or count.
        compute_fn: not taken: give the query to a `ProcessingNode`.

    Raises:
        InvalidStrategy: names the node, what was wrong and what to do.
    """

    query_tags: tuple[str, ...] = ()
    match_mode: str = "any"
    aggregate: str = "mean"

    def __init__(
        self,
        query_tags: Iterable[str],
        interval: int | str | None = None,
        period: int | None = None,
        match_mode: str = "any",
        compute_fn: ComputeFn | None = None,
        name: str | None = None,
        tags: Iterable[str] = (),
        *,
        aggregate: str = "mean",
    ) -> None:
        _begin(self, name, interval, period, tags)
        if compute_fn is not None:
            raise InvalidStrategy(
                f"compute_fn of the TagQueryNode {self.called!r} was given; a query gives one number out of those that answer it.",
                "Read the query with a ProcessingNode that has the function.",
            )
        asked = (query_tags,) if isinstance(query_tags, str) else tuple(query_tags)
        object.__setattr__(self, "query_tags", asked)
        object.__setattr__(self, "match_mode", match_mode)
        object.__setattr__(self, "aggregate", aggregate)
        try:
            params = self.params_of(self.interval or 1)
        except QmtlError as refused:
            raise _of(self, refused) from None
        _require_builtin(self, params, self.period or 1)

    @property
    def node_type(self) -> str:
        return TAG_QUERY

    def params_of(self, interval: int) -> dict[str, Any]:
        return {**tag_query_params(self.query_tags, self.match_mode, interval), "aggregate": self.aggregate}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, init=False)
class PortfolioInput(Node):
    """A node that reads the portfolio back: in each bucket what the bucket before has left, never what is traded in its own.

    It has a value for each symbol of which `input` has one: of the position in that symbol, or of the account, the same for all of them.

    Args:
        input: whose symbols and buckets are its own; a source, for most.
        field: of the position `quantity`, `cost`, `average_cost`, `realised`, `unrealised`, `fees`; of the account `cash`, `equity`,
            `exposure`, `account_realised`, `account_unrealised`, `account_fees`.
        lag: how many buckets late it is read. It has to be said, and is 1.
        scope: `strategy`, the strategy's own, or `world`: that of all strategies of its world together.

    Raises:
        InvalidStrategy: names the node, what was wrong and what to do.
    """

    field: str = ""
    lag: int = LAG
    scope: str = STRATEGY
    reads: tuple[Node, ...] = ()

    def __init__(
        self,
        input: Node,
        field: str = "quantity",
        *,
        lag: int | None = None,
        scope: str = STRATEGY,
        name: str | None = None,
        interval: int | str | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        object.__setattr__(self, "field", field)
        object.__setattr__(self, "scope", scope)
        _begin(self, name, interval, 1, tags)
        object.__setattr__(self, "reads", _nodes(self, input))
        if len(self.reads) != 1:
            raise InvalidStrategy(
                f"input of the PortfolioInput {self.called!r} was {len(self.reads)} nodes; it takes the symbols of one.",
                "Give it one node, such as a StreamInput.",
            )
        said = {} if lag is None else {"lag": lag}
        params = {
            "field": field,
            "scope": scope,
            **said,
            **({"strategy_id": "_"} if scope == STRATEGY else {}),
        }
        try:
            canonical_json(params)
            PORTFOLIO_NODE.parse(params, 1)
        except (InvalidDag, InvalidValue) as refused:
            raise _of(self, refused) from None
        object.__setattr__(self, "lag", lag)

    @property
    def node_type(self) -> str:
        return PORTFOLIO

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.reads

    @property
    def stem(self) -> str:
        return f"{PORTFOLIO}_{self.field}" if self.field in FIELDS else PORTFOLIO

    def params_in(self, strategy_id: str) -> dict[str, Any]:
        """Its parameters in a message of this strategy: what is its own is nobody else's."""
        own = {"strategy_id": strategy_id} if self.scope == STRATEGY else {}
        return {"field": self.field, "scope": self.scope, "lag": self.lag, **own}


# ---- what every node is held to -------------------------------------------------------------------------------------


def interval_of(value: object, whose: str) -> int:
    """Seconds, of a whole number of them or a text such as `1m`.

    Raises:
        InvalidStrategy: anything else, or out of 1 to 86400.
    """
    seconds = value
    if (
        isinstance(value, str)
        and value[:-1].isascii()
        and value[:-1].isdecimal()
        and value[-1:] in _UNITS
        and len(value) < 12
    ):
        seconds = int(value[:-1]) * _UNITS[value[-1]]
    if type(seconds) is not int or not 1 <= seconds <= MAX_INTERVAL_S:
        raise InvalidStrategy(
            f"interval of {whose} was {kind(value)}; whole seconds from 1 to {MAX_INTERVAL_S} are required, as a number or a text such as '1m'.",
            "Send seconds.",
        )
    return seconds


def period_of(value: object, whose: str) -> int:
    """A period.

    Raises:
        InvalidStrategy: no whole number from 1 to 10000.
    """
    if type(value) is not int or not 1 <= value <= MAX_PERIOD:
        raise InvalidStrategy(
            f"period of {whose} was {kind(value)}; a whole number from 1 to {MAX_PERIOD} is required.",
            "Send how many values of its inputs the node looks back on.",
        )
    return value


def _begin(
    node: Node, name: str | None, interval: int | str | None, period: int | None, tags: Iterable[str]
) -> None:
    for field_name, value in (("name", name), ("interval", None), ("period", None), ("tags", ())):
        object.__setattr__(node, field_name, value)
    if name is not None and not is_name(name):
        object.__setattr__(node, "name", None)
        raise InvalidStrategy(
            f"the name of a node {node.stem!r} was {kind(name)}; {NAME_RULE}, {MAX_NAME} at most.",
            "Rename it.",
        )
    whose = f"the node {node.called!r}"
    object.__setattr__(node, "interval", None if interval is None else interval_of(interval, whose))
    object.__setattr__(node, "period", None if period is None else period_of(period, whose))
    found = (tags,) if isinstance(tags, str) else tuple(tags)
    if len(found) > MAX_TAGS or not all(is_name(tag, MAX_TAG) for tag in found):
        raise InvalidStrategy(
            f"tags of {whose} were {found!a:.80}; up to {MAX_TAGS} texts are allowed, where {NAME_RULE}, {MAX_TAG} at most.",
            "Rename them.",
        )
    object.__setattr__(node, "tags", tuple(sorted(set(found))))


def _nodes(node: Node, read: object) -> tuple[Node, ...]:
    found = (read,) if isinstance(read, Node) else tuple(read) if isinstance(read, Iterable) else (read,)
    for one in found:
        if not isinstance(one, Node):
            raise InvalidStrategy(
                f"an input of the node {node.called!r} was {kind(one)}; a node is required.",
                "Give the node itself, such as a StreamInput.",
            )
    if len(found) > MAX_INPUTS:
        raise InvalidStrategy(
            f"the node {node.called!r} was given {len(found)} inputs; at most {MAX_INPUTS} are allowed.",
            "Read fewer.",
        )
    return found


def _require_builtin(node: Node, params: Mapping[str, Any], period: int) -> None:
    """Hold parameters to those of their type, with the name of the node."""
    try:
        canonical_json(params)
        builtin(node.node_type).parse(functional_params(params), period)
    except (InvalidDag, InvalidValue) as refused:
        raise _of(node, refused) from None


def _require_params(node: ProcessingNode, params: Mapping[str, Any]) -> None:
    try:
        canonical_json(params)
        PythonNode(NodeValue).parse(functional_params(params), node.period or 1)
    except (InvalidDag, InvalidValue) as refused:
        raise _of(node, refused) from None


def _hash_of(node: ProcessingNode, function: ComputeFn) -> str:
    try:
        return function_hash(function)
    except NoCanonicalForm as refused:
        raise NoCanonicalForm(
            f"compute_fn of the node {node.called!r} can't be told: {refused.what}", refused.remedy
        ) from None


def _of(node: Node, refused: QmtlError) -> InvalidStrategy:
    return InvalidStrategy(f"the node {node.called!r} was refused: {refused.what}", refused.remedy)
