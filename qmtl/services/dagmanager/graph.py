"""From a DAG message to content-addressed nodes: order, identity, and everything that makes a graph refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes, canonical_json, parse_canonical_json
from qmtl.foundation.common.errors import (
    DagCycle,
    DuplicateName,
    InvalidDag,
    InvalidParameter,
    InvalidValue,
    MissingDependency,
    NodeIdMismatch,
    UnknownNodeType,
)
from qmtl.foundation.common.identity import (
    ARTIFACTS,
    DISPLAY_METADATA,
    content_id,
    functional_params,
    node_content,
    own_params,
    settle,
)
from qmtl.foundation.common.names import is_name
from qmtl.foundation.contracts.dag import Artifact, ComputeNode
from qmtl.runtime.indicators.builtin import Builtin
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, code_hash
from qmtl.runtime.indicators.tag_query import TagQueryParams
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO, PORTFOLIO_NODE, PortfolioNode
from qmtl.runtime.sdk.python_node import PYTHON, PythonNode
from qmtl.services.dagmanager.cycles import cycles
from qmtl.services.dagmanager.faults import Faults, spelled
from qmtl.services.dagmanager.feedback import check_own
from qmtl.services.dagmanager.kinds import COMPAT, SCHEMA, SCHEMAS, TYPES, NodeType, is_target, kind_of
from qmtl.services.dagmanager.message import DagMessage, DagNode, Draft, NodeRead, placed_artifacts, sound
from qmtl.services.dagmanager.placed import Placed, check_edges, place_nodes

_CODE: Final[Mapping[str, str]] = {
    **{name: code_hash(name) for name in BUILTINS},
    PORTFOLIO: PORTFOLIO_NODE.code_hash,
}

Held = Callable[[str], ComputeNode | None]
"""The node that an id stands for, `None` if it is free."""


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node as a message has it.

    Attributes:
        node: the one that exists, if it does.
        schema_hash: of its messages' schema from now on, that of the running code.
        code: where its author says that its function is.
    """

    name: str
    node: ComputeNode
    schema_hash: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Collision:
    """A node that could not have its own id: something for the audit.

    Attributes:
        held: the ids that other content holds.
    """

    node_id: str
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A strategy's graph: inputs before the nodes that read them; `signals` and `node_ids` in the message's order.

    Attributes:
        release_tag: what people call the release; a part of no id and no hash.
    """

    strategy_id: str
    version: str
    nodes: tuple[GraphNode, ...]
    signals: tuple[str, ...]
    commit_hash: str
    collisions: tuple[Collision, ...] = ()
    release_tag: str = ""
    artifacts: tuple[Artifact, ...] = ()


def nobody(node_id: str) -> ComputeNode | None:
    """No node exists yet."""
    return None


def resolve(message: DagMessage, at_ms: int, held: Held = nobody) -> Graph:
    """Check a message and give every node its identity.

    Args:
        held: the nodes that exist, which decide where an id is taken by other content.

    Raises:
        InvalidDag: with every reason; as one of its kinds where all reasons are of it: a name twice, an unknown type, a missing
            input, a cycle, a wrong number of inputs, intervals that differ along an edge, a parameter out of its rule, an id or
            hash that does not fit its content.
    """
    draft = Draft(
        message.strategy_id,
        message.meta,
        [sound(f"nodes[{place}]", one) for place, one in enumerate(message.nodes)],
        tuple(enumerate(message.signals)),
        {one.name for one in message.nodes},
        placed_artifacts(message.artifacts),
    )
    return resolve_draft(draft, at_ms, held, Faults())


def resolve_draft(draft: Draft, at_ms: int, held: Held, faults: Faults) -> Graph:
    """As `resolve`, for as much of a message as could be read; what was wrong with the rest is in `faults` already.

    Each thing is asked of all nodes that have what it takes to answer, sound or not: a fault does not hide another one, save those that
    may be gone with it.

    Raises:
        InvalidDag: any reason in `faults`, found here or before.
    """
    placed = place_nodes(draft.nodes, faults)
    check_edges(placed, draft.names or (), faults)
    artifacts, files = _artifacts(draft, faults)
    alone = {
        key: found
        for key, one in placed.nodes.items()
        if (found := check_alone(one, faults, files)) is not None
    }
    inputs = {key: placed.reads(one) for key, one in placed.nodes.items()}
    resolved = _Resolved(held, at_ms, faults)
    for key in _in_order(placed, inputs, faults):
        one, reads = placed.nodes[key], inputs[key]
        if key in alone and placed.are_all(one, reads) and resolved.done.keys() >= set(reads):
            resolved.add(key, one, alone[key], reads)
    _check_signals(draft, placed, faults)
    check_own(draft, faults)
    faults.refuse_any()
    done = resolved.done
    signals = tuple(done[name].node.node_id for _, name in draft.signals)
    commit = commit_hash([one.node.node_id for one in done.values()], signals, draft.meta.version)
    nodes = tuple(done.values())
    return Graph(
        draft.strategy_id,
        draft.meta.version,
        nodes,
        signals,
        commit,
        tuple(resolved.collisions.values()),
        draft.meta.release_tag or "",
        artifacts,
    )


def commit_hash(node_ids: Iterable[str], signals: Sequence[str], version: str) -> str:
    """What a version of a strategy consists of, in whatever order its nodes were sent."""
    return blake3_hex(canonical_bytes({"nodes": sorted(node_ids), "signals": signals, "version": version}))


@dataclass(frozen=True, slots=True)
class Alone:
    """A node as far as its inputs have no say.

    Attributes:
        params: the functional ones.
        canon: their canonical JSON.
    """

    node: DagNode
    params: Mapping[str, Any]
    canon: str

    @property
    def kind(self) -> str:
        return kind_of(self.node.node_type, self.node.params)

    @property
    def code_hash(self) -> str:
        """A built-in has that of its type whatever its author says; a Python node has said it."""
        return _CODE.get(self.node.node_type) or self.node.code_hash or ""

    def row(self, node_id: str, dependencies: tuple[str, ...], at_ms: int) -> ComputeNode:
        node, kind = self.node, self.kind
        return ComputeNode(
            node_id,
            node.node_type,
            node.interval,
            node.period,
            self.code_hash,
            COMPAT[kind],
            self.canon,
            dependencies,
            tuple(sorted(set(node.tags))),
            at_ms,
            schema_hash=SCHEMA[kind],
            code=node.code or "",
        )


_UNTOLD: Final = ""


@dataclass(frozen=True, slots=True)
class Files:
    """What nodes may call the artifacts of a message.

    Attributes:
        checksums: by names and checksums; `_UNTOLD` where nobody can tell.
        unsound: the fields by which one that could not be read may be called.
    """

    checksums: Mapping[str, str]
    unsound: Collection[str]

    def has_none(self, called: str) -> bool:
        """Whether no artifact is called so, nor may have been meant to be."""
        return (
            called not in self.checksums and ("name" if is_name(called) else "checksum") not in self.unsound
        )


def _artifacts(draft: Draft, faults: Faults) -> tuple[tuple[Artifact, ...], Files | None]:
    """The artifacts of a message, and what nodes may call them; `None` if they could not be read."""
    files: dict[str, str] = {}
    unsound: set[str] = set()
    sizes: dict[str, int] = {}
    named: set[str] = set()
    out = []
    for read in draft.artifacts or ():
        path, one = read.path, read.artifact
        is_file = "checksum" not in read.unsound
        unsound.update(read.unsound)
        if one.name is not None and one.name in named:
            rule = "each artifact has a name of its own"
            faults.add(DuplicateName, f"{path}.name", one.name, rule, "Rename one of them.")
            files[one.name] = _UNTOLD
        elif one.name is not None:
            named.add(one.name)
        if is_file and "size" not in read.unsound and sizes.setdefault(one.checksum, one.size) != one.size:
            rule = f"an artifact with the same checksum has {sizes[one.checksum]} bytes"
            faults.add(InvalidDag, f"{path}.size", one.size, rule, "Compute its checksum again.")
        if is_file:
            files[one.checksum] = one.checksum
        for called in read.names:
            files.setdefault(called, one.checksum if is_file else _UNTOLD)
        out.append(Artifact(one.checksum, one.path, one.size, one.framework or "", one.dtype or ""))
    return tuple(out), None if draft.artifacts is None else Files(files, unsound)


def _used(one: NodeRead, files: Files | None, faults: Faults) -> list[str] | None:
    """The checksums of the artifacts that a node names, sorted; `None` if they can't be told."""
    node, path = one.node, one.path
    is_told = ARTIFACTS not in one.unsound
    if ARTIFACTS in node.params:
        rule = "a node names its artifacts beside its parameters"
        faults.add_told(InvalidParameter, f"{path}.params.{ARTIFACTS}", "there", rule, "Leave it out.")
        is_told = False
    if not node.artifacts:
        return [] if is_told else None
    if files is None:
        return None
    for place, name in enumerate(node.artifacts):
        where = f"{path}.{ARTIFACTS}[{place}]"
        if files.has_none(name) and where not in one.told:
            rule = "it is no artifact of the message"
            faults.add(MissingDependency, where, name, rule, "Add the artifact, or name another.")
    found = {files.checksums.get(name, _UNTOLD) for name in node.artifacts}
    return sorted(found) if is_told and _UNTOLD not in found else None


