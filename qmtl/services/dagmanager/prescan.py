"""Admission of messages whose nodes were mostly sent before: what a text says is looked up, and comes to what it always came to."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from operator import attrgetter
from sys import getsizeof, intern
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import msgspec

from qmtl.foundation.common.canonical import parse_canonical_json
from qmtl.foundation.common.evolving import opened
from qmtl.foundation.common.identity import NodeForm, checked_form, content_id
from qmtl.foundation.contracts.dag import ComputeNode, Queue
from qmtl.foundation.contracts.diff import MappedNode, NodeOrigin
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.faults import Faults
from qmtl.services.dagmanager.feedback import reads_portfolio
from qmtl.services.dagmanager.graph import (
    Graph,
    GraphNode,
    Held,
    check_alone,
    commit_hash,
    in_order,
    nobody,
)
from qmtl.services.dagmanager.kinds import gives_targets
from qmtl.services.dagmanager.message import MAX_NODES, Draft, read_head, read_node, sound
from qmtl.services.dagmanager.raw import MAX_BYTES, RawReader

MEMO_BYTES: Final = 200_000_000
"""Room for the texts, of 223 bytes, of 105,000 nodes that exist, of each of which the graph has the rest, or of 87,000 that don't exist
yet, with what 35,000 of these come to. What a text and a node share is counted for both, as either may outlive the other."""


class Prescan:
    """Admits as `admission.admit` does, and remembers what it found out about the text of each sound node.

    The memo is derived and decides nothing: whatever is in it, graph or refusal are those of `admission.admit`, which judges every
    message that is not plainly sound. Work and memory are linear in the message, whatever exists. Not thread-safe.

    What is remembered of a text follows from its bytes and from nothing else of its message: not from its place, from what stands
    beside it, from what exists, nor from who asks. What is remembered of a node follows from its text and the ids of its inputs.

    Args:
        size: bytes that texts and nodes may take together; what was not used for the longest time goes first.
    """

    def __init__(self, size: int = MEMO_BYTES) -> None:
        texts = size * 4 // 5
        self.known: Memo[bytes, Known] = Memo(texts, _size_known)
        self.rows: Memo[tuple[int, tuple[str, ...]], Settled] = Memo(size - texts, _size_row)
        self._numbers = count()
        self._reader = RawReader()

    def admit(self, data: bytes, at_ms: int, held: Held = nobody) -> Graph:
        """The graph of a message, as `admission.admit`.

        Raises:
            InvalidDag: as there.
        """
        graph = self.plain(data, at_ms, held)
        return admit(data, at_ms, held) if graph is None else graph

    def plain(self, data: bytes, at_ms: int, held: Held = nobody) -> Graph | None:
        """The graph of a message that is plainly sound; `None` wherever somebody has to look twice, as at a node that says whose it is."""
        read = self.texts_of(data)
        if read is None:
            return None
        head, nodes = read
        done = self._resolved(nodes, at_ms, held)
        if done is None or not _are_signals([name for _, name in head.signals], done):
            return None
        if reads_portfolio(one.node for one in done.values()):
            return None
        signals = tuple([done[name].node.node_id for _, name in head.signals])
        return Graph(
            head.strategy_id,
            head.meta.version,
            tuple(done.values()),
            signals,
            commit_hash([one.node.node_id for one in done.values()], signals, head.meta.version),
            release_tag=head.meta.release_tag or "",
        )

    def texts_of(self, data: bytes) -> tuple[Draft, Sequence[Known]] | None:
        """The head of a message and its nodes in their order, if each of them is plainly sound by itself."""
        texts = split(data)
        nodes = None if texts is None else self._all_known(texts.nodes)
        if texts is None or nodes is None:
            return None
        head = self._head(texts.head)
        return None if head is None or head.artifacts else (head, nodes)

    def existing(self, one: Known, reads: tuple[str, ...], held: Held) -> GraphNode | None:
        """The node of a text with inputs of these ids, if there is one."""
        found = one.found
        if found is not None and one.found_with == reads and held(found.node.node_id) is found.node:
            return found
        settled = self.rows.get((one.number, reads)) or self._settle(one, reads)
        node = None if settled is None else held(settled.row.node_id)
        if settled is None or node is None or _CONTENT(node) != _CONTENT(settled.row):
            return None
        self._note(one, _named(one, node), reads)
        return one.found

    def _head(self, text: bytes) -> Draft | None:
        faults = Faults()
        raw = self._reader.read(text, faults)
        draft = None if raw is None else read_head(raw, faults)
        return None if faults.count else draft

    # ---- nodes by themselves ------------------------------------------------------------------------------------

    def _all_known(self, texts: Sequence[bytes]) -> list[Known] | None:
        """The nodes in the order of the message."""
        out: list[Known] = []
        for text, known in zip(texts, self.known.get_all(texts), strict=True):
            # One that was not there may be by now: a text may stand in a message twice.
            one = known or self.known.get(text) or self._read(text)
            if one is None:
                return None
            out.append(one)
        return out

    def _read(self, text: bytes) -> Known | None:
        faults = Faults()
        raw = self._reader.read(text, faults, _ABOVE)
        node = None if raw is None else read_node(raw.value, raw.suspicious, "", faults)
        if node is not None and node.artifacts:
            return None  # what they are follows from the rest of the message
        alone = None if node is None else check_alone(sound("", node), faults)
        if node is None or alone is None or faults.count:
            return None
        row = alone.row("", (), 0)
        form = _form(row, alone.params)
        one = Known(
            text,
            next(self._numbers),
            intern(node.name),
            node.interval,
            tuple(map(intern, node.inputs)),
            node.node_id,
            form,
            row,
        )
        self.known.put(text, one)
        return one

    # ---- nodes with their inputs --------------------------------------------------------------------------------

    def _resolved(self, nodes: Sequence[Known], at_ms: int, held: Held) -> dict[str, GraphNode] | None:
        """The nodes by name, inputs first; `None` if a name is there twice, an input is missing, an edge has two intervals, there is
        a cycle, or a node can't have its own id."""
        done = self._followed(nodes, at_ms, held)
        if done is None:
            ordered = _ordered(nodes)
            done = None if ordered is None else self._followed(ordered, at_ms, held)
        return None if done is None or len(done) < len(nodes) else done

    def _followed(self, nodes: Iterable[Known], at_ms: int, held: Held) -> dict[str, GraphNode] | None:
        """The nodes by name; `None` if one is not sound, or comes before what it reads."""
        done: dict[str, GraphNode] = {}
        ids: dict[str, str] = {}
        met: dict[str, ComputeNode] = {}
        try:
            for one in nodes:
                reads = tuple([ids[read] for read in one.inputs])
                found = one.found
                if found is None or one.found_with != reads or held(found.node.node_id) is not found.node:
                    if any(done[read].node.interval != one.interval for read in one.inputs):
                        return None
                    found = self._find(one, reads, at_ms, met, held)
                    if found is None:
                        return None
                ids[one.name] = found.node.node_id
                done[one.name] = found
        except KeyError:
            return None
        return done

    def _find(
        self, one: Known, reads: tuple[str, ...], at_ms: int, met: dict[str, ComputeNode], held: Held
    ) -> GraphNode | None:
        """A node with these inputs, the one that exists if there is one; `None` if it can't have its own id."""
        settled = self.rows.get((one.number, reads)) or self._settle(one, reads)
        if settled is None:
            return None
        row = settled.row
        known = held(row.node_id)
        other = known or met.get(row.node_id)
        if other is not None and _CONTENT(other) != _CONTENT(row):
            return None
        if known is not None:
            self._note(one, _named(one, known), reads)
            return one.found
        made = met[row.node_id] = _at(row, at_ms)
        return _named(one, made)

    def _note(self, one: Known, found: GraphNode, reads: tuple[str, ...]) -> None:
        """Remember the node that exists instead of what it was found by, which can be made again; but of a text that stands in several
        strategies, with other inputs in each, that too."""
        is_only = one.found is None or one.found_with == reads
        one.found, one.found_with = found, reads
        if is_only:
            self.rows.drop((one.number, reads))
            self.known.change(one.text, one, one.forget_form)

    def _settle(self, one: Known, ids: tuple[str, ...]) -> Settled | None:
        """A node under its own id; `None` if its author says another."""
        node_id = content_id(one.form_again().content(ids))
        if one.node_id is not None and one.node_id != node_id:
            return None
        settled = Settled(replace(one.row, node_id=node_id, dependencies=ids))
        self.rows.put((one.number, ids), settled)
        return settled


