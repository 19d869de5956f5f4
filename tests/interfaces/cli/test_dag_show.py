"""What a picture of the graph says is what the log says: who shares a node, what is new, how far each is, and behind what it is silent."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest

from qmtl import ProcessingNode, Strategy, StreamInput, dag_message
from qmtl.bootstrap import CODE, open_log
from qmtl.foundation.common.errors import InvalidDag, UnknownId
from qmtl.foundation.contracts.diff import NodeOrigin
from qmtl.foundation.contracts.node import NodeStatus
from qmtl.interfaces.cli import session
from qmtl.interfaces.diffs import diff_id
from qmtl.interfaces.graph import forms, svg, terminal
from qmtl.interfaces.graph.picture import DrawnNode, Picture, Reuse, as_json, of_log, of_message
from qmtl.runtime.sdk.builtins import builtin
from tests.interfaces.cli.deployed import Deployed
from tests.interfaces.cli.running import assert_one_screen, call
from tests.runtime.sdk import authored
from tests.services.graphs import crossing, sma, strategy, target, text
from tests.services.nodes.floor import Floor

HERE = "tests.runtime.sdk.authored"


def named(picture: Picture) -> dict[str, DrawnNode]:
    return {one.name: one for one in picture.nodes}


@contextmanager
def drawn(place: Deployed) -> Iterator[Any]:
    log = open_log(place.address, read_only=True)
    try:
        yield log
    finally:
        log.close()


# ---- reuse --------------------------------------------------------------------------------------------------------------


def test_a_picture_of_a_strategy_says_with_whom_it_shares_each_node(seen_deployed: Deployed) -> None:
    with drawn(seen_deployed) as log:
        mine = of_log(log, "w1", "s2")
        whole = of_log(log)
    plans = {f"{one.world_id}/{one.strategy_id}": one.nodes for one in seen_deployed.rows("dag.strategies")}
    having = {
        node.node_id: sorted(
            key for key, plan in plans.items() if node.node_id in {one.node_id for one in plan}
        )
        for plan in plans.values()
        for node in plan
    }
    assert {one.node_id: list(one.strategies) for one in whole.nodes} == having
    assert [one.node_id for one in mine.nodes] == [one.node_id for one in plans["w1/s2"]]
    for one in mine.nodes:
        assert [*one.shared_with, "w1/s2"] == having[one.node_id]
        assert (one.reuse is Reuse.SHARED) is (len(having[one.node_id]) > 1)
    assert {one.reuse for one in whole.nodes} == {Reuse.SHARED, Reuse.OWN}
    assert "shared with 1 strategy" in {one.sharing for one in mine.nodes}


def test_a_file_is_compared_with_the_log_as_a_diff_compares_it_and_nothing_is_written(mine: Deployed) -> None:
    nodes = [*crossing(5, 8), sma("more", 21), target("other", source="more")]
    message = text(strategy(nodes, "s3"))
    before = {name: mine.messages(name) for name in ("dag.diff.requests", "dag.submissions", "dag.nodes")}
    with drawn(mine) as log:
        picture = of_message(log, message, "w1")
    assert {name: mine.messages(name) for name in before} == before
    with session.asking(mine.address) as client:
        from dataclasses import replace

        from qmtl.foundation.contracts.diff import DiffRequest

        request = client.in_log(DiffRequest("", "s3", message, 1, "w1"))
        told = client.diff(replace(request, request_id=diff_id(request)))
    assert [(one.node_id, one.reuse is Reuse.NEW) for one in picture.nodes] == [
        (one.node_id, one.origin is NodeOrigin.NEW) for one in told.nodes
    ]
    found = named(picture)
    assert {name for name, one in found.items() if one.reuse is Reuse.NEW} == {"more", "other"}
    assert found["fast"].shared_with == ("w1/s1", "w1/s2")
    assert picture.title == "strategy s3 v1 for world w1: 2 of 7 nodes are new"


def test_what_a_strategy_has_itself_is_not_shared_by_publishing_it_again(seen_deployed: Deployed) -> None:
    message = text(strategy(crossing(5, 13), "s1", version="v4"))
    with drawn(seen_deployed) as log:
        found = named(of_message(log, message))
    assert found["slow"].reuse is Reuse.OWN
    assert found["fast"].shared_with == ("w1/s2",)


def test_a_message_that_would_be_refused_is_and_so_is_a_strategy_that_is_not_there(
    seen_deployed: Deployed,
) -> None:
    with drawn(seen_deployed) as log:
        with pytest.raises(InvalidDag, match="nothing"):
            of_message(log, text({**strategy(crossing()), "signals": ["nothing"]}))
        with pytest.raises(UnknownId, match="'s9' is deployed in world 'w1'"):
            of_log(log, "w1", "s9")


# ---- states -------------------------------------------------------------------------------------------------------------


class Fails(Strategy):
    """A node that fails, what is computed from it, and what is not."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        bad = ProcessingNode(price, authored.fails_above, name="bad", params={"limit": 102})
        good = builtin("sma", price, 2, name="good")
        long = builtin("sma", price, 9, name="long")
        both = builtin("linear", [bad, good], name="both", weights=[1, 1], constant=0)
        after = builtin("position_target", both, long_percent=0.1, short_percent=-0.1, name="after")
        self.add_nodes([price, bad, good, long, both, after])


