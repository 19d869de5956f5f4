"""What authors of strategies get wrong, and what becomes of it: refused where it is written, or isolated where it runs; it is told with the
node, the place and what to do, and everything else goes on. What a node or function refuses by itself is in
`tests/runtime/sdk/test_authoring.py` and `test_view.py`, what a file does in `tests/runtime/data/test_csv_file.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qmtl import ProcessingNode, Strategy, StreamInput, TagQueryNode, dag_message
from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.node import NodeStatus
from qmtl.runtime.data.catalogue import Catalogue
from qmtl.runtime.sdk.builtins import builtin, position_target
from qmtl.services.dagmanager.admission import admit
from tests.interfaces.cli.running import Ran, assert_one_screen, call
from tests.interfaces.project.programs import a_program
from tests.misuse.failing import BEGIN_MS, FAILING, LATE_MS, sound
from tests.misuse.small_disk import small_disk
from tests.runtime.data.walk import SYMBOL, as_csv, minute
from tests.services.graphs import T0
from tests.services.nodes.floor import STEP_MS
from tests.services.nodes.test_python_nodes import a_floor, message, state

Capture = pytest.CaptureFixture[str]

MINUTES = 12
CLOSES: list[float | None] = [100.0 + at for at in range(MINUTES)]


# ---- files that authors have -------------------------------------------------------------------------------------------

TEXT = """
from qmtl import *
from qmtl.runtime.sdk.builtins import position_target, sma

{before}

class Mine(Strategy):
    def setup(self):
        price = StreamInput(symbols=["BTC-USD"], interval="1m", name="price"{source})
        mine = {node}
        well = sma(price, 2, name="well")
        self.add_nodes([price, mine, well, position_target(well, long_percent=0.1, short_percent=0)])
"""

OWN = "ProcessingNode(price, compute, name='mine', period=2)"
LAST_MS = 1_522_800_000_000 + 30 * STEP_MS

WRITTEN: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "two arguments": ("def compute(view, other): return 1.0", "QMTL-512", ("takes (view, other)", "Give it one argument")),
    "a default": ("def compute(view, length=3): return 1.0", "QMTL-512", ("length=3", "params of the node")),
    "a lambda": ("compute = lambda view: 1.0", "QMTL-512", ("lambda", "top of a module", "params of the node")),
    "a closure": ("def make():\n    def compute(view): return 1.0\n    return compute\ncompute = make()", "QMTL-512", ("a function within a function", "params of the node")),
    "a built-in": ("compute = abs", "QMTL-512", ("builtin_function_or_method", "Write it with `def`")),
    "an object": ("class Made:\n    def __call__(self, view): return 1.0\ncompute = Made()", "QMTL-512", ("of type Made", "Write it with `def`")),
    "a coroutine": ("async def compute(view): return 1.0", "QMTL-512", ("coroutine", "Return the value")),
    "a generator": ("def compute(view): yield 1.0", "QMTL-512", ("generator", "Return the value")),
    "the clock": ("import time\ndef compute(view): return time.time()", "QMTL-513", ("the module time in compute", "view.bucket_ms")),
    "chance": ("import random\ndef compute(view): return random.random()", "QMTL-513", ("the module random",)),
    "a global list": ("SEEN = []\ndef compute(view): SEEN.append(1.0); return 1.0", "QMTL-513", ("SEEN, a list that can be changed", "params of the node")),
    "a global counter": ("COUNT = 0\ndef compute(view):\n    global COUNT\n    COUNT += 1\n    return COUNT", "QMTL-102", ("COUNT",)),
}  # fmt: skip

NODES: Mapping[str, tuple[str, str, str, tuple[str, ...]]] = {
    "a period of 0": (OWN.replace("period=2", "period=0"), "", "QMTL-512", ("'mine'", "period", "the number 0", "1 to 10000")),
    "an unknown type": ("builtin('smaa', price, 3, name='mine')", "", "QMTL-503", ("'smaa'",)),
    "an unknown parameter": ("sma(price, 3, name='mine', length=3)", "", "QMTL-512", ("'mine'", "'length'", "Leave it out")),
    "a preset": ("sma(price, 3, name='mine')", ", preset='ohlcv.binance.spot.1m'", "QMTL-512", ("'price'", "ohlcv.binance", "symbols=")),
    "tags that nobody has": ("TagQueryNode(['nobody'], name='mine', interval='1m')", "", "QMTL-500", ("'mine'", "tag query", "run it on a log")),
}  # fmt: skip

RUNNING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "raises": ("raise ValueError('too high')", ("it raised ValueError (too high)",)),
    "gives NaN": ("return float('nan')", ("the number nan", "a finite one is required")),
    "gives a text": ("return 'up'", ("the text 'up'", "a number or None is required")),
    "writes into its view": ("view[0][60][0] = (0, 1.0)", ("it raised TypeError", "item assignment")),
    "asks for another input": (
        "return view['other'][60][-1][1]",
        ("QMTL-414", "'other'", "the node reads price"),
    ),
    "ends the program": ("raise SystemExit(1)", ("it raised SystemExit (1)",)),
}


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of them."""
    return as_csv(tmp_path_factory.mktemp("bars") / "bars.csv", [minute(at) for at in range(30)])