@dataclass(slots=True, eq=False)
class Settled:
    """A node with its inputs, under its own id and without its time."""

    row: ComputeNode
    used: bool = False


@dataclass(slots=True, eq=False)
class Standing:
    """What a text comes to in the graph as it stands: as long as its inputs have these ids, and node and queue are the very same objects.

    Attributes:
        room: bytes at most of the node in a plan.
        seen: the state of the catalogue in which it was so.
    """

    reads: tuple[str, ...]
    node: ComputeNode
    queue: Queue
    mapped: MappedNode
    room: int
    seen: object


@dataclass(slots=True, eq=False)
class Known:
    """What the text of a sound node says by itself, and what was found of it last.

    Attributes:
        text: the very object under which it is remembered.
        number: no other text has it, nor the same one after it was forgotten. Rows are kept under it, so that none of them holds
            the memory of a text that was forgotten.
        inputs: names.
        node_id: as its author says it.
        form: None where it is not at hand.
        row: without its id, its inputs and its time.
        found: the node that existed when it had the inputs `found_with`; it is this one as long as what exists under its id is the
            very same object.
        standing: what it came to when a diff last asked.
        used: since the memo last looked for something to forget.
    """

    text: bytes
    number: int
    name: str
    interval: int
    inputs: tuple[str, ...]
    node_id: str | None
    form: NodeForm | None
    row: ComputeNode
    found: GraphNode | None = None
    found_with: tuple[str, ...] = ()
    standing: Standing | None = None
    used: bool = False

    def form_again(self) -> NodeForm:
        return (
            self.form
            if self.form is not None
            else _form(self.row, parse_canonical_json(self.row.params_canon))
        )

    def forget_form(self) -> None:
        self.form = None


