"""`qmtl backtest`: the same input gives the same files, a range is the data cut to it, and its figures are those of an independent count."""

from __future__ import annotations

import csv
import gzip
import inspect
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl import Runner, Terms
from qmtl.foundation.common.errors import InvalidStrategy, QmtlError
from qmtl.interfaces.backtest_results import read_results
from qmtl.interfaces.cli.backtest import backtest
from qmtl.interfaces.offline import run_offline
from qmtl.interfaces.report import export
from qmtl.interfaces.report.backtest_files import result_object
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import dataset_fingerprint, default_sources, source_of
from qmtl.runtime.sdk.loading import load_strategy
from tests.interfaces.cli.running import assert_one_screen, call, run
from tests.misuse.small_disk import small_disk
from tests.runtime.data.walk import START_MS, as_csv, minute, walk
from tests.runtime.sdk.authored import BuiltinCross, PythonCross

Capture = pytest.CaptureFixture[str]

SYMBOL = "BTC-USD"
STRATEGY = """
from qmtl import Strategy, StreamInput
from qmtl.runtime.sdk.builtins import cross, position_target, sma


class Cross(Strategy):
    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        fast, slow = sma(price, 10), sma(price, 30)
        turn = cross(fast, slow)
        self.add_nodes([price, fast, slow, turn, position_target(turn, long_percent=0.5, short_percent=-0.5)])
"""
TABLES = ("trades", "fills", "equity", "orders", "rejections")


@pytest.fixture
def strategy(tmp_path: Path) -> str:
    path = tmp_path / "crossing_averages.py"
    path.write_text(STRATEGY)
    return str(path)


def written(path: Path, begin: int, end: int) -> str:
    as_csv(path, [minute(at) for at in range(begin, end) if at % 10 != 9])
    return f"{SYMBOL}={path}"


def of_symbol(begin: int, end: int) -> BarColumns:
    return replace(walk(begin, end), symbol=SYMBOL)


def at(place: int) -> int:
    return START_MS + place * 60_000


def files(directory: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(directory.iterdir())}


# ---- an independent count ---------------------------------------------------------------------------------------


@dataclass
class Count:
    """Averages, orders and money of the demo's BTC bars, counted bar by bar in decimals."""

    cash: Decimal = Decimal(50_000)
    held: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    orders: int = 0
    fills: int = 0

    def run(self) -> Iterator[tuple[int, Decimal]]:
        """The equity at each close."""
        tick, lot, fee, slip = (Decimal(one) for one in ("0.01", "0.0001", "0.002", "0.001"))
        with gzip.open(default_sources()[0].path, "rt", encoding="utf-8") as source:
            rows = list(csv.DictReader(source))
        closes = [Decimal(row["close"]) for row in rows]
        waiting, sign = Decimal(0), 0
        for place, row in enumerate(rows):
            opened, closed = Decimal(row["open"]), closes[place]
            equity = self.cash + self.held * closes[place - 1]  # what the bucket before has left
            known = self.held + waiting
            if waiting:
                moved = opened * (1 + slip if waiting > 0 else 1 - slip)
                up = ROUND_UP if waiting > 0 else ROUND_DOWN
                price = (moved / tick).to_integral_value(up) * tick
                cost = fee * abs(waiting) * price
                self.cash -= waiting * price + cost
                self.held += waiting
                self.fees += cost
                self.fills += 1
                waiting = Decimal(0)
            if place >= 29:
                fast, slow = sum(closes[place - 9 : place + 1]) * 3, sum(closes[place - 29 : place + 1])
                turned = (fast > slow) - (fast < slow)
                if turned and turned != sign:
                    sign = turned
                    lots = (equity / 2 / closed / lot).to_integral_value(ROUND_DOWN)
                    waiting = sign * lots * lot - known
                    self.orders += 1
            yield int(row["open_time_ms"]) + 60_000, self.cash + self.held * closed


