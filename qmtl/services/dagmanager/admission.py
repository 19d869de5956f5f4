"""Whether a DAG message comes in: its form and its graph are judged together, so that whoever sent it hears everything at once."""

from __future__ import annotations

from qmtl.services.dagmanager.faults import Faults
from qmtl.services.dagmanager.graph import Graph, Held, nobody, resolve_draft
from qmtl.services.dagmanager.message import read_draft


def admit(data: bytes, at_ms: int, held: Held = nobody) -> Graph:
    """The graph of a message; a pure function of the message, the time of its submission and the nodes that exist.

    Work and text of a refusal are bounded, whatever the message: nothing is parsed that is too large or too deep, nothing recurses
    on its content, and of many reasons the first ones are told and the others counted. What can't be judged for want of something
    that is faulty (the id of a node whose input is unsound) is not told of.

    Args:
        held: the nodes that exist.

    Raises:
        InvalidDag: with its reasons; as one of its kinds where all reasons are of it.
    """
    faults = Faults()
    return resolve_draft(read_draft(data, faults), at_ms, held, faults)