def over_bars(
    capsys: Capture, place: Path, bars: Path, before: str = "", node: str = OWN, source: str = ""
) -> tuple[Ran, Path]:
    """`qmtl backtest` of a file with that in it, and where its results would be."""
    file, out = place / "my_strategy.py", place / "results"
    file.write_text(TEXT.format(before=before, node=node, source=source), encoding="utf-8")
    with a_program():
        ran = call(
            capsys, "backtest", str(file), "--data", f"BTC-USD={bars}", "--out", str(out), "--no-parquet"
        )
    return ran, out


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_with_a_function_that_is_none_is_refused_with_line_node_and_remedy(
    capsys: Capture, tmp_path: Path, bars: Path, name: str
) -> None:
    before, code, says = WRITTEN[name]
    ran, out = over_bars(capsys, tmp_path, bars, before)
    assert ran.code != 0
    assert_one_screen(ran, code, ran.code, says=["my_strategy.py line ", "the node 'mine'", *says])
    assert not out.exists()


@pytest.mark.parametrize("name", NODES)
def test_a_file_with_a_node_that_is_none_is_refused_with_node_and_remedy(
    capsys: Capture, tmp_path: Path, bars: Path, name: str
) -> None:
    node, source, code, says = NODES[name]
    ran, out = over_bars(capsys, tmp_path, bars, "def compute(view): return 1.0", node, source)
    assert ran.code != 0
    assert_one_screen(ran, code, ran.code, says=says)
    assert not out.exists()


@pytest.mark.parametrize("name", RUNNING)
def test_a_function_that_fails_in_a_backtest_is_told_with_node_bucket_and_remedy_and_the_rest_is_written(
    capsys: Capture, tmp_path: Path, bars: Path, name: str
) -> None:
    line, says = RUNNING[name]
    before = f"def compute(view):\n    if view.bucket_ms >= {LAST_MS - 10 * STEP_MS}: {line}\n    return 1.0"
    ran, out = over_bars(capsys, tmp_path, bars, before)
    assert ran.code != 0
    where = (
        "the node 'mine' failed",
        "for BTC-USD",
        f"in the bucket {LAST_MS - 10 * STEP_MS}",
        "publish the strategy again",
    )
    assert_one_screen(ran, "QMTL-413", ran.code, says=[*where, *says])
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert [one["code"] for one in result["faults"]] == ["QMTL-413"]
    assert "the node 'mine' failed" in result["faults"][0]["what"]
    assert len((out / "fills.csv").read_text(encoding="utf-8").splitlines()) > 1, "the other node trades on"


# ---- functions that fail while they run ---------------------------------------------------------------------------------


class Crowd(Strategy):
    """A node for every way to fail, and one that does not, all on one source."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        self.add_nodes(price)
        for one in FAILING:
            name = one.function.__name__
            node = ProcessingNode(price, one.function, name=name, period=2, gives=one.gives)
            self.add_nodes(node)
            if one.gives == "value":
                self.add_nodes(builtin("sma", node, 1, name=f"after_{name}"))
        well = ProcessingNode(price, sound, name="sound")
        self.add_nodes([well, position_target(well, name="target", long_percent=0.1, short_percent=0)])


def test_a_function_that_fails_stops_its_node_alone_and_tells_how_where_and_what_to_do() -> None:
    """All of them on one worker: each has failed, none has taken anything else with it."""
    failed_ms = BEGIN_MS + LATE_MS + STEP_MS
    with a_floor(packages="tests.misuse.failing") as floor:
        mine = floor.deploy(message(Crowd("1m")))
        floor.feed(mine, {"BTC-USD": CLOSES})
        floor.work()
        nodes = {node.name: node.node_id for node in mine.nodes}
        for one in FAILING:
            name = one.function.__name__
            found = state(floor, nodes[name])
            assert (found.status, found.since_bucket_ms) == (NodeStatus.ERROR, failed_ms), (name, found)
            assert (found.cause_code, found.strategies) == ("QMTL-413", ("w1/crowd",))
            for word in (
                *one.says,
                "for BTC-USD",
                f"in the bucket {failed_ms}",
                "publish the strategy again",
            ):
                assert word in found.cause, (name, found.cause)
            assert [(row.bucket_ms - T0) // STEP_MS for row in floor.outputs(mine, name)] == [2, 3, 4], name
            if one.gives == "value":
                assert len(floor.outputs(mine, f"after_{name}")) == 3
                assert state(floor, nodes[f"after_{name}"]).status is not NodeStatus.ERROR
        assert [row.value for row in floor.outputs(mine, "sound")] == CLOSES
        assert len(floor.outputs(mine, "target")) == MINUTES
        assert floor.events("dead.letters") == []


# ---- tags that nobody has, presets that are not there --------------------------------------------------------------------


class Asking(Strategy):
    """Asks for tags, and has a node that does not."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        asked = TagQueryNode(["nobody-has-this"], name="asked", interval="1m")
        read = builtin("sma", asked, 2, name="read")
        mean = builtin("sma", price, 2, name="mean")
        self.add_nodes([price, asked, read, mean])
        self.add_nodes(
            [
                position_target(one, name=f"{one.name}_target", long_percent=0.1, short_percent=0)
                for one in (read, mean)
            ]
        )