_OWN_CONTENT: Final = frozenset({"node_type", "interval", "period", "params"})
"""Fields that are hashed as they are said."""


def check_alone(one: NodeRead, faults: Faults, files: Files | None = None) -> Alone | None:
    """What can be said of a node without its inputs, if its content is sound so far.

    Args:
        files: what a node may call artifacts; `None` if they are not known.
    """
    node, unsound = one.node, one.unsound
    builtin = TYPES.get(kind_of(node.node_type, {} if "params" in unsound else node.params))
    if isinstance(builtin, PythonNode):
        _check_python(one, faults)
    elif builtin is not None:
        _check_claims(one, builtin, faults)
    elif "node_type" not in unsound:
        faults.add(
            UnknownNodeType,
            f"{one.path}.node_type",
            node.node_type,
            "no node type has that name",
            f"Built in are {', '.join(sorted(_CODE))}; a function of one's own is a {PYTHON} node.",
        )
    found = _params(one, builtin, faults)
    used = _used(one, files, faults)
    if builtin is None or found is None or used is None or not _OWN_CONTENT.isdisjoint(unsound):
        return None
    if isinstance(builtin, PythonNode) and (node.code_hash is None or "code_hash" in unsound):
        return None  # told of before
    params, canon = found
    if used:
        params[ARTIFACTS] = used
        canon = canonical_json(params)
    return Alone(node, params, canon)


