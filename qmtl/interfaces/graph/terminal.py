"""A graph drawn with characters: boxes in layers, lines between them; a list by layers where it would be too wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qmtl.interfaces.graph.layout import Layers, centres, layered
from qmtl.interfaces.graph.picture import DrawnNode, Picture
from qmtl.interfaces.graph.routing import DOWN, LEFT, RIGHT, UP, Net, cells, tracks

NAME_WIDTH: Final = 30
"""Characters of a name in a box; longer ones are cut."""

_GAP: Final = 3
_LINES: Final[Mapping[int, str]] = {
    UP: "│",
    DOWN: "│",
    UP | DOWN: "│",
    LEFT: "─",
    RIGHT: "─",
    LEFT | RIGHT: "─",
    DOWN | RIGHT: "╭",
    DOWN | LEFT: "╮",
    UP | RIGHT: "╰",
    UP | LEFT: "╯",
    UP | DOWN | RIGHT: "├",
    UP | DOWN | LEFT: "┤",
    DOWN | LEFT | RIGHT: "┬",
    UP | LEFT | RIGHT: "┴",
    UP | DOWN | LEFT | RIGHT: "┼",
}
_ASCII: Final = str.maketrans(
    {
        "│": "|",
        "─": "-",
        "▼": "v",
        "═": "=",
        "║": "|",
        "←": "<-",
        "…": "~",
        "·": ",",
        **dict.fromkeys("╭╮╰╯├┤┬┴┼┌┐└┘╔╗╚╝╤╧", "+"),
    }
)


def drawing(picture: Picture, width: int, *, ascii_only: bool = False) -> str:
    """The picture as lines of text.

    Args:
        width: of the screen; a wider drawing becomes a list of the layers.
        ascii_only: no character outside of ASCII.
    """
    places = {one.node_id: at for at, one in enumerate(picture.nodes)}
    layers = layered([[places[read] for read in one.inputs] for one in picture.nodes])
    drawn = _Canvas(picture.nodes, layers).lines() if picture.nodes else []
    if any(len(one) > width for one in drawn):
        drawn = _listed(picture.nodes, layers)
    text = "\n".join([picture.title, "", *drawn, *_causes(picture.nodes)])
    return text.translate(_ASCII) if ascii_only else text


def _causes(nodes: Sequence[DrawnNode]) -> list[str]:
    told = [f"{one.name} is in error: {one.cause}" for one in nodes if one.cause]
    return ["", *told] if told else []


def _listed(nodes: Sequence[DrawnNode], layers: Layers) -> list[str]:
    names = {one.node_id: one.name for one in nodes}
    out = []
    for number, row in enumerate(layers.rows):
        out.append(f"layer {number}")
        for vertex in row:
            if vertex >= layers.nodes:
                continue
            one = nodes[vertex]
            reads = f"  ← {', '.join(names[read] for read in one.inputs)}" if one.inputs else ""
            out.append(f"  {_cut(one.name)}  {', '.join(_facts(one))}{reads}")
    return out


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"


def _facts(one: DrawnNode) -> tuple[str, ...]:
    """What a box says below the name."""
    return (
        f"{one.node_type} {one.period} · {one.interval} s" + (" · signal" if one.is_signal else ""),
        f"{one.short_id} · {one.sharing}",
        f"{one.life} · task {one.task}",
    )


# ---- boxes and lines ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Box:
    left: int
    lines: tuple[str, ...]
    inner: int
    entries: dict[int, int] = field(default_factory=dict)

    @property
    def exit(self) -> int:
        """Where lines leave: always at an even column, as they come in at odd ones, so that no line lies on another one."""
        middle = self.left + self.inner // 2 + 2
        return middle - middle % 2


class _Canvas:
    """Characters at rows and columns; lines are kept as the directions in which they go, so that they join where they meet."""

    def __init__(self, nodes: Sequence[DrawnNode], layers: Layers) -> None:
        self._layers = layers
        self._cells: list[dict[int, str]] = []
        self._ways: list[dict[int, int]] = []
        texts = [(_cut(one.name), *_facts(one)) for one in nodes]
        inner = [max(*map(len, lines), 2 * len(one.inputs)) for lines, one in zip(texts, nodes, strict=True)]

        def width_of(vertex: int) -> int:
            return inner[vertex] + 4 if vertex < layers.nodes else 1

        middles = centres(layers, width_of, _GAP)
        self._boxes: dict[int, _Box] = {}
        self._bends: dict[int, int] = {}
        self._shifted: set[int] = set()
        for row in layers.rows:
            edge = 0
            for vertex in row:
                left = max(edge, round(middles[vertex] - width_of(vertex) / 2))
                edge = left + width_of(vertex) + _GAP
                if vertex < layers.nodes:
                    self._boxes[vertex] = _Box(left, texts[vertex], inner[vertex])
                else:
                    self._bends[vertex] = left + 1 - left % 2
        self._tall = max(len(lines) for lines in texts) + 2
        self._aim()

    def _aim(self) -> None:
        """Give each line that comes to a box a column of its own: a single one goes straight down if it can, several have odd ones from left to
        right as they come."""
        reads: dict[int, list[int]] = {}
        for pairs in self._layers.steps():
            for upper, lower in pairs:
                if lower in self._boxes:
                    reads.setdefault(lower, []).append(upper)
        for vertex, uppers in reads.items():
            box = self._boxes[vertex]
            if len(uppers) == 1 and box.left < self._exit(uppers[0]) <= box.left + box.inner + 2:
                box.entries[uppers[0]] = self._exit(uppers[0])
                continue
            first = box.left + 2 + (box.inner - 2 * len(uppers)) // 2
            first += 1 - first % 2
            for at, upper in enumerate(sorted(uppers, key=self._exit)):
                box.entries[upper] = first + 2 * at

    def _exit(self, vertex: int) -> int:
        """Where lines leave. A bend goes straight down, but where a line of another one comes in below: there it moves by one."""
        if vertex in self._boxes:
            return self._boxes[vertex].exit
        return self._bends[vertex] + (vertex in self._shifted)

    def _entry(self, upper: int, lower: int) -> int:
        return self._boxes[lower].entries[upper] if lower in self._boxes else self._bends[lower]

    def lines(self) -> list[str]:
        steps = (*self._layers.steps(), ())
        for row, pairs in zip(self._layers.rows, steps, strict=True):
            nets = self._nets(pairs)
            self._layer(row, {one.start for one in nets})
            if nets:
                self._gap(nets)
                boxes = {self._entry(*pair) for pair in pairs if pair[1] in self._boxes}
                self._cells.append(dict.fromkeys(sorted(boxes), "▼"))
                ends = {at for one in nets for at in one.ends} - boxes
                self._ways.append(dict.fromkeys(sorted(ends), UP | DOWN))
        out = []
        for letters, ways in zip(self._cells, self._ways, strict=True):
            row_of = {**{at: _LINES[way] for at, way in ways.items()}, **letters}
            out.append("".join(row_of.get(at, " ") for at in range(max(row_of, default=-1) + 1)).rstrip())
        return out

    def _layer(self, row: Sequence[int], exits: set[int]) -> None:
        rows: list[dict[int, str]] = [{} for _ in range(self._tall)]
        ways: list[dict[int, int]] = [{} for _ in range(self._tall)]
        for vertex in row:
            if vertex in self._bends:
                column = self._exit(vertex)
                for one in ways:
                    one[column] = UP | DOWN
                if vertex in self._shifted:
                    ways[0][column - 1], ways[0][column] = UP | RIGHT, LEFT | DOWN
                continue
            box = self._boxes[vertex]
            edge = "─" * (box.inner + 2)
            texts = [f"┌{edge}┐", *(f"│ {line.ljust(box.inner)} │" for line in box.lines), f"└{edge}┘"]
            for at, text in enumerate(texts):
                rows[at].update({box.left + place: letter for place, letter in enumerate(text)})
            if box.exit in exits:
                rows[len(texts) - 1][box.exit] = "┬"
        self._cells += rows
        self._ways += ways

    def _nets(self, pairs: Sequence[tuple[int, int]]) -> list[Net]:
        ends: dict[int, list[int]] = {}
        for upper, lower in pairs:
            ends.setdefault(upper, []).append(self._entry(upper, lower))
        entered = [column for found in ends.values() for column in found]
        for upper, found in ends.items():
            if upper in self._bends and self._bends[upper] in entered and self._bends[upper] not in found:
                self._shifted.add(upper)
        return [Net(self._exit(upper), tuple(sorted(found))) for upper, found in ends.items()]

    def _gap(self, nets: Sequence[Net]) -> None:
        """The rows between two layers."""
        places = tracks(nets)
        count = max(places, default=-1) + 1
        first = len(self._ways)
        for _ in range(count):
            self._cells.append({})
            self._ways.append({})
        for one, track in zip(nets, places, strict=True):
            for row, column, way in cells(one, track, count):
                ways = self._ways[first + row]
                ways[column] = ways.get(column, 0) | way
