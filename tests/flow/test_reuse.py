"""Two strategies, two processes, two days apart: what both have is computed once, from the log, and in one context only.

Each process counts the calls of authors' functions: what was computed is known from outside of what the log says.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qmtl.bootstrap import open_log
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain, compute_key
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli.main import main
from qmtl.interfaces.running.events import Refused
from qmtl.interfaces.running.run import RunOptions, follow
from tests.flow.driving import begin, end

HOUR_MS = 3_600_000
T0 = 1_522_800_000_000
DAY, DAYS = 24, 3

COUNTING = """
import atexit, json, os, sys
from pathlib import Path
from qmtl.runtime.sdk.functions import Functions

found, calls = Functions.find, []

def counted(self, codes, code_hash):
    function = found(self, codes, code_hash)
    def call(view):
        calls.append([function.__name__, view.symbol, view.bucket_ms])
        return function(view)
    return call

Functions.find = counted
atexit.register(lambda: Path(os.environ["CALLS"]).write_text(json.dumps(calls)))
from qmtl.interfaces.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

SHARED = """
from qmtl import CacheView, ProcessingNode, StreamInput


def average(view: CacheView) -> float:
    return view.window("price", 3600, view.params["length"]).mean()


def slow():
    price = StreamInput(symbols=["BTC-USD"], interval="1h", name="price")
    return price, ProcessingNode(price, average, name="slow", period=5, params={"length": 5})
"""

FIRST = """
from desk_nodes import slow
from qmtl import Strategy
from qmtl.runtime.sdk.builtins import builtin, cross


class First(Strategy):
    def setup(self):
        price, mean = slow()
        turn = cross(price, mean, name="turn")
        self.add_nodes([price, mean, turn, builtin("position_target", turn, long_percent=0.4, short_percent=-0.4)])
"""

SECOND = """
from desk_nodes import slow
from qmtl import CacheView, ProcessingNode, Strategy, Target


def lean(view: CacheView) -> Target:
    slots = view["slow"][3600].values()
    return Target(0.2 if slots[-1] > slots[0] else -0.2)


class Second(Strategy):
    def setup(self):
        price, mean = slow()
        self.add_nodes([price, mean, ProcessingNode(mean, lean, name="lean", period=3, gives="target")])
"""


def write_bars(path: Path, hours: int) -> str:
    rows = ["open_time_ms,open,high,low,close,volume"]
    for at in range(hours):
        close = 100 + at * 37 % 23
        rows.append(f"{T0 + at * HOUR_MS},{close},{close},{close},{close},1")
    path.write_text("\n".join(rows) + "\n")
    return f"BTC-USD={path}"


