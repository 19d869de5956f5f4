"""A graph as text that other programs draw: Mermaid, and DOT of Graphviz."""

from __future__ import annotations

import json

from qmtl.foundation.contracts.node import NodeStatus
from qmtl.interfaces.graph.picture import DrawnNode, Picture, Reuse

_MERMAID = {
    Reuse.NEW: "fill:#fff8e6,stroke:#c9971c,stroke-dasharray:5 3,color:#1b2530",
    Reuse.OWN: "fill:#f5f7fa,stroke:#b9c3ce,color:#1b2530",
    Reuse.SHARED: "fill:#e8f3ee,stroke:#11734b,stroke-width:2px,color:#1b2530",
    Reuse.IDLE: "fill:#ffffff,stroke:#b9c3ce,stroke-dasharray:2 3,color:#1b2530",
}
_DOT = {
    Reuse.NEW: 'style="rounded,filled,dashed",fillcolor="#fff8e6",color="#c9971c"',
    Reuse.OWN: 'style="rounded,filled",fillcolor="#f5f7fa",color="#b9c3ce"',
    Reuse.SHARED: 'style="rounded,filled,bold",fillcolor="#e8f3ee",color="#11734b"',
    Reuse.IDLE: 'style="rounded,filled,dotted",fillcolor="#ffffff",color="#b9c3ce"',
}
_ERROR = "stroke:#b3362b,stroke-width:3px"


def mermaid(picture: Picture) -> str:
    """A flowchart of Mermaid."""
    names = {one.node_id: f"n{at}" for at, one in enumerate(picture.nodes)}
    out = ["flowchart TD"]
    for one in picture.nodes:
        text = "<br/>".join(_entities(line) for line in _lines(one))
        out.append(f'  {names[one.node_id]}["{text}"]:::{one.reuse.value}')
    for one in picture.nodes:
        out += [f"  {names[read]} --> {names[one.node_id]}" for read in dict.fromkeys(one.inputs)]
    out += [
        f"  style {names[one.node_id]} {_ERROR}" for one in picture.nodes if one.status is NodeStatus.ERROR
    ]
    out += [
        f"  classDef {reuse.value} {_MERMAID[reuse]}"
        for reuse in Reuse
        if any(one.reuse is reuse for one in picture.nodes)
    ]
    return "\n".join(out) + "\n"


def dot(picture: Picture) -> str:
    """A digraph of Graphviz."""
    names = {one.node_id: f"n{at}" for at, one in enumerate(picture.nodes)}
    out = [
        "digraph qmtl {",
        f"  label={_quoted(picture.title)};",
        '  node [shape=box,fontname="sans-serif"];',
    ]
    for one in picture.nodes:
        edge = ',color="#b3362b",penwidth=3' if one.status is NodeStatus.ERROR else ""
        label = _quoted("\n".join(_lines(one)))
        out.append(f"  {names[one.node_id]} [label={label},{_DOT[one.reuse]}{edge}];")
    for one in picture.nodes:
        out += [f"  {names[read]} -> {names[one.node_id]};" for read in dict.fromkeys(one.inputs)]
    return "\n".join([*out, "}"]) + "\n"


def _lines(one: DrawnNode) -> tuple[str, ...]:
    signal = " · signal" if one.is_signal else ""
    return (
        one.name,
        f"{one.node_type} {one.period} · {one.interval} s{signal}",
        f"{one.short_id} · {one.sharing}",
        f"{one.life} · task {one.task}",
    )


def _entities(text: str) -> str:
    """Text in a label of Mermaid, in which it takes every letter but these as it is."""
    out = text.replace("#", "#35;").replace("&", "#38;").replace('"', "#quot;")
    return out.replace("<", "#lt;").replace(">", "#gt;").replace("`", "#96;")


def _quoted(text: str) -> str:
    """A string of DOT; what JSON escapes beside quotes and line ends is none of its escapes."""
    return json.dumps(text, ensure_ascii=False)
