"""The nodes of a message by what they are called, sound or not: what a name means, and what is wrong with the edges."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qmtl.foundation.common.errors import DuplicateName, InvalidDag, MissingDependency
from qmtl.foundation.common.names import is_name
from qmtl.services.dagmanager.faults import Faults, spelled
from qmtl.services.dagmanager.kinds import kind_of
from qmtl.services.dagmanager.message import NodeRead


@dataclass(frozen=True, slots=True)
class Placed:
    """The nodes of a message in its order, each under a key of its own.

    A name means the first node that has it, which is kept under it. One that has no sound name, or somebody else's, has a key that is
    no name.

    Attributes:
        odd: the keys of nodes by names that may be none.
        doubled: by each sound name that several have, what these are.
    """

    nodes: dict[str, NodeRead]
    odd: dict[str, str]
    doubled: dict[str, Shared]

    def reads(self, one: NodeRead) -> list[str]:
        """The keys of the nodes that are meant by the inputs of one, as far as there are any."""
        nodes, odd = self.nodes, self.odd
        if not one.unsound:
            return [name for name in one.node.inputs if name in nodes]
        found = (name if is_name(name) else odd.get(name) for name in one.inputs or () if name is not None)
        return [key for key in found if key is not None and key in nodes]

    def are_all(self, one: NodeRead, reads: Collection[str]) -> bool:
        """Whether these keys are all that one reads, and nobody can have meant others."""
        is_all = one.inputs is not None and len(reads) == len(one.inputs)
        return is_all and (not self.doubled or self.doubled.keys().isdisjoint(reads))

    def may_have(self, name: str, interval: int) -> bool:
        """Whether a node that a name may mean has this interval, or none that could be read."""
        if (shared := self.doubled.get(name)) is not None:
            return not shared.intervals.isdisjoint((interval, 0))
        one = self.nodes.get(name)
        return one is None or one.node.interval == interval or "interval" in one.unsound

    def kinds_of(self, name: str) -> Collection[str]:
        """The kinds of the nodes that a name may mean; one that could not be read is a kind that there is not."""
        if (shared := self.doubled.get(name)) is not None:
            return shared.kinds
        return (_kind(self.nodes[name]),) if name in self.nodes else ("",)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the nodes of one name are: which of them somebody means who says the name nobody knows.

    Attributes:
        intervals: 0 for one that could not be read.
    """

    intervals: set[int]
    kinds: set[str]

    def add(self, one: NodeRead) -> None:
        self.intervals.add(0 if "interval" in one.unsound else one.node.interval)
        self.kinds.add(_kind(one))


def _kind(one: NodeRead) -> str:
    return "" if one.unsound and "params" in one.unsound else kind_of(one.node.node_type, one.node.params)


def place_nodes(nodes: Sequence[NodeRead], faults: Faults) -> Placed:
    """The nodes of a message; tells of names that are there twice."""
    out = Placed({}, {}, {})
    for place, one in enumerate(nodes):
        name, key = one.name, ""
        if name is None:
            pass
        elif one.unsound and not is_name(name):
            out.odd.setdefault(name, f"|{place}")
        elif (first := out.nodes.get(name)) is None:
            key = name
        else:
            if name not in out.doubled:
                out.doubled[name] = Shared(set(), set())
                out.doubled[name].add(first)
            out.doubled[name].add(one)
            faults.add_told(
                DuplicateName,
                f"{one.path}.name",
                f"{spelled(name)}, the name of {first.path} too",
                "each node has a name of its own",
                "Rename one of them.",
            )
        out.nodes[key or f"|{place}"] = one
    return out


def check_edges(placed: Placed, names: Collection[str], faults: Faults) -> None:
    """Tells of inputs that are no nodes, and of edges between two intervals.

    Args:
        names: of all nodes, those of which nothing else could be read too.
    """
    for one in placed.nodes.values():
        for port, name in enumerate(one.inputs or ()):
            path = f"{one.path}.inputs[{port}]"
            if name is None or path in one.told:
                continue
            if name not in names:
                faults.add(
                    MissingDependency,
                    path,
                    name,
                    "it is no node of the message",
                    "Add the node, or name another.",
                )
            elif "interval" not in one.unsound and not placed.may_have(name, one.node.interval):
                faults.add_told(
                    InvalidDag,
                    path,
                    f"{spelled(name)} with an interval of {placed.nodes[name].node.interval} s",
                    f"{one.shown} has one of {one.node.interval} s, and an edge has one",
                    "Use one interval along an edge.",
                )