class Place:
    """A directory with a log and the two strategies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = f"embedded:{directory / 'state' / 'log'}"
        for name, text in (("desk_nodes", SHARED), ("first", FIRST), ("second", SECOND), ("count", COUNTING)):
            (directory / f"{name}.py").write_text(text)

    def say(self, *line: str) -> None:
        assert main([*line, "--log", self.log]) == 0, line

    def run(self, name: str, *more: str) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        """Run a strategy in a process of its own; its events, and the calls of functions."""
        calls = self.directory / f"{name}.calls"
        line = ["strategy", "run", f"{name}.py", "--world", "w1", "--json", "--log", self.log, *more]
        script = self.directory / "count.py"
        said = end(begin(line, cwd=self.directory, script=script, env={"CALLS": str(calls)}))
        assert said.code == 0, said
        return [json.loads(one) for one in said.out.splitlines()], json.loads(calls.read_text())

    def rows(self, name: str) -> list[Any]:
        log = open_log(self.log, read_only=True)
        try:
            return TableView(log, name, codec).refresh().rows()
        finally:
            log.close()

    def messages(self, name: str) -> list[Any]:
        log = open_log(self.log, read_only=True)
        try:
            records = read_all(log, all_partitions(log, name))
            return [codec.decode(one.value) for one in records if one.value and not is_reserved(one.key)]
        finally:
            log.close()

    def hits(self) -> int:
        return sum(sum(one.hits) for one in self.rows("dag.context"))


def kinds(events: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in events if one["event"] == kind]


def buckets(first: int, last: int) -> list[int]:
    """The closes of these hours, counted from 1."""
    return [T0 + at * HOUR_MS for at in range(first, last + 1)]


def test_a_node_of_two_strategies_in_two_processes_is_computed_once_and_in_one_context_only(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    place.say("world", "create", "w1")
    context = ("--domain", "backtest", "--as-of", "commit-7")
    one = write_bars(tmp_path / "one.csv", DAY)
    three = write_bars(tmp_path / "three.csv", DAYS * DAY)

    events, calls = place.run("first", *context, "--data", one)
    assert [node["origin"] for node in kinds(events, "submitted")[0]["nodes"]] == ["new"] * 4
    assert calls == [["average", "BTC-USD", at] for at in buckets(5, DAY)]
    intents = [one for one in place.messages("trade.intents") if one.strategy_id == "first"]
    assert [one["bucket_ms"] for one in kinds(events, "intent")] == [one.bucket_ms for one in intents] != []
    assert [one["event"] for one in events[-2:]] == ["completed", "stopped"]

    more, later = place.run("second", *context, "--data", three)
    origins = {node["name"]: node["origin"] for node in kinds(more, "submitted")[0]["nodes"]}
    assert origins == {"price": "reused", "slow": "reused", "lean": "new"}
    counted = Counter(map(tuple, calls + later))
    assert set(counted.values()) == {1}
    asked = {name: sorted(at for other, _, at in counted if other == name) for name in ("average", "lean")}
    assert asked["average"] == buckets(5, DAYS * DAY)
    assert asked["lean"] == buckets(DAY + 3, DAYS * DAY), (
        "it warms up on what the shared node goes on to give"
    )

    (plan,) = [one for one in place.rows("dag.strategies") if one.strategy_id == "second"]
    slow = next(node for node in plan.nodes if node.name == "slow")
    values = place.messages(slow.topic)
    assert [value.bucket_ms for value in values] == buckets(5, DAYS * DAY)
    said = ComputeContext("w1", ExecutionDomain.BACKTEST, "commit-7")
    assert {value.compute_key for value in values} == {compute_key(slow.node_id, said)}
    windows = [(one.node_id, one.symbol) for one in place.rows("node.windows")]
    assert windows.count((slow.node_id, "BTC-USD")) == len(set(windows)) - len(windows) + 1 == 1
    assert place.hits() == 0

    # Nobody of another context, or of another world, has any of it.
    place.say("world", "create", "w2")
    kept = place.rows("node.windows")
    message = next(one.dag_json for one in place.messages("dag.submissions") if b"second" in one.dag_json)
    others = (
        ("w1", RunOptions("backtest", "commit-8")),
        ("w2", RunOptions("backtest", "commit-7")),
    )
    for world_id, options in others:
        refused, _ = follow(message, world_id, place.log, options)
        assert isinstance(refused, Refused)
        assert "safe mode (other_context)" in refused.what
    assert place.rows("node.windows") == kept
    assert place.hits() == 0

    # A log that is said to be of another context drops what was kept, and counts it.
    other = ("--world", "w1", "--domain", "backtest", "--as-of", "commit-8")
    place.say("service", "dagmanager", "context", "set", *other)
    place.say("world", "create", "w3")  # in which all that waits is taken
    assert place.rows("node.windows") == []
    assert place.hits() == len({one.node_id for one in kept}) > 0


def test_a_run_that_is_told_to_stop_ends_at_once_and_what_it_published_stays(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.say("world", "create", "w1")
    line = ["strategy", "run", "first.py", "--world", "w1", "--domain", "live", "--json", "--log", place.log]
    process = begin(line, cwd=tmp_path)
    assert process.stdout is not None
    told = ""
    while '"status": "active"' not in told:
        told = process.stdout.readline()
        assert told, process.communicate()
    process.send_signal(signal.SIGTERM)
    said = end(process, 60)
    assert said.code == 0, said
    assert json.loads(said.out.splitlines()[-1]) == {"event": "stopped", "why": "stopped"}
    assert len(place.messages("dag.submissions")) == 1
    assert [one.status.value for one in place.rows("dag.strategies")] == ["ready"]