def _form(row: ComputeNode, params: Mapping[str, Any]) -> NodeForm:
    return checked_form(row.node_type, row.interval, row.period, params, row.schema_compat_id, row.code_hash)


# ---- the memo -----------------------------------------------------------------------------------------------------

_ENTRY: Final = 160
"""Bytes that an entry takes beside its key and its value, about."""

_WIDEST: Final = 8
"""Bytes of a character beyond ASCII, with those of its UTF-8, which stays once somebody asked for it."""

_CHANCES: Final = 8
"""Of what was used lately, as much as a new entry may pass over: so that none takes long."""


class Used(Protocol):
    """What knows whether it was used: to set it takes no memory that is not at hand, as to move it among others would."""

    used: bool


_Key = TypeVar("_Key")
_Value = TypeVar("_Value", bound=Used)


class Memo(Generic[_Key, _Value]):
    """What was used lately, up to a number of bytes. The oldest goes first, but what was used since is young again (the CLOCK of
    F. J. Corbató, 1968).

    Args:
        measure: the bytes that a key and its value keep, the same whenever they are asked for.
    """

    def __init__(self, size: int, measure: Callable[[_Key, _Value], int]) -> None:
        self.most = size
        self._measure = measure
        self._kept: OrderedDict[_Key, _Value] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: _Key) -> _Value | None:
        found = self._kept.get(key)
        if found is not None:
            found.used = True
        return found

    def get_all(self, keys: Iterable[_Key]) -> list[_Value | None]:
        """As `get`, of each in their order."""
        out = list(map(self._kept.get, keys))
        for found in out:
            if found is not None:
                found.used = True
        return out

    def change(self, key: _Key, value: _Value, how: Callable[[], None]) -> None:
        """Let a value become smaller, which may have been forgotten meanwhile."""
        if self._kept.get(key) is not value:
            how()
            return
        self.size -= self._measure(key, value)
        how()
        self.size += self._measure(key, value)

    def drop(self, key: _Key) -> None:
        """Forget a value, if it is there."""
        value = self._kept.pop(key, None)
        if value is not None:
            self.size -= _ENTRY + self._measure(key, value)

    def put(self, key: _Key, value: _Value) -> None:
        """Remember a value under a new key; what is old and not used goes for it, at last the value itself."""
        self._kept[key] = value
        self.size += _ENTRY + self._measure(key, value)
        chances = _CHANCES
        while self.size > self.most:
            old, last = self._kept.popitem(last=False)
            if last.used and chances:
                chances -= 1
                last.used = False
                self._kept[old] = last
            else:
                self.size -= _ENTRY + self._measure(old, last)


_FOUND: Final = getsizeof(GraphNode("", cast(ComputeNode, None), ""))
"""Bytes of what a text remembers of a node that exists; the node itself is somebody else's."""

_STANDS: Final = getsizeof(
    Standing((), cast(ComputeNode, None), cast(Queue, None), cast(MappedNode, None), 0, None)
)
_STANDING: Final = _STANDS + getsizeof(MappedNode("", "", "", NodeOrigin.REUSED)) + getsizeof(1 << 20)
"""As much of what it comes to; all that is in it is somebody else's."""


def _size_known(text: bytes, one: Known) -> int:
    own: tuple[object, ...] = (text, one, one.name, one.inputs, one.node_id, *one.inputs)
    if one.form is not None:
        own += (one.form, one.form.before, one.form.after)
    return sum(map(getsizeof, own)) + _FOUND + _STANDING + getsizeof(one.inputs) + _size_own(one.row)


