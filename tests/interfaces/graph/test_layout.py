"""The laws of a layout: nothing is lost, what is read lies above, nothing lies on anything else, and the same graph is laid out the same."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from qmtl.interfaces.graph import svg, terminal
from qmtl.interfaces.graph.layout import centres, crossings, layered
from qmtl.interfaces.graph.picture import DrawnNode, Picture, Reuse
from qmtl.interfaces.graph.routing import DOWN, LEFT, RIGHT, UP, Net, cells, tracks


@st.composite
def graphs(draw: st.DrawFn, most: int = 14) -> list[list[int]]:
    """Of each node those that it reads, a node perhaps at two ports."""
    count = draw(st.integers(0, most))
    return [draw(st.lists(st.integers(0, node - 1), max_size=4)) if node else [] for node in range(count)]


@given(graphs())
def test_each_node_lies_in_one_layer_below_all_that_it_reads_and_each_edge_goes_layer_by_layer(
    reads: list[list[int]],
) -> None:
    found = layered(reads)
    layer = {vertex: number for number, row in enumerate(found.rows) for vertex in row}
    assert len(layer) == sum(map(len, found.rows))
    assert {vertex for vertex in layer if vertex < found.nodes} == set(range(len(reads)))
    assert sorted((edge[0], edge[-1]) for edge in found.edges) == sorted(
        {(read, node) for node, inputs in enumerate(reads) for read in inputs}
    )
    for edge in found.edges:
        assert all(layer[lower] == layer[upper] + 1 for upper, lower in pairwise(edge))
        assert all(vertex >= found.nodes for vertex in edge[1:-1])
    assert layered(reads) == found


@given(graphs())
def test_crossings_are_counted_as_pairs_of_lines_that_change_sides(reads: list[list[int]]) -> None:
    found = layered(reads)
    place = {vertex: at for row in found.rows for at, vertex in enumerate(row)}
    wanted = sum(
        (place[a] - place[c]) * (place[b] - place[d]) < 0
        for pairs in found.steps()
        for (a, b), (c, d) in combinations(pairs, 2)
    )
    assert crossings(found.rows, found.steps()) == wanted


def test_lines_that_need_not_cross_do_not() -> None:
    """Two chains that are named crosswise, and a long edge beside them."""
    found = layered([[], [], [1], [0], [2], [3], [4, 0]])
    assert crossings(found.rows, found.steps()) == 0


@given(graphs(), st.integers(1, 9), st.integers(0, 5))
def test_no_vertex_lies_on_its_neighbour(reads: list[list[int]], width: int, gap: int) -> None:
    found = layered(reads)
    at = centres(found, lambda vertex: width if vertex < found.nodes else 1, gap)

    def edges(vertex: int) -> tuple[float, float]:
        half = (width if vertex < found.nodes else 1) / 2
        return at[vertex] - half, at[vertex] + half

    for row in found.rows:
        for left, right in pairwise(row):
            assert edges(right)[0] - edges(left)[1] >= gap - 1e-6
    assert not at or abs(min(edges(one)[0] for one in at)) < 1e-6


def drawn(reads: list[list[int]]) -> Picture:
    ids = [f"blake3:{node:064x}" for node in range(len(reads))]
    return Picture(
        "a graph",
        tuple(
            DrawnNode(
                ids[node],
                f"node{node}",
                "sma",
                60,
                1,
                tuple(ids[read] for read in inputs),
                Reuse.NEW,
                (),
                (),
                None,
                0,
                "",
                (),
                0,
                False,
            )
            for node, inputs in enumerate(reads)
        ),
    )


@given(graphs())
def test_no_line_of_a_picture_leaves_its_frame(reads: list[list[int]]) -> None:
    root = ET.fromstring(svg.drawing(drawn(reads)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        if path.attrib["class"] != "edge":
            continue
        for part in re.findall(r"[MCV][^MCV]+", path.attrib["d"]):
            numbers = [float(one) for one in part[1:].split()]
            across, down = ([], numbers) if part[0] == "V" else (numbers[::2], numbers[1::2])
            assert all(0 <= one <= width for one in across)
            assert all(0 <= one <= height for one in down)


@given(graphs())
def test_every_box_of_a_drawing_is_whole_and_as_many_lines_come_in_as_nodes_read_others(
    reads: list[list[int]],
) -> None:
    drawing = terminal.drawing(drawn(reads), 100_000)
    lines = drawing.split("\n")
    for node, inputs in enumerate(reads):
        (row,) = [at for at, line in enumerate(lines) if re.search(rf"│ node{node} +│", line)]
        column = lines[row].index(f"│ node{node} ")
        edge = re.match("┌─+┐", lines[row - 1][column:])
        assert edge is not None
        above = lines[row - 2][column : column + len(edge[0])] if row > 2 else ""
        assert above.count("▼") == len(set(inputs))
        assert re.match("└[─┬]+┘", lines[row + 4][column:])


@st.composite
def nets(draw: st.DrawFn) -> list[Net]:
    """As between two layers: lines leave at even columns and come in at odd ones, but for those that go straight down."""
    starts = draw(st.lists(st.integers(0, 20), unique=True, max_size=8))
    ends = draw(st.lists(st.integers(0, 20), unique=True, min_size=len(starts), max_size=20))
    out = []
    for place, start in enumerate(starts):
        mine = [2 * end + 1 for at, end in enumerate(ends) if at % len(starts) == place]
        straight = draw(st.booleans())
        out.append(Net(2 * start, tuple(sorted([2 * start, *mine[1:]] if straight else mine))))
    return out


@given(nets())
def test_lines_of_two_nets_cross_and_never_run_together_and_each_reaches_its_ends(found: list[Net]) -> None:
    places = tracks(found)
    count = max(places, default=-1) + 1
    ways: dict[tuple[int, int], list[int]] = {}
    for one, track in zip(found, places, strict=True):
        mine = {(row, column): way for row, column, way in cells(one, track, count)}
        for where, way in mine.items():
            ways.setdefault(where, []).append(way)
        assert not count or sorted(
            column for (row, column), way in mine.items() if row == count - 1 and way & DOWN
        ) == list(one.ends)
        assert not count or mine[0, one.start] & UP
        for (row, column), way in mine.items():  # whatever leaves a cell comes into the next one
            if way & RIGHT:
                assert mine[row, column + 1] & LEFT
            if way & DOWN and row < count - 1:
                assert mine[row + 1, column] & UP
    for several in ways.values():
        assert len(several) == 1 or sorted(several) == [UP | DOWN, LEFT | RIGHT]
