"""`qmtl strategy`: what is shown is what would be published, and what is published from Python is what its message says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmtl.services.dagmanager.admission import admit
from tests.interfaces.cli.deployed import WORLD, Deployed
from tests.interfaces.cli.running import assert_one_screen, call
from tests.services.graphs import crossing, strategy, text

LEANING = """
from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target
from qmtl.runtime.sdk.builtins import sma


def lean(view: CacheView) -> Target:
    return Target(0.1 if view["mean"][60].latest()[1] > 0 else 0)


class Leaning(Strategy):
    def setup(self):
        price = StreamInput(symbols=["BTC-USD", "ETH-USD"], name="price")
        mean = sma(price, 5, name="mean")
        self.add_nodes([price, mean, ProcessingNode(mean, lean, period=3, gives="target")])
"""


@pytest.fixture
def leaning(tmp_path: Path) -> str:
    file = tmp_path / "leaning_cli.py"
    file.write_text(LEANING)
    return str(file)


def test_a_strategy_is_shown_with_what_would_be_published(
    capsys: pytest.CaptureFixture[str], leaning: str
) -> None:
    show = ("strategy", "show", leaning, "--interval", "1m")
    message = call(capsys, *show, "--message").out.strip()
    graph = admit(message.encode(), 0)
    (told,) = call(capsys, *show, "--json").lines()
    assert told["message"] == json.loads(message)
    assert [(one["name"], one["node_id"]) for one in told["nodes"]] == [
        (one.name, one.node.node_id) for one in graph.nodes
    ]
    assert {one["name"]: one["warm_up"] for one in told["nodes"]} == {"price": 1, "mean": 5, "lean": 7}
    (lean,) = [one for one in told["nodes"] if one["signal"]]
    assert lean["code"] == "leaning_cli:lean"
    assert lean["code_hash"] == graph.nodes[-1].node.code_hash
    page = call(capsys, *show).out
    assert all(word in page for word in ("leaning_cli:lean", "WARM-UP", "lean (signal)", lean["node_id"]))
    assert_one_screen(call(capsys, "strategy", "show", leaning), "QMTL-512", 5, says=["no interval"])
    assert_one_screen(call(capsys, "strategy", "show", "none.py"), "QMTL-514", 5, says=["none.py"])


def test_a_message_that_is_written_otherwise_is_shown_as_the_same_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = {**strategy(crossing()), "meta": {"version": "v1"}}
    plain, loose = tmp_path / "plain.json", tmp_path / "loose.json"
    plain.write_bytes(text(said))
    written = json.dumps(dict(reversed(said.items())), indent=3).replace("0.4", "0.40")
    assert written.count("0.40") == 2
    loose.write_text(written)
    shown = [call(capsys, "strategy", "show", str(one), "--message") for one in (plain, loose)]
    assert shown[0] == shown[1]
    assert shown[0].code == 0
    assert json.loads(shown[0].out) == said
    ids = [call(capsys, "strategy", "show", str(one), "--json").lines()[0]["nodes"] for one in (plain, loose)]
    assert ids[0] == ids[1]


def test_a_strategy_in_python_is_published_as_its_message_is_and_told_what_was_there(
    capsys: pytest.CaptureFixture[str], mine: Deployed, leaning: str, tmp_path: Path
) -> None:
    out = tmp_path / "leaning.json"
    where = ("--world", WORLD, "--log", mine.address, "--json")
    line = ("strategy", "publish", leaning, "--interval", "1m", "--out", str(out), *where)
    (told,) = call(capsys, *line).lines()
    assert {one["name"]: one["origin"] for one in told["nodes"]} == {
        "price": "reused",
        "mean": "reused",
        "lean": "new",
    }
    sent = mine.messages("dag.submissions")
    assert sent[-1].dag_json == out.read_bytes()
    assert call(capsys, *line).lines() == [told]
    (again,) = call(capsys, "dag", "publish", str(out), *where).lines()
    assert again == told
    assert mine.messages("dag.submissions") == sent


def test_a_run_that_is_refused_ends_as_an_error_does(
    capsys: pytest.CaptureFixture[str], mine: Deployed, tmp_path: Path
) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text({**strategy(crossing()), "signals": ["nothing"]}))
    run = ("strategy", "run", str(file), "--log", mine.address)
    ran = call(capsys, *run, "--world", WORLD)
    assert_one_screen(ran, "QMTL-504", 5, says=["nothing"])
    assert ran.out == "stopped    refused\n"
    ran = call(capsys, *run, "--world", WORLD, "--json")
    assert [(one["event"], one.get("code")) for one in ran.lines()] == [
        ("refused", "QMTL-504"),
        ("stopped", None),
    ]
    http = call(capsys, "strategy", "run", str(file), "--world", WORLD, "--log", "https://gateway")
    assert_one_screen(http, "QMTL-611", 6, says=["kafka://HOST:PORT"])