def _check_claims(one: NodeRead, builtin: Builtin | PortfolioNode, faults: Faults) -> None:
    """Hold what a node says of its type to what the type is."""
    node, path = one.node, one.path
    if one.inputs is not None and len(one.inputs) != builtin.ports:
        faults.add_told(
            InvalidDag,
            f"{path}.inputs",
            f"{len(one.inputs)} inputs",
            f"a node of type {node.node_type!r} takes {builtin.ports}",
            "Give one node per port, in the order of the ports.",
        )
    if node.code is not None:
        faults.add(
            InvalidDag,
            f"{path}.code",
            node.code,
            f"the built-in {node.node_type!r} is a part of QMTL",
            "Leave it out.",
        )
    expected = _CODE[node.node_type]
    if node.code_hash is not None and node.code_hash != expected:
        faults.add_told(
            NodeIdMismatch,
            f"{path}.code_hash",
            node.code_hash,
            f"the built-in {node.node_type!r} has {expected}",
            "Leave it out, or publish with the version that computed it.",
        )
    _check_wire(one, node.node_type, faults)


def _check_python(one: NodeRead, faults: Faults) -> None:
    """Hold what a Python node says of itself together: which function it is and where, and how many inputs it has names for."""
    node, path = one.node, one.path
    for name, said in (("code", node.code), ("code_hash", node.code_hash)):
        if said is None and name not in one.unsound:
            faults.add_told(
                InvalidDag,
                f"{path}.{name}",
                "missing",
                f"a {PYTHON} node says which function it runs, and where it is",
                "Write the message with qmtl's own SDK.",
            )
    ports = None if "params" in one.unsound else node.params.get("ports")
    if one.inputs is not None and isinstance(ports, list) and len(ports) != len(one.inputs):
        faults.add_told(
            InvalidDag,
            f"{path}.inputs",
            f"{len(one.inputs)} inputs",
            f"its params name {len(ports)} ports, and each input is one",
            "Give one node per port, in the order of the ports.",
        )
    if "params" not in one.unsound:
        _check_wire(one, kind_of(node.node_type, node.params), faults)


