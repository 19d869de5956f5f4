"""What may be wrong with a graph that is sound: nodes that nobody reads.

Admission refuses what can't be computed: a name that is given twice, an input that is no node of the message, a cycle. A node
without a reader can be, and is accepted: another strategy may find it by its tags, now or one day. It costs a topic until then.
"""

from __future__ import annotations

from typing import Final

from qmtl.services.dagmanager.graph import Graph
from qmtl.services.dagmanager.tag_queries import is_number, question_of

SHOWN: Final = 10
"""Names that a release keeps, at most."""


def unread(graph: Graph) -> list[str]:
    """The names of the nodes that are no signal, that no node of the message reads, and that no tag query in it asks for; in the order of
    the graph."""
    read = {one for node in graph.nodes for one in node.node.dependencies}.union(graph.signals)
    questions = [one for one in (question_of(node.node) for node in graph.nodes) if one is not None]
    return [
        one.name
        for one in graph.nodes
        if one.node.node_id not in read
        and not any(
            is_number(one.node)
            and question.interval == one.node.interval
            and question.is_answered_by(one.node.tags)
            for question in questions
        )
    ]


def warning(names: list[str]) -> str:
    """The nodes that nobody reads in words; empty where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = ", ".join(f"{one!a}" for one in names[:SHOWN])
    return f"warning: nothing in the message reads {shown}{more}; each costs a topic"
