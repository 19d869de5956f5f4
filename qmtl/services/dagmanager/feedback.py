"""Nodes that read the portfolio back: whose it is, and of which world. How late they read it is a parameter of theirs, and checked with these."""

from __future__ import annotations

from collections.abc import Iterable

from qmtl.foundation.common.errors import InvalidParameter, WorldNotNamed
from qmtl.foundation.contracts.context import LogContext
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO
from qmtl.services.dagmanager.faults import Faults, spelled
from qmtl.services.dagmanager.message import Draft

SHARED_REMEDY = (
    "Give the world a namespace of its own (`kafka://HOST:PORT/WORLD.DOMAIN`), or leave the node out."
)


def reads_portfolio(nodes: Iterable[ComputeNode]) -> bool:
    """Whether any of the nodes reads the portfolio back."""
    return any(one.node_type == PORTFOLIO for one in nodes)


def check_own(draft: Draft, faults: Faults) -> None:
    """Tells of nodes that read the portfolio of another strategy than the message's: nobody's node is to hang on what others trade unsaid."""
    for one in draft.nodes:
        if one.node.node_type != PORTFOLIO or not {"node_type", "params"}.isdisjoint(one.unsound):
            continue
        said = one.node.params.get("strategy_id")
        if isinstance(said, str) and draft.strategy_id and said != draft.strategy_id:
            faults.add_told(
                InvalidParameter,
                f"{one.path}.params.strategy_id",
                spelled(said),
                f"{one.shown} reads the portfolio of its own strategy, which is {spelled(draft.strategy_id)}",
                "Say the strategy_id of the message; what others hold is read with the scope 'world'.",
            )


def check_world(row: LogContext | None, nodes: Iterable[ComputeNode], faults: Faults) -> None:
    """Tells of nodes that read a portfolio on a log whose worlds share what is computed: there is one node for all of them, and no one
    world's portfolio that it could read."""
    if row is not None and row.context.shared_worlds and reads_portfolio(nodes):
        faults.add_told(
            WorldNotNamed,
            "nodes",
            f"one of type {PORTFOLIO}",
            "all worlds share what is computed on this log, and a portfolio is one world's",
            SHARED_REMEDY,
        )