def _check_wire(one: NodeRead, kind: str, faults: Faults) -> None:
    """Hold what a node says of its messages to what they are."""
    node, path = one.node, one.path
    what = f"{'' if node.node_type == PYTHON else 'built-in '}{node.node_type!r}"
    compat = COMPAT[kind]
    if node.schema_compat_id not in (None, compat):
        faults.add(
            NodeIdMismatch,
            f"{path}.schema_compat_id",
            node.schema_compat_id,
            f"the messages of the {what} have {compat}",
            "Leave it out, or publish with the version that writes the other format.",
        )
    if node.schema_hash is not None and node.schema_hash not in SCHEMAS[kind]:
        faults.add_told(
            NodeIdMismatch,
            f"{path}.schema_hash",
            f"the text {node.schema_hash!r}",
            f"no version of the messages of the {what} has it; today's has {SCHEMA[kind]}",
            "Leave it out, or publish to a version of QMTL that knows it.",
        )


def _params(one: NodeRead, builtin: NodeType | None, faults: Faults) -> tuple[dict[str, Any], str] | None:
    """The functional parameters of a node and their canonical JSON, if they are sound; where no type is known, what no type may have is
    told."""
    if "params" in one.unsound:
        return None
    node = one.node
    wrong: list[InvalidDag | InvalidValue] = []
    try:
        params = functional_params(node.params)
    except InvalidParameter:
        _tell_params(one, [*_tied(one, builtin)], faults)
        return None
    if builtin is not None:
        own = own_params(params)
        try:
            parsed = builtin.parse(own, node.period)
            if node.node_type == SOURCE:
                params["symbols"] = sorted(params["symbols"])  # a source is what it reads, in whatever order
            if isinstance(parsed, TagQueryParams):
                if "interval" not in one.unsound:
                    parsed.require_interval(node.interval)
                params["query_tags"] = list(parsed.query_tags)  # and a query what it asks for
        except (InvalidDag, InvalidValue) as refused:
            wrong += [*builtin.refusals(own, node.period)] or [refused]
    canon = ""
    try:
        canon = canonical_json(params)
    except InvalidValue as refused:
        wrong.append(refused)
    if wrong:
        _tell_params(one, wrong, faults)
        return None
    return params, canon


def _tell_params(one: NodeRead, wrong: Iterable[InvalidDag | InvalidValue], faults: Faults) -> None:
    for error in wrong:
        kind = type(error) if isinstance(error, InvalidDag) else InvalidParameter
        head, _, rule = error.what.rstrip(".").partition("; ")
        faults.add_told(kind, f"{one.path}.params", f"wrong ({head})", rule, error.remedy)


def _tied(one: NodeRead, builtin: NodeType | None) -> Iterator[InvalidParameter]:
    """What is wrong with parameters among which some may be none of any node, each of these once: its type is asked about the others."""
    sound: dict[str, Any] = {}
    for name, value in one.node.params.items():
        try:
            sound |= functional_params({name: value})
        except InvalidParameter as refused:
            yield refused
    if builtin is not None:
        every = {name: value for name, value in one.node.params.items() if name not in DISPLAY_METADATA}
        beside_them = {other.what for other in builtin.refusals(own_params(every), one.node.period)}
        for other in builtin.refusals(own_params(sound), one.node.period):
            if other.what in beside_them:
                yield other


def _check_signals(draft: Draft, placed: Placed, faults: Faults) -> None:
    seen: set[str] = set()
    for place, name in draft.signals:
        path = f"signals[{place}]"
        if name in seen:
            faults.add(DuplicateName, path, name, "a node gives a signal once", "Name it once.")
        elif draft.names is not None and name not in draft.names:
            faults.add(
                MissingDependency, path, name, "it is no node of the message", "Name one of its nodes."
            )
        elif not any(map(is_target, placed.kinds_of(name))):
            faults.add_told(
                InvalidDag,
                path,
                f"{spelled(name)} of type {spelled(placed.nodes[name].node.node_type)}",
                "a signal is a position target",
                "Let a position_target node end the strategy.",
            )
        seen.add(name)


