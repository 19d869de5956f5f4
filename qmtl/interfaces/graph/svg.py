"""A graph drawn as SVG by its own layout: one file that opens from disk, light or dark as the reader's system has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qmtl.foundation.contracts.node import NodeStatus
from qmtl.interfaces.graph.layout import Layers, centres, layered
from qmtl.interfaces.graph.picture import DrawnNode, Picture, Reuse
from qmtl.interfaces.report.words import shown

WIDTH: Final = 236
HEIGHT: Final = 80
GAP_X: Final = 28
GAP_Y: Final = 56
MARGIN: Final = 24
HEAD: Final = 44
FOOT: Final = 48
NAME_LETTERS: Final = 24
LIFE_LETTERS: Final = 20
"""Of a text in a box; longer ones are cut, and whole in its title."""

_BEND: Final = 12
_LEGEND: Final = (
    (Reuse.NEW, "new"),
    (Reuse.OWN, "not shared"),
    (Reuse.SHARED, "shared"),
    (Reuse.IDLE, "there, unused"),
)
_LEAST_WIDTH: Final = 560

CSS: Final = """
:root{--bg:#fff;--fg:#1b2530;--dim:#586574;--line:#7d8a99;--own:#f5f7fa;--own-edge:#b9c3ce;--new:#fff8e6;--new-edge:#c9971c;
--shared:#e8f3ee;--shared-edge:#11734b;--idle:#fff;--idle-edge:#b9c3ce;--active:#11734b;--warm:#c9971c;--error:#b3362b;--none:#b9c3ce}
@media (prefers-color-scheme:dark){:root{--bg:#12171d;--fg:#e4e9ef;--dim:#9aa7b5;--line:#6b7987;--own:#1a2129;--own-edge:#44515f;--new:#2b2412;
--new-edge:#d9b64c;--shared:#13271f;--shared-edge:#4fce98;--idle:#12171d;--idle-edge:#44515f;--active:#4fce98;--warm:#d9b64c;--error:#f0847a;--none:#44515f}}
svg{background:var(--bg)}text{font:12px system-ui,"DejaVu Sans",sans-serif;fill:var(--dim)}
.title{font-size:15px;font-weight:600;fill:var(--fg)}.name{font-size:13px;font-weight:600;fill:var(--fg)}.id{font:11px ui-monospace,"DejaVu Sans Mono",monospace}
.right{text-anchor:end}.box{stroke-width:1.2}.own .box{fill:var(--own);stroke:var(--own-edge)}.new .box{fill:var(--new);stroke:var(--new-edge);stroke-dasharray:5 3}
.shared .box{fill:var(--shared);stroke:var(--shared-edge);stroke-width:1.8}.idle .box{fill:var(--idle);stroke:var(--idle-edge);stroke-dasharray:2 3}
.shared .sharing{fill:var(--shared-edge)}.new .sharing{fill:var(--new-edge)}
.edge{fill:none;stroke:var(--line);stroke-width:1.3}.head{fill:var(--line)}.cut{stroke:var(--error);stroke-dasharray:3 3}
.active{fill:var(--active)}.pre_warmup,.initialized{fill:var(--warm)}.completed{fill:var(--dim)}.error{fill:var(--error)}.none{fill:var(--none)}
""".replace("\n", "")


def drawing(picture: Picture) -> str:
    """The picture as an SVG document; the same for the same picture."""
    places = {one.node_id: at for at, one in enumerate(picture.nodes)}
    layers = layered([[places[read] for read in one.inputs] for one in picture.nodes])

    def width_of(vertex: int) -> float:
        return WIDTH if vertex < layers.nodes else _BEND

    middles = centres(layers, width_of, GAP_X)
    across = max((middle + width_of(vertex) / 2 for vertex, middle in middles.items()), default=0.0)
    width = max(across + 2 * MARGIN, _LEAST_WIDTH, MARGIN * 2 + 7.6 * len(picture.title))
    shift = (width - across) / 2
    height = HEAD + len(layers.rows) * (HEIGHT + GAP_Y) - GAP_Y + FOOT if layers.rows else HEAD + FOOT
    x = {vertex: middle + shift for vertex, middle in middles.items()}
    top = {
        vertex: float(HEAD + number * (HEIGHT + GAP_Y))
        for number, row in enumerate(layers.rows)
        for vertex in row
    }
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" role="img">',
        f"<title>{shown(picture.title)}</title><style>{CSS}</style>",
        (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
        ),
        f'<text class="title" x="{MARGIN}" y="27">{shown(picture.title)}</text>',
        *_edges(picture.nodes, layers, x, top),
        *(_box(one, x[at] - WIDTH / 2, top[at]) for at, one in enumerate(picture.nodes)),
        *_legend(picture.nodes, height),
        "</svg>\n",
    ]
    return "\n".join(out)


def _edges(
    nodes: Sequence[DrawnNode], layers: Layers, x: dict[int, float], top: dict[int, float]
) -> list[str]:
    """Lines from the bottom of what is read to the top of what reads it; those that come to one box are apart, in the order of where they come from."""
    coming: dict[int, list[tuple[int, ...]]] = {}
    for edge in layers.edges:
        coming.setdefault(edge[-1], []).append(edge)
    out = []
    for reader in sorted(coming):
        edges = sorted(coming[reader], key=lambda edge: (x[edge[-2]], edge))
        room = min(22.0, (WIDTH - 40) / len(edges))
        for at, edge in enumerate(edges):
            end = x[reader] + (at - (len(edges) - 1) / 2) * room
            source = nodes[edge[0]]
            cut = " cut" if source.behind or source.status is NodeStatus.ERROR else ""
            out.append(f'<path class="edge{cut}" marker-end="url(#head)" d="{_way(edge, end, x, top)}"/>')
    return out


def _way(edge: tuple[int, ...], end: float, x: dict[int, float], top: dict[int, float]) -> str:
    begin = x[edge[0]]
    path = [f"M{begin:.1f} {top[edge[0]] + HEIGHT:.1f}"]
    at_x, at_y = begin, top[edge[0]] + HEIGHT
    for vertex in edge[1:]:
        to_x, to_y = (end, top[vertex] - 1) if vertex == edge[-1] else (x[vertex], top[vertex])
        half = (to_y - at_y) / 2
        path.append(f"C{at_x:.1f} {at_y + half:.1f} {to_x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y:.1f}")
        if vertex != edge[-1]:
            to_y += HEIGHT
            path.append(f"V{to_y:.1f}")
        at_x, at_y = to_x, to_y
    return "".join(path)


def _box(one: DrawnNode, left: float, top: float) -> str:
    signal = " · signal" if one.is_signal else ""
    status = "none" if one.status is None else one.status.value
    life = f"silent behind {one.behind[0]}" if one.behind else one.life
    about = [
        f"{one.name}: {one.node_type}, period {one.period}, {one.interval} s",
        one.node_id,
        *([f"of {', '.join(one.strategies)}"] if one.strategies else []),
        f"{one.life}, task {one.task}",
        *([one.cause] if one.cause else []),
    ]
    inside, right = left + 14, left + WIDTH - 14
    return (
        f'<g class="{one.reuse.value}"><title>{shown("; ".join(about))}</title>'
        f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text class="name" x="{inside:.1f}" y="{top + 21:.1f}">{shown(_cut(one.name, NAME_LETTERS))}</text>'
        f'<text x="{inside:.1f}" y="{top + 38:.1f}">{shown(one.node_type)} {one.period} · {one.interval} s{signal}</text>'
        f'<text class="sharing" x="{inside:.1f}" y="{top + 54:.1f}">{one.sharing}</text>'
        f'<text class="id right" x="{right:.1f}" y="{top + 54:.1f}">{one.short_id}</text>'
        f'<text class="right" x="{right:.1f}" y="{top + 70:.1f}">task {one.task}</text>'
        f'<circle class="{status}" cx="{left + 18:.1f}" cy="{top + 66:.1f}" r="4"/>'
        f'<text x="{left + 28:.1f}" y="{top + 70:.1f}">{shown(_cut(life, LIFE_LETTERS))}</text></g>'
    )


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _legend(nodes: Sequence[DrawnNode], height: float) -> list[str]:
    """What the frames mean, of those that are there."""
    out, at = [], float(MARGIN)
    used = {one.reuse for one in nodes}
    for reuse, word in _LEGEND:
        if reuse in used:
            out.append(
                f'<g class="{reuse.value}"><rect class="box" x="{at:.1f}" y="{height - 25}" width="22" height="13" rx="3"/>'
                f'<text x="{at + 29:.1f}" y="{height - 14}">{word}</text></g>'
            )
            at += 29 + 7 * len(word) + 22
    return out