def test_the_figures_are_those_of_an_independent_count(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    terms = ("--cash", "50000", "--fee-rate", "0.002", "--slippage-rate", "0.001")
    limits = ("--instrument", f"{SYMBOL}=0.01,0.0001,0.0001")
    ran = call(capsys, "backtest", strategy, *terms, *limits, "--out", str(out), "--json")
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    count = Count()
    known = dict(count.run())
    assert count.fills > 100
    (first, *_), (*_, last) = known, known
    values, worth = [50_000.0], Decimal(50_000)
    for bucket_ms in range(first, last + 1, 60_000):
        worth = known.get(bucket_ms, worth)  # a minute without a bar is worth what the one before was
        values.append(float(worth))
    returns = [after / before - 1 for before, after in pairwise(values)]
    height, deepest = values[0], 0.0
    for value in values:
        height = max(height, value)
        deepest = min(deepest, value / height - 1)
    figures = {name: one["value"] for name, one in told["figures"].items()}
    assert Decimal(figures["net_profit"]) == known[last] - 50_000
    assert Decimal(figures["fees"]) == count.fees
    assert (told["orders"], told["fills"], told["intents"]) == (count.orders, count.fills, count.orders)
    assert figures["trades"] == count.fills - 1  # each turn closes what the one before has opened
    assert figures["total_return"] == pytest.approx(values[-1] / 50_000 - 1, rel=1e-12)
    year = 365 * 1440
    spread = statistics.stdev(returns)
    assert figures["volatility"] == pytest.approx(spread * math.sqrt(year), rel=1e-9)
    assert figures["sharpe"] == pytest.approx(statistics.fmean(returns) / spread * math.sqrt(year), rel=1e-9)
    assert figures["max_drawdown"] == pytest.approx(deepest, rel=1e-9)
    with (out / "fills.csv").open(newline="") as source:
        bought = sum(
            (1 if row["side"] == "BUY" else -1) * Decimal(row["quantity"]) for row in csv.DictReader(source)
        )
    assert bought == count.held


# ---- laws -------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(bounds=st.tuples(st.integers(0, 150), st.integers(0, 300)).filter(lambda one: one[0] + 20 < one[1]))
def test_a_range_gives_what_the_data_cut_to_it_give(bounds: tuple[int, int]) -> None:
    begin, end = bounds
    bars = {SYMBOL: of_symbol(0, 300)}
    of_range = Runner.offline(BuiltinCross, data=bars, interval=60, start=at(begin), end=at(end))
    of_cut = Runner.offline(BuiltinCross, data={SYMBOL: of_symbol(begin, end)}, interval=60)
    assert result_object(of_range) == result_object(of_cut)
    assert of_range.result.fills == of_cut.result.fills
    assert of_range.figures == of_cut.figures


def test_the_same_input_gives_the_same_bytes_whatever_order_it_is_said_in(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("pyarrow")
    one, other = written(tmp_path / "one.csv", 0, 200), f"ETH-USD={tmp_path / 'one.csv'}"
    both = str(tmp_path / "both.py")
    Path(both).write_text(STRATEGY.replace('["BTC-USD"]', '["ETH-USD", "BTC-USD"]'))
    more = ("--data", one, "--data", other)
    outs = [tmp_path / "forth", tmp_path / "back"]
    for out, data in zip(outs, (more, (*more[2:], *more[:2])), strict=True):
        assert call(capsys, "backtest", both, *data, "--out", str(out)).code == 0
    first = files(outs[0])
    assert first == files(outs[1])
    tables = {f"{name}.{form}" for name in TABLES for form in ("csv", "parquet")}
    assert set(first) == {*tables, "report.html", "dag.json", "release.jsonl", "result.json"}
    assert call(capsys, "backtest", both, *more, "--out", str(outs[0]), "--no-parquet").code == 0
    assert files(outs[0]) == {name: data for name, data in first.items() if not name.endswith(".parquet")}


def test_python_and_the_command_line_say_the_same(strategy: str, tmp_path: Path, capsys: Capture) -> None:
    text = written(tmp_path / "bars.csv", 0, 200)
    range_ = ("--from", str(at(20)), "--to", "2018-04-04T03:00:00Z")
    ran = call(capsys, "backtest", strategy, "--data", text, *range_, "--cash", "1000", "--json")
    told = json.loads(ran.out)
    assert told.pop("written") == []
    message = load_strategy(strategy)
    done = Runner.offline(
        message, data=[text], start=at(20), end="2018-04-04T03:00:00Z", terms=Terms(cash=Decimal(1000))
    )
    assert json.loads(json.dumps(result_object(done))) == told
    assert (told["from_ms"], told["to_ms"]) == (at(20), at(179))  # the last minute of the range has no bar
    assert repr(done).startswith("<backtest of cross: ")


def test_what_is_written_says_what_was_run(strategy: str, tmp_path: Path, capsys: Capture) -> None:
    text, out = written(tmp_path / "bars.csv", 0, 300), tmp_path / "out"
    ran = call(capsys, "backtest", strategy, "--data", text, "--out", str(out), "--no-parquet")
    assert ran.code == 0, ran
    told = json.loads((out / "result.json").read_text())
    assert told["dataset_fingerprint"] == dataset_fingerprint([source_of(text)])
    assert told["as_of"] is None
    for name, digest in told["files"].items():
        assert digest == blake3((out / name).read_bytes()).hexdigest(), name
    for table, count in (("orders", told["orders"]), ("fills", told["fills"])):
        with (out / f"{table}.csv").open(newline="") as source:
            assert len(list(csv.DictReader(source))) == count > 5
    (run,) = read_results(out / "release.jsonl", "r1", "0" * 64, 1)
    assert run.passed
    assert run.result_digest == blake3((out / "result.json").read_bytes()).hexdigest()
    assert (run.dataset_fingerprint, run.from_ms, run.to_ms) == (
        told["dataset_fingerprint"],
        told["from_ms"],
        told["to_ms"],
    )
    again = call(
        capsys, "backtest", str(out / "dag.json"), "--data", text, "--json"
    )  # what was run can be run again
    assert json.loads(again.out)["version_digest"] == told["version_digest"]
    page = (out / "report.html").read_text()
    for chart in ("Equity", "Drawdown", "Trades on price", "Exposure", "Monthly returns"):
        assert chart in page
    assert "src=" not in page
    for said in (told["dataset_fingerprint"], told["version_digest"], told["nodes"]["price"]):
        assert said in page
        assert said in ran.out or said == told["nodes"]["price"]


def test_a_backtest_is_bound_to_a_commit_of_its_catalogue(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("pyarrow")
    catalogue, as_of = str(tmp_path / "c"), []
    for begin in (0, 100):
        _, _, path = written(tmp_path / f"{begin}.csv", begin, begin + 100).partition("=")
        more = ("--symbol", SYMBOL, "--interval", "1m", "--catalogue", catalogue, "--json")
        (row,) = call(capsys, "data", "import", path, *more).lines()
        as_of.append(row["as_of"])
    told = []
    for said in ([], ["--as-of", "1"], ["--as-of", as_of[0]]):
        (row,) = call(capsys, "backtest", strategy, "--data", catalogue, *said, "--json").lines()
        told.append(row)
    assert [one["as_of"] for one in told] == [as_of[1], as_of[0], as_of[0]]
    assert [one["bars"] for one in told] == [{SYMBOL: 180}, {SYMBOL: 90}, {SYMBOL: 90}]
    assert told[1] == told[2]


def test_what_is_recorded_is_what_is_told_and_only_once(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    text, log = written(tmp_path / "bars.csv", 0, 300), f"embedded:{tmp_path / 'log'}"
    plain = json.loads(call(capsys, "backtest", strategy, "--data", text, "--json").out)
    found = json.loads(call(capsys, "backtest", strategy, "--data", text, "--json", "--record", log).out)
    recorded = found.pop("recorded")
    assert found == plain
    assert recorded["log"] == log
    lines = call(capsys, "state", "trade.fills", "--log", log, "--format", "json").out.splitlines()
    shown = [line for line in lines if "position" not in json.loads(line)]
    assert len(shown) == plain["fills"] > 5
    assert recorded["rows"] > 5 * len(shown)
    again = call(capsys, "backtest", strategy, "--data", text, "--record", log)
    assert again.code == 8
    assert "QMTL-802" in again.err


def test_two_strategies_in_two_processes_compute_what_they_share_once(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    """All files are those of a run that computed everything: a result says nothing of what lay on a log."""
    text, log = written(tmp_path / "bars.csv", 0, 300), f"embedded:{tmp_path / 'values'}"
    other = tmp_path / "other.py"
    other.write_text(STRATEGY.replace("30", "40"))
    first = run(tmp_path, "backtest", strategy, "--data", text, "--reuse", log)
    assert first.code == 0, first
    assert "5; computed 5, reused 0" in first.out
    said = ("backtest", str(other), "--data", text, "--no-parquet", "--out")
    assert call(capsys, *said, str(tmp_path / "plain")).code == 0
    assert "5; computed 4, reused 1" in call(capsys, *said, str(tmp_path / "reused"), "--reuse", log).out
    assert files(tmp_path / "plain") == files(tmp_path / "reused")
    (told,) = call(capsys, *said[:4], "--reuse", log, "--json").lines()
    (plain,) = call(capsys, *said[:4], "--json").lines()
    assert told.pop("reused") == {
        "log": log,
        "nodes": 3,
        "computed": 2,
        "refused": [],
        "cross_context_cache_hit_total": 0,
    }
    assert told == plain


def test_values_of_one_commit_are_not_used_for_another_though_the_bars_are_the_same(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("pyarrow")
    catalogue, log = str(tmp_path / "c"), f"embedded:{tmp_path / 'values'}"
    for begin in (0, 100):
        _, _, path = written(tmp_path / f"{begin}.csv", begin, begin + 100).partition("=")
        call(capsys, "data", "import", path, "--symbol", SYMBOL, "--interval", "1m", "--catalogue", catalogue)
    told = []
    for commit in ("1", "2", "1"):
        said = ("--data", catalogue, "--to", str(at(100)), "--as-of", commit, "--reuse", log, "--json")
        told += call(capsys, "backtest", strategy, *said).lines()
    assert len({one["dataset_fingerprint"] for one in told}) == 1
    assert [one["reused"]["nodes"] for one in told] == [0, 0, 3]


def test_values_that_are_refused_are_told_and_end_no_run(
    strategy: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ("backtest", strategy, "--data", written(tmp_path / "bars.csv", 0, 300))
    reused = (*said, "--reuse", f"embedded:{tmp_path / 'values'}")
    plain = call(capsys, *said).out
    with monkeypatch.context() as patch:
        patch.setattr("qmtl.backtest.reuse.CHUNK_ROWS", 100)
        call(capsys, *reused)
    ran = call(capsys, *reused)
    assert ran.code == 0
    assert ran.err.count("[QMTL-821] the values of node blake3:") == 3
    assert ran.out == plain.replace("5\n", "5; computed 5, reused 0\n", 1)
    assert "computed 2, reused 3" in call(capsys, *reused).out


def test_what_is_reused_is_not_what_is_recorded(strategy: str, tmp_path: Path, capsys: Capture) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "backtest", strategy, "--record", log, "--reuse", log)
    assert_one_screen(ran, "QMTL-801", 2, says=["--reuse and --record were both", "Name two logs"])
    assert not (tmp_path / "log").exists()


def test_a_run_without_a_trade_is_a_result(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "idle.py").write_text(STRATEGY.replace("30", "3000"))
    out = tmp_path / "out"
    text = written(tmp_path / "bars.csv", 0, 50)
    ran = call(
        capsys, "backtest", str(tmp_path / "idle.py"), "--data", text, "--out", str(out), "--no-parquet"
    )
    assert ran.code == 0, ran
    told = json.loads((out / "result.json").read_text())
    assert (told["intents"], told["orders"], told["figures"]["net_profit"]["value"]) == (0, 0, "0")
    assert told["figures"]["sharpe"]["value"] is None


def test_what_can_not_be_ordered_is_counted_by_its_reason(
    strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    text = written(tmp_path / "bars.csv", 0, 200)
    limits = ("--instrument", f"{SYMBOL}=0.01,1,1")
    ran = call(capsys, "backtest", strategy, "--data", text, "--cash", "100", *limits)
    assert ran.code == 0, ran
    (line,) = (one for one in ran.out.splitlines() if "below_minimum_size" in one)
    assert int(line.split()[-1]) > 3


def test_what_is_left_out_of_the_data_is_told(strategy: str, tmp_path: Path, capsys: Capture) -> None:
    rows = [minute(place) for place in range(100)]
    text = f"{SYMBOL}={as_csv(tmp_path / 'bars.csv', [*rows[:50], rows[49], *rows[50:90], rows[95]])}"
    ran = call(capsys, "backtest", strategy, "--data", text, "--data", "OTHER=nowhere.csv", "--json")
    assert ran.code == 0, ran
    assert ran.err.splitlines() == [
        "the strategy does not read OTHER; left out",
        f"1 bar of {SYMBOL} is there a second time in the same words; it counts once",
    ]
    told = json.loads(ran.out)
    assert (told["bars"], told["buckets"]) == ({SYMBOL: 91}, 96)  # five minutes have no bar


INTERVALS = [
    ("StreamInput(symbols=['BTC-USD'])", "sma(price, 3)", 60),
    ("StreamInput(symbols=['BTC-USD'])", "builtin('sma', price, 3, interval='1m')", 60),
    ("StreamInput(symbols=['BTC-USD'], interval='1m')", "sma(price, 3)", 60),
    (
        "StreamInput(symbols=['BTC-USD'], interval='5m')",
        "sma(price, 3)",
        "multiple of the interval",
    ),
    ("StreamInput(symbols=['BTC-USD'])", "builtin('sma', price, 3, interval='5m')", "an edge has one"),
    ("TagQueryNode(['crypto'])", "sma(price, 3)", "has no interval"),
    ("TagQueryNode(['crypto'], interval='1m')", "sma(price, 3)", "reads bars of nothing"),
]


@pytest.mark.parametrize(("source", "node", "expected"), INTERVALS)
def test_an_interval_that_nobody_says_is_that_of_the_data(
    source: str, node: str, expected: int | str, tmp_path: Path
) -> None:
    path = tmp_path / "some_source.py"
    path.write_text(
        "from qmtl import Strategy, StreamInput, TagQueryNode, builtin\n"
        "from qmtl.runtime.sdk.builtins import cross, position_target, sma\n\n\n"
        "class Some(Strategy):\n    def setup(self):\n"
        f"        price = {source}\n        fast = {node}\n        slow = sma(price, 9)\n"
        "        turn = cross(fast, slow)\n"
        "        target = position_target(turn, long_percent=0.5, short_percent=0)\n"
        "        self.add_nodes([price, fast, slow, turn, target])\n"
    )
    data = [written(tmp_path / "bars.csv", 0, 100)]
    if isinstance(expected, int):
        assert run_offline(str(path), data).simulated.interval == expected
        return
    with pytest.raises(QmtlError, match=expected):
        run_offline(str(path), data)


# ---- functions of an author -------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(end=st.integers(20, 200))
def test_functions_trade_as_the_built_in_nodes_that_they_repeat(end: int) -> None:
    bars = {SYMBOL: of_symbol(0, end)}
    of_functions, built_in = (
        [
            (one.fill_time_ms, one.side, one.quantity, one.price, one.fee)
            for one in Runner.offline(strategy, data=bars, interval=60).result.fills
        ]
        for strategy in (PythonCross, BuiltinCross)
    )
    assert of_functions == built_in
    assert of_functions or end < 60


PYTHON = """
from qmtl import ProcessingNode, Strategy, StreamInput, Target


def lean(view):
    return Target(0.5 if view["price"][60].latest()[1] > 7040 else -0.5)


def odd(view):
    {body}


class Leaning(Strategy):
    def setup(self):
        price = StreamInput(symbols=["BTC-USD"], name="price")
        self.add_nodes([price, ProcessingNode(price, lean, gives="target"), ProcessingNode(price, odd, name="strange")])
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1 / 0 if view.bar.close > 7030 else 1.0", "it raised ZeroDivisionError"),
        ("return float('nan') if view.bar.close > 7030 else 1.0", "it gave the number nan"),
        ("return 'much' if view.bar.close > 7030 else 1.0", "it gave"),
        ("return view['other'][60].latest()[1]", "it raised ViewMisused"),
    ],
)
def test_a_function_that_fails_is_told_with_node_symbol_and_bucket(
    body: str, says: str, tmp_path: Path, capsys: Capture
) -> None:
    path, out = tmp_path / "odd_nodes.py", tmp_path / "out"
    path.write_text(PYTHON.format(body=body))
    text = written(tmp_path / "bars.csv", 0, 100)
    ran = call(capsys, "backtest", str(path), "--data", text, "--out", str(out), "--no-parquet")
    assert ran.code == 12
    first, remedy = ran.err.splitlines()
    assert first.startswith(f"[QMTL-413] the node 'strange' failed: {says}")
    bucket_ms = at(31) if "7030" in body else at(1)
    assert f"for {SYMBOL} in the bucket {bucket_ms}" in first
    raised = "it raised" in says
    line = next(at for at, one in enumerate(path.read_text().splitlines(), 1) if body in one)
    assert first.endswith(f", on line 2 of odd(). That is odd_nodes.py line {line}: {body}") == raised
    assert "Repair the function" in remedy
    told = json.loads((out / "result.json").read_text())  # all other nodes have gone on
    assert told["fills"] > 0
    assert told["faults"] == [{"code": "QMTL-413", "what": first.removeprefix("[QMTL-413] ")}]
    assert json.loads((out / "release.jsonl").read_text())["passed"] is False
    assert "Failed nodes" in (out / "report.html").read_text()


def test_functions_of_a_message_come_from_packages_that_are_named(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaning_apart.py").write_text(PYTHON.format(body="return 1.0"))
    text, out = written(tmp_path / "bars.csv", 0, 100), tmp_path / "out"
    run(tmp_path, "backtest", "leaning_apart.py", "--data", text, "--out", str(out), "--no-parquet")
    ran = call(capsys, "backtest", str(out / "dag.json"), "--data", text)
    assert_one_screen(ran, "QMTL-411", 1, says=["leaning_apart:", "--code leaning_apart"])
    monkeypatch.syspath_prepend(tmp_path)
    ran = call(capsys, "backtest", str(out / "dag.json"), "--data", text, "--code", "leaning_apart", "--json")
    told, before = json.loads(ran.out), json.loads((out / "result.json").read_text())
    assert {name: told[name] for name in told if name != "written"} == {
        name: before[name] for name in before if name != "files"
    }


# ---- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5_000, 30_000])
def test_a_disk_that_fills_leaves_no_half_file_and_no_result_of_another_run(
    size: int, strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    text, out = written(tmp_path / "bars.csv", 0, 300), tmp_path / "out"
    line = ("backtest", strategy, "--data", text, "--out", str(out), "--no-parquet")
    assert call(capsys, *line).code == 0
    whole = {one.name: one.read_bytes() for one in out.iterdir()}
    with small_disk(size):
        as_json = call(capsys, *line, "--cash", "50000", "--json")
        ran = call(capsys, *line, "--cash", "50000")
    assert_one_screen(ran, "QMTL-801", 2, says=["can't be written", "Make room", "--out"])
    shown = call(capsys, *line[:-3], "--cash", "50000")  # without --out
    assert ran.out == shown.out  # what the run has come to is told all the same
    assert "FIGURE" in ran.out
    (told,) = as_json.lines()
    assert (as_json.code, told["written"], told["fills"] > 0) == (2, [], True)
    left = {one.name for one in out.iterdir()}
    (gone,) = [name for name in whole if name not in left and name != "result.json"]
    assert gone in ran.err
    assert "result.json" not in left
    assert call(capsys, *line).code == 0
    assert {one.name: one.read_bytes() for one in out.iterdir()} == whole


HALF = "{at},10,12,9,11,1\n{next},10,12,9,1"
REFUSED = {
    "no such strategy": (("nowhere.py",), "QMTL-514", 5, ["nowhere.py"]),
    "no such data": (("{strategy}", "--data", "BTC-USD=nowhere.csv"), "QMTL-702", 7, ["nowhere.csv"]),
    "another symbol": (("{strategy}", "--data", "X={bars}"), "QMTL-706", 7, ["no data of BTC-USD", "--data BTC-USD=FILE"]),
    "form of data": (("{strategy}", "--data", "BTC-USD"), "QMTL-801", 2, ["SYMBOL=FILE"]),
    "an empty range": (("{strategy}", "--data", "BTC-USD={bars}", "--from", "2030-01-01"), "QMTL-706", 7, ["has no bar"]),
    "a range turned round": (("{strategy}", "--from", "2019-01-01", "--to", "2018-01-01"), "QMTL-801", 2, ["has no bar"]),
    "no time": (("{strategy}", "--from", "yesterday"), "QMTL-801", 2, ["--from", "yesterday"]),
    "as_of of files": (("{strategy}", "--data", "BTC-USD={bars}", "--as-of", "1"), "QMTL-801", 2, ["files"]),
    "half a line": (("{strategy}", "--data", "BTC-USD={half}"), "QMTL-702", 7, ["half.csv line 3", "half a line"]),
    "longer bars": (("{strategy}", "--data", "BTC-USD={bars}", "--interval", "7m"), "QMTL-701", 7, ["bars.csv line 2"]),
    "cash": (("{strategy}", "--data", "BTC-USD={bars}", "--cash", "0"), "QMTL-602", 6, ["initial_cash was 0"]),
    "cash in words": (("{strategy}", "--cash", "much"), "QMTL-801", 2, ["--cash"]),
    "fees": (("{strategy}", "--data", "BTC-USD={bars}", "--fee-rate", "2"), "QMTL-602", 6, ["fee_rate was 2"]),
    "an instrument": (("{strategy}", "--instrument", "BTC-USD=1"), "QMTL-801", 2, ["TICK,LOT,MINIMUM"]),
    "a directory that is a file": (("{strategy}", "--data", "BTC-USD={bars}", "--out", "{bars}"), "QMTL-801", 2, ["--out"]),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_refused_is_told_on_one_screen(
    case: str, strategy: str, tmp_path: Path, capsys: Capture
) -> None:
    words, code, exit_code, says = REFUSED[case]
    written(tmp_path / "bars.csv", 0, 100)
    rows = HALF.format(at=START_MS, next=START_MS + 60_000)
    (tmp_path / "half.csv").write_text("open_time_ms,open,high,low,close,volume\n" + rows)
    places = {"strategy": strategy, "bars": tmp_path / "bars.csv", "half": tmp_path / "half.csv"}
    ran = call(capsys, "backtest", *(one.format(**places) for one in words))
    assert_one_screen(ran, code, exit_code, says=says)
    assert not ran.out


def test_parquet_without_its_library_is_refused_before_the_run(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(export, "import_module", absent)
    out = tmp_path / "out"
    ran = call(capsys, "backtest", "nowhere.py", "--out", str(out))
    assert_one_screen(ran, "QMTL-812", 2, says=["pyarrow", "qmtl[data]"])
    assert not out.exists()


def test_a_runner_takes_a_strategy_and_nothing_else() -> None:
    others: list[Any] = ["file.py", 7]
    for other in others:
        with pytest.raises(InvalidStrategy, match="a Strategy"):
            Runner.offline(other)


def test_no_flag_says_how_a_strategy_runs() -> None:
    asked = set(inspect.signature(Runner.offline).parameters) | {one.name for one in backtest.params}
    assert not {one for one in asked if one is None or "mode" in one or "live" in one or "paper" in one}