def _in_order(placed: Placed, inputs: Mapping[str, Sequence[str]], faults: Faults) -> list[str]:
    """As `in_order`; tells of the cycles."""
    nodes = placed.nodes
    out = in_order(inputs)
    if len(out) < len(nodes):
        free = set(out)
        stuck = {
            key: [read for read in reads if read not in free]
            for key, reads in inputs.items()
            if key not in free
        }
        for cycle in cycles(stuck):
            names = [nodes[key].name or "" if is_name(key) else nodes[key].shown for key in cycle[:10]]
            shown = " -> ".join(names) + (f" -> ... {len(cycle) - 10} more" if len(cycle) > 10 else "")
            faults.add_told(
                DagCycle,
                f"{nodes[cycle[0]].path}.inputs",
                f"a part of the cycle {shown} -> {names[0]}",
                "a graph has none",
                "Express feedback as a lagged input.",
            )
    return out


def in_order(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """The message's order, if inputs come first in it; else that of Kahn's algorithm (1962), where among nodes that are free at the same
    time the message's order decides. What is in a cycle or reads from one is left out."""
    seen: set[str] = set()
    for name, reads in inputs.items():
        if not seen.issuperset(reads):
            break
        seen.add(name)
    else:
        return list(inputs)
    left = {}
    readers: dict[str, list[str]] = {}
    out = []
    for name, reads in inputs.items():
        if reads:
            left[name] = len(reads)
            for read in reads:
                readers.setdefault(read, []).append(name)
        else:
            out.append(name)
    for name in out:  # grows while it is read
        for reader in readers.get(name, ()):
            left[reader] -= 1
            if not left[reader]:
                out.append(reader)
    return out


class _Resolved:
    """Nodes with their ids, in an order in which inputs come first. A node that is faulty, or reads one, gets none."""

    def __init__(self, held: Held, at_ms: int, faults: Faults) -> None:
        self.done: dict[str, GraphNode] = {}
        self.collisions: dict[str, Collision] = {}
        self._held = held
        self._contents: dict[str, bytes] = {}
        self._existing: dict[str, ComputeNode] = {}
        self._at_ms = at_ms
        self._faults = faults

    def add(self, key: str, one: NodeRead, alone: Alone, reads: Sequence[str]) -> None:
        node, kind = one.node, alone.kind
        dependencies = tuple(self.done[read].node.node_id for read in reads)
        content = node_content(
            node.node_type,
            node.interval,
            node.period,
            alone.params,
            dependencies,
            COMPAT[kind],
            alone.code_hash,
        )
        settled = settle(content, self._content_of)
        if node.node_id is not None and node.node_id not in (settled.node_id, content_id(content)):
            self._faults.add_told(
                NodeIdMismatch,
                f"{one.path}.node_id",
                node.node_id,
                f"the content of {one.shown} gives {settled.node_id}",
                "Leave node_id out.",
            )
        if settled.collided:
            self.collisions[settled.node_id] = Collision(settled.node_id, settled.collided)
        self._contents[settled.node_id] = content
        known = self._existing.get(settled.node_id)
        row = known or alone.row(settled.node_id, dependencies, self._at_ms)
        self.done[key] = GraphNode(node.name, row, SCHEMA[kind], node.code or "")

    def _content_of(self, node_id: str) -> bytes | None:
        """What an id stands for, among the nodes that exist and those of this very message."""
        content = self._contents.get(node_id)
        if content is not None:
            return content
        known = self._held(node_id)
        if known is None:
            return None
        self._existing[node_id] = known
        return content_of(known)


def content_of(node: ComputeNode) -> bytes:
    """The content of a node that exists, from its row.

    Raises:
        NoCanonicalForm, InvalidDag: the row is damaged.
    """
    return node_content(
        node.node_type,
        node.interval,
        node.period,
        parse_canonical_json(node.params_canon),
        node.dependencies,
        node.schema_compat_id,
        node.code_hash,
    )