def test_every_state_of_a_node_is_seen_and_an_error_by_all_that_have_it_and_all_behind_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = json.loads(dag_message(Fails("1m")))
    with TemporaryDirectory() as name, patch.dict("os.environ", {CODE: HERE}):
        floor = Floor(Path(name))
        deployed = floor.deploy(first)
        floor.deploy({**first, "strategy_id": "other"})
        assert {one.status for one in of_log(floor.log).nodes} == {NodeStatus.INITIALIZED}
        floor.feed(deployed, {"BTC-USD": [101.0, 102.0, 103.0, 104.0]})
        floor.work()
        found = named(of_log(floor.log, strategy_id="fails"))
        floor.close()
        listed = call(capsys, "dag", "list", "--json", "--log", f"embedded:{name}/log").lines()
    assert {name: one.status for name, one in found.items()} == {
        "price": NodeStatus.ACTIVE,
        "bad": NodeStatus.ERROR,
        "good": NodeStatus.ACTIVE,
        "long": NodeStatus.PRE_WARMUP,
        "both": NodeStatus.ACTIVE,
        "after": NodeStatus.ACTIVE,
    }
    assert "ValueError (103.0 is too high)" in found["bad"].cause
    assert {one["strategy"]: one["errors"] for one in listed} == {"fails": ["bad"], "other": ["bad"]}
    assert found["bad"].strategies == ("w1/fails", "w1/other")
    assert {name: one.behind for name, one in found.items() if one.behind} == {
        "both": ("bad",),
        "after": ("bad",),
    }
    assert found["after"].life == "active, silent behind bad"
    drawing = terminal.drawing(Picture("", tuple(found.values())), 200)
    assert "bad is in error: [QMTL-413]" in drawing
    picture = svg.drawing(Picture("", tuple(found.values())))
    assert picture.count('class="edge cut"') == 2


# ---- forms --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def picture(seen_deployed: Deployed) -> Iterator[Picture]:
    with drawn(seen_deployed) as log:
        yield of_log(log)


def test_the_same_log_is_drawn_the_same_in_every_form(seen_deployed: Deployed, picture: Picture) -> None:
    with drawn(seen_deployed) as log:
        again = of_log(log)
    for draw in (svg.drawing, forms.mermaid, forms.dot, lambda one: terminal.drawing(one, 300)):
        assert draw(again) == draw(picture)


def test_the_svg_is_sound_and_has_a_box_for_each_node_and_a_line_for_each_input(picture: Picture) -> None:
    root = ET.fromstring(svg.drawing(picture))
    space = "{http://www.w3.org/2000/svg}"
    boxes = [one for one in root.iter(f"{space}g") if one.find(f"{space}title") is not None]
    assert len(boxes) == len(picture.nodes)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    rects = [one.find(f"{space}rect") for one in boxes]
    placed = [
        tuple(float(one.attrib[name]) for name in ("x", "y", "width", "height"))
        for one in rects
        if one is not None
    ]
    for x, y, wide, high in placed:
        assert 0 <= x <= width - wide
        assert 0 <= y <= height - high
    for at, (x, y, wide, high) in enumerate(placed):
        for left, top, _, _ in placed[:at]:
            assert abs(x - left) >= wide or abs(y - top) >= high
    edges = [one for one in root.iter(f"{space}path") if one.attrib.get("class", "").startswith("edge")]
    assert len(edges) == sum(len(set(one.inputs)) for one in picture.nodes)


def test_what_is_drawn_in_ascii_has_nothing_else_and_what_is_too_wide_is_listed(picture: Picture) -> None:
    plain = terminal.drawing(picture, 300, ascii_only=True)
    assert plain.isascii()
    assert plain.count("| price 1 , 60 s") == 1
    narrow = terminal.drawing(picture, 60)
    assert all(f"layer {number}" in narrow for number in range(4))
    assert "← fast, slow" in narrow


def test_other_programs_get_each_node_and_each_edge_once(picture: Picture) -> None:
    edges = sum(len(set(one.inputs)) for one in picture.nodes)
    assert forms.mermaid(picture).count("-->") == forms.dot(picture).count("->") == edges
    assert forms.mermaid(picture).startswith("flowchart TD\n")
    assert all(one.short_id in forms.dot(picture) for one in picture.nodes)
    found = as_json(picture)["nodes"]
    assert [one["node_id"] for one in found] == [one.node_id for one in picture.nodes]


# ---- the command --------------------------------------------------------------------------------------------------------


def test_the_command_draws_and_begins_no_log(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, tmp_path: Path
) -> None:
    show = ("dag", "show", "--log", seen_deployed.address)
    drawing = call(capsys, *show, "--strategy", "s2")
    assert (drawing.code, drawing.err) == (0, "")
    assert "┌" in drawing.out
    assert call(capsys, *show, "--strategy", "s2", "--ascii").out.isascii()
    (told,) = call(capsys, *show, "--json", "--world", "w1").lines()
    assert len(told["nodes"]) > 5
    out = tmp_path / "graph.svg"
    assert call(capsys, *show, "--format", "svg", "--out", str(out)).code == 0
    assert out.read_text().startswith("<svg ")
    file = tmp_path / "s3.json"
    file.write_bytes(text(strategy(crossing(2, 3), "s3")))
    assert "are new" in call(capsys, *show, "--file", str(file)).out
    assert_one_screen(call(capsys, *show, "--strategy", "s9"), "QMTL-809", 6, says=["dag list"])
    both = call(capsys, *show, "--strategy", "s2", "--file", str(file))
    assert_one_screen(both, "QMTL-801", 2, says=["--file and --strategy"])
    nowhere = call(capsys, *show, "--out", str(tmp_path))
    assert_one_screen(nowhere, "QMTL-801", 2, says=["--out"])
    empty = f"embedded:{tmp_path / 'log'}"
    assert_one_screen(call(capsys, "dag", "show", "--file", str(file), "--log", empty), "QMTL-301", 3)
    assert not (tmp_path / "log").exists()
