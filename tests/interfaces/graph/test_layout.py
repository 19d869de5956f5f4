"""The laws of a layout: nothing is lost, what is read lies above, nothing lies on anything else, and the same graph is laid out the same."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from qmtl.interfaces.graph.layout import centres, crossings, layered
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