def test_a_query_for_tags_that_nobody_has_is_silent_and_says_so_until_somebody_has_them() -> None:
    with a_floor() as floor:
        mine = floor.deploy(message(Asking("1m")))
        floor.feed(mine, {"BTC-USD": CLOSES})
        floor.work()
        nodes = {node.name: node.node_id for node in mine.nodes}
        for name in ("asked", "read", "read_target"):
            found = state(floor, nodes[name])
            assert (found.status, found.cause) == (NodeStatus.PRE_WARMUP, ""), (name, found)
            assert floor.outputs(mine, name) == []
        assert len(floor.outputs(mine, "mean_target")) == MINUTES - 1
        (row,) = floor.view("dag.strategies").rows()
        assert [(one.name, one.dependencies) for one in row.nodes if one.node_type == "tag_query"] == [
            ("asked", ())
        ]
        other = message(Having("1m"))
        floor.deploy(other)
        floor.feed(mine, {"BTC-USD": [*CLOSES, 1.0, 2.0, 3.0]})
        floor.work()
        assert [value.value for value in floor.outputs(mine, "asked")] == [1.0, 2.0, 3.0]
        assert state(floor, nodes["read"]).status is NodeStatus.ACTIVE


def test_who_publishes_a_query_that_nobody_answers_is_told_so_once(capsys: Capture, tmp_path: Path) -> None:
    log = ("--log", f"embedded:{tmp_path / 'log'}")
    file = tmp_path / "dag.json"
    assert call(capsys, "world", "create", "w1", *log).code == 0
    told = []
    for strategy in (Asking, Having, Asked):
        file.write_bytes(dag_message(strategy("1m")))
        ran = call(capsys, "dag", "publish", str(file), "--world", "w1", "--domain", "live", *log)
        assert ran.code == 0, ran
        told.append("nobody answers the tag query 'asked' yet" in ran.err)
    assert told == [True, False, False]


class Asked(Asking):
    """Asks when somebody has them."""


