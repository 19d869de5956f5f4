"""Whether a DAG message comes in: its form and its graph are judged together, so that whoever sent it hears everything at once."""

from __future__ import annotations

from qmtl.foundation.common.errors import InvalidDag
from qmtl.services.dagmanager.faults import Faults, spelled
from qmtl.services.dagmanager.graph import Graph, Held, nobody, resolve_draft
from qmtl.services.dagmanager.message import read_draft


def admit(
    data: bytes,
    at_ms: int,
    held: Held = nobody,
    faults: Faults | None = None,
    strategy_id: str | None = None,
) -> Graph:
    """The graph of a message; a pure function of the message, the time of its submission and the nodes that exist.

    Work and text of a refusal are bounded, whatever the message: nothing is parsed that is too large or too deep, nothing recurses
    on its content, and of many reasons the first ones are told and the others counted. What can't be judged for want of something
    that is faulty (the id of a node whose input is unsound) is not told of.

    Args:
        held: the nodes that exist.
        faults: what is known to be wrong with it already, which is told with the rest.
        strategy_id: the strategy whose message it has to be; None for any.

    Raises:
        InvalidDag: with its reasons; as one of its kinds where all reasons are of it.
    """
    faults = Faults() if faults is None else faults
    draft = read_draft(data, faults)
    if strategy_id is not None and draft.strategy_id not in ("", strategy_id):
        faults.add_told(
            InvalidDag,
            "strategy_id",
            f"{spelled(strategy_id)} in the request and {spelled(draft.strategy_id)} in its message",
            "both have to name one strategy",
            "Name the one of the message.",
        )
    return resolve_draft(draft, at_ms, held, faults)