def _size_row(key: tuple[int, tuple[str, ...]], settled: Settled) -> int:
    row = settled.row
    return sum(map(getsizeof, (settled, key, key[1], *key[1], row.node_id))) + _size_own(row)


def _size_own(row: ComputeNode) -> int:
    """Of a row, and of what it has from a text. A row with its id has it from one that may be forgotten, so it counts for both."""
    canon = row.params_canon
    size = getsizeof(canon) if canon.isascii() else getsizeof("") + _WIDEST * len(canon)
    # That of a built-in type is one for all nodes of it.
    texts = (row.node_type, row.schema_compat_id, *((row.code, row.code_hash) if row.code else ()))
    return size + sum(map(getsizeof, (row, *texts, row.tags, *row.tags)))


# ---- the parts of a message's text --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Texts:
    """A message in parts that are yet to be judged.

    Attributes:
        head: the message with an empty list of nodes.
        nodes: at least one.
    """

    head: bytes
    nodes: Sequence[bytes]


class _Envelope(msgspec.Struct):
    nodes: list[msgspec.Raw]


_DECODER: Final = msgspec.json.Decoder(_Envelope)
_OPEN: Final = re.compile(rb'"nodes"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*')
_COMMA: Final = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
_CLOSE: Final = re.compile(rb"[ \t\n\r]*\]")
_ABOVE: Final = 2
"""Levels above a node: the message, and its list of nodes."""


def split(data: bytes) -> Texts | None:
    """The parts of a message whose nodes stand in one list, with the same space between any two of them.

    msgspec finds where a node ends, but passes over what is in it, over bytes that are no text and over keys that are there twice.
    So nothing rests on it: the texts are put together again, and only if that is what stands in the list it is taken out. A head
    that is sound has one list of that name, as it has no field that nobody knows; then the message is sound JSON if each node is.
    """
    opened = _OPEN.search(data) if len(data) <= MAX_BYTES else None
    if opened is None:
        return None
    try:
        found = _DECODER.decode(data).nodes
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(found) <= MAX_NODES:
        return None
    nodes = list(map(bytes, found))
    start = opened.end()
    found_comma = _COMMA.match(data, start + len(nodes[0]))
    comma = found_comma[0] if found_comma else b","
    end = start + sum(map(len, nodes)) + len(comma) * (len(nodes) - 1)
    # Before they are joined: a megabyte of space after the first of many nodes would be there as often as there are nodes.
    if end > len(data):
        return None
    if not data.startswith(comma.join(nodes), start) or _CLOSE.match(data, end) is None:
        return None
    return Texts(data[:start] + data[end:], nodes)


# ---- what takes long as Python does it ----------------------------------------------------------------------------


_OpenRow: Final = opened(ComputeNode)
_OpenNamed: Final = opened(GraphNode)

_CONTENT: Final = attrgetter(
    "node_type", "interval", "period", "code_hash", "schema_compat_id", "params_canon", "dependencies"
)
"""What `content_of` is a function of: rows that are equal in it have one content."""

_TIMELESS: Final = attrgetter(*(name for name in ComputeNode.__slots__ if name != "created_at_ms"))


def _at(row: ComputeNode, at_ms: int) -> ComputeNode:
    made: Any = _OpenRow()
    (
        made.node_id,
        made.node_type,
        made.interval,
        made.period,
        made.code_hash,
        made.schema_compat_id,
        made.params_canon,
        made.dependencies,
        made.tags,
        made.owner,
        made.schema_hash,
        made.buffering_since_ms,
        made.generation,
        made.unneeded_since_ms,
        made.code,
    ) = _TIMELESS(row)
    made.created_at_ms = at_ms
    made.__class__ = ComputeNode
    row_at: ComputeNode = made
    return row_at


def _named(one: Known, row: ComputeNode) -> GraphNode:
    made: Any = _OpenNamed()
    made.name, made.schema_hash, made.code = one.name, one.row.schema_hash, one.row.code
    made.node = row
    made.__class__ = GraphNode
    named: GraphNode = made
    return named


def _ordered(nodes: Sequence[Known]) -> list[Known] | None:
    """Inputs first, as `in_order`; `None` if a name is there twice, an input is missing, or there is a cycle."""
    named = {one.name: one for one in nodes}
    order = in_order({name: one.inputs for name, one in named.items()})
    return [named[name] for name in order] if len(order) == len(nodes) else None


def _are_signals(names: Sequence[str], done: Mapping[str, GraphNode]) -> bool:
    return len(set(names)) == len(names) and all(
        name in done and gives_targets(done[name].node) for name in names
    )