class Having(Strategy):
    """Has them."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        same = builtin("sma", price, 1, name="same", tags=["nobody-has-this"])
        self.add_nodes([price, same, position_target(same, long_percent=0.1, short_percent=0)])


def with_preset(where: str) -> bytes:
    """A message that names one."""
    said: dict[str, Any] = json.loads(dag_message(Having("1m")))
    if where == "message":
        said["preset"] = "aggressive"
    elif where == "node":
        said["nodes"][0]["preset"] = "ohlcv.binance.spot.1m"
    else:
        said["nodes"][0]["params"]["source_preset"] = "ohlcv.binance.spot.1m"
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    ("where", "code", "says"),
    [
        ("message", "QMTL-500", ("preset was there; no field has that name", "Known are")),
        ("node", "QMTL-500", ("nodes[0].preset was there; no field has that name", "Known are")),
        ("params", "QMTL-506", ("nodes[0].params", "'source_preset'", "it takes symbols", "Leave it out")),
    ],
)
def test_a_preset_that_is_not_there_is_refused_and_never_passed_over(
    capsys: Capture, tmp_path: Path, where: str, code: str, says: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidDag):
        admit(with_preset(where), T0)
    file = tmp_path / "dag.json"
    file.write_bytes(with_preset(where))
    log = tmp_path / "log"
    ran = call(capsys, "dag", "publish", str(file), "--world", "w1", "--log", f"embedded:{log}")
    assert_one_screen(ran, code, 5, says=says)
    assert not log.exists()


# ---- data ----------------------------------------------------------------------------------------------------------------

HEAD = "open_time_ms,open,high,low,close,volume"
ROWS = ("60000,2,4,1,3,1", "120000,3,4,1,3,1", "180000,3,4,1,3,1")

BAD_FILES: Mapping[str, tuple[bytes, str, tuple[str, ...]]] = {
    "columns.csv": (b"time,price\n60000,3\n", "QMTL-702", ("line 1", "open_time_ms", "time, price")),
    "duplicate.csv": (
        f"{HEAD}\n{ROWS[0]}\n60000,2,4,1,2,1\n".encode(),
        "QMTL-703",
        ("line 3", "60000"),
    ),
    "descending.csv": (f"{HEAD}\n{ROWS[1]}\n{ROWS[0]}\n".encode(), "QMTL-701", ("line 3", "60000", "Sort")),
    "zones.csv": (
        f"{HEAD}\n1970-01-01T00:01:00Z,2,4,1,3,1\n".encode(),
        "QMTL-701",
        ("line 2", "1970-01-01T00:01:00Z", "iso"),
    ),
    "half.csv": (f"{HEAD}\n{ROWS[0]}\n120000,3,4,1,3".encode(), "QMTL-702", ("line 3", "half a line")),
    "empty.csv": (b"", "QMTL-702", ("empty",)),
    "picture.csv": (b"\x89PNG\r\n\x1a\n\x00", "QMTL-702", ("line 1",)),
}


def test_of_many_files_the_bad_ones_are_refused_each_with_its_line_and_the_good_ones_are_imported(
    capsys: Capture, tmp_path: Path
) -> None:
    for name, (data, _, _) in BAD_FILES.items():
        (tmp_path / name).write_bytes(data)
    good = tmp_path / "good.csv"
    good.write_text("\n".join([HEAD, *ROWS, ""]), encoding="utf-8")
    files = [str(tmp_path / name) for name in BAD_FILES]
    where = ("--symbol", "X", "--interval", "1m", "--catalogue", str(tmp_path / "c"))
    ran = call(capsys, "data", "import", *files, str(good), *where, "--json")
    assert ran.code == 7
    *refused, taken = ran.lines()
    assert [row["code"] for row in refused] == [code for _, code, _ in BAD_FILES.values()]
    for row, (name, (_, _, says)) in zip(refused, BAD_FILES.items(), strict=True):
        for word in (name, *says):
            assert word in row["problem"], row
    assert (taken["imported"], taken["bars"]) == (True, 3)
    assert len(Catalogue(tmp_path / "c").commits()) == 1


def test_mixed_time_zones_are_refused_with_the_line_where_they_mix(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "zones.csv"
    file.write_text(f"{HEAD}\n1970-01-01T00:01:00Z,2,4,1,3,1\n1970-01-01T01:02:00+01:00,3,4,1,3,1\n", "utf-8")
    where = ("--symbol", "X", "--interval", "1m", "--catalogue", str(tmp_path / "c"))
    ran = call(capsys, "data", "import", str(file), *where, "--times", "iso")
    assert ran.code == 7
    for word in ("QMTL-701", "zones.csv line 3", "+01:00", "offset"):
        assert word in ran.err


@pytest.mark.parametrize("size", [0, 300, 3000])
def test_a_disk_that_fills_during_an_import_leaves_what_was_there_and_the_import_goes_on_once_there_is_room(
    capsys: Capture, tmp_path: Path, size: int
) -> None:
    def bars(name: str, begin: int, end: int) -> str:
        return str(as_csv(tmp_path / name, [minute(at) for at in range(begin, end)]))

    files = [bars("first.csv", 0, 30), bars("second.csv", 30, 600)]
    where = ("--symbol", SYMBOL, "--interval", "1m", "--catalogue", str(tmp_path / "c"), "--json")
    assert call(capsys, "data", "import", files[0], *where).code == 0
    before = Catalogue(tmp_path / "c").fingerprint([SYMBOL], 60)
    with small_disk(size):
        ran = call(capsys, "data", "import", files[1], *where)
    assert ran.code == 7, ran
    for word in ("QMTL-707", "room"):
        assert word in ran.err, ran
    assert Catalogue(tmp_path / "c").fingerprint([SYMBOL], 60) == before
    assert len(Catalogue(tmp_path / "c").commits()) == 1
    (row,) = call(capsys, "data", "import", files[1], *where).lines()
    assert (row["imported"], row["bars"]) == (True, 570)
    assert not list((tmp_path / "c" / "staging").glob("*"))
