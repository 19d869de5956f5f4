"""`qmtl sweep`: what it prints and writes, what it refuses, and how it ends when it is told to."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from qmtl.backtest.simulation import simulate
from qmtl.interfaces.report.from_backtest import result_of
from qmtl.runtime.data.reading import load_bars
from qmtl.runtime.performance.kpi import performance_of
from tests.interfaces.cli.running import Ran, assert_one_screen, call, environment
from tests.interfaces.report.test_page import Parsed

STRATEGY = "import qmtl.examples.crossing\nclass Crossing(qmtl.examples.crossing.Crossing):\n    pass\n"
MADE = "from qmtl.examples.crossing import Crossing\nmade = Crossing()\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a strategy and the first hours of the shipped bars."""
    from qmtl.runtime.data.bars import default_sources, read_bars

    directory = tmp_path_factory.mktemp("sweep")
    (directory / "swept_strategy.py").write_text(STRATEGY)
    (directory / "made_strategy.py").write_text(MADE)
    source = default_sources()[0]
    rows = [one for one, _ in zip(read_bars(source.path, source.symbol, 60), range(400), strict=False)]
    with (directory / "bars.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["open_time_ms", "open", "high", "low", "close", "volume"])
        writer.writerows(
            [one.open_time_ms, one.open, one.high, one.low, one.close, one.volume] for one in rows
        )
    return directory


def sweep(
    capsys: pytest.CaptureFixture[str], place: Path, *more: str, strategy: str = "swept_strategy.py"
) -> Ran:
    data = f"BTC-USD={place / 'bars.csv'}"
    return call(capsys, "sweep", str(place / strategy), "--data", data, *more)


GRID = ("--param", "fast=3:12:3", "--param", "slow=9,20", "--where", "fast<slow")


def test_a_sweep_writes_all_and_shows_the_best(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    ran = sweep(
        capsys, place, *GRID, "--by", "net_profit", "--top", "3", "--out", str(place / "out"), "--parquet"
    )
    assert ran.code == 0, ran
    shown = [line for line in ran.out.splitlines() if "crossing-" in line]
    assert len(shown) == 3
    assert "Combinations: 6, of which 0 failed." in ran.out
    assert "Nodes: 18 different ones of 30 that were asked for." in ran.out  # 1 + 5 averages + 2 * 6
    with (place / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(one["param_fast"], one["param_slow"]) for one in rows] == [
        (fast, slow) for fast in ("3", "6", "9", "12") for slow in ("9", "20") if int(fast) < int(slow)
    ]
    profits = sorted((Decimal(one["net_profit"]) for one in rows), reverse=True)
    assert all(
        str(rows[[Decimal(one["net_profit"]) for one in rows].index(profits[at])]["strategy_id"]) in shown[at]
        for at in range(3)
    )
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(place / "out" / "results.parquet")
    assert table.column_names == list(rows[0])
    assert [str(one) for one in table["param_fast"].to_pylist()] == [one["param_fast"] for one in rows]
    assert table["net_profit"].to_pylist() == [Decimal(one["net_profit"]) for one in rows]
    assert str(table.schema.field("sharpe").type) == "double"
    assert str(table.schema.field("fills").type) == "int64"


def test_the_best_message_is_a_strategy_with_these_figures(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    ran = sweep(capsys, place, *GRID, "--by", "fees", "--ascending", "--out", str(place / "best"), "--json")
    assert ran.code == 0, ran
    (found,) = ran.lines()
    values = [Decimal(one["figures"]["fees"]) for one in found["rows"]]
    assert values == sorted(values)
    assert (found["combinations"], found["failed"], found["nodes"]) == (6, 0, {"asked": 30, "unique": 18})
    message = (place / "best" / "best.json").read_bytes()
    read = load_bars([f"BTC-USD={place / 'bars.csv'}"])
    wanted = performance_of(result_of(simulate([message], read.bars)))
    best = found["rows"][0]
    assert json.loads(message)["strategy_id"] == best["strategy_id"]
    assert Decimal(best["figures"]["net_profit"]) == wanted["net_profit"].value
    assert best["figures"]["sharpe"] == wanted["sharpe"].value


def test_the_page_is_well_formed_and_has_a_cell_for_each_pair_that_was_tried(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    tried = ["fast=3:12:3", "slow=9,20,30", "share=0.2,2"]
    said = [word for one in tried for word in ("--param", one)]
    ran = sweep(capsys, place, *said, "--where", "fast<slow", "--out", str(place / "page"), "--json")
    assert ran.code == 0, ran
    source = (place / "page" / "sweep.html").read_text()
    found = Parsed(source)
    assert not found.open
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert found.tags["g"] == 2 + 4 + 4
    assert "20 combinations, 10 failed" in "".join(found.text)
    assert str(place) not in source, "a page that is given to others tells no place of this machine"
    (rows,) = (one["rows"] for one in ran.lines())
    best: dict[tuple[Any, Any], float] = {}
    for one in rows:
        pair = (one["parameters"]["fast"], one["parameters"]["slow"])
        if "figures" in one:
            best[pair] = max(best.get(pair, -1e9), one["figures"]["sharpe"])
    for (fast, slow), value in best.items():
        written = f"{value:,.2f}".replace("-", "\u2212")
        assert f"fast {fast}, share 0.2, slow {slow}: Sharpe ratio {written}" in source
    assert "QMTL-512" in source
    assert "Of all values of share the greatest is shown." in source


BAD = {
    "no parameters": (["--param", "fast="], "QMTL-850", 2, "'fast' had no values"),
    "none at all": ([], "QMTL-850", 2, "0 parameters"),
    "unknown parameter": (
        ["--param", "length=3"],
        "QMTL-850",
        2,
        "does not take 'length'; it takes fast, share, slow",
    ),
    "step of 0": (["--param", "fast=1:2:0"], "QMTL-850", 2, "a step of 0"),
    "empty range": (["--param", "fast=9:3:1"], "QMTL-850", 2, "is empty"),
    "twice": (["--param", "fast=3,3"], "QMTL-850", 2, "twice"),
    "too many": (
        ["--param", "fast=1:200:1", "--param", "slow=1:200:1"],
        "QMTL-850",
        2,
        "40000 combinations; at most 10000",
    ),
    "a condition that is none": (
        ["--param", "fast=3", "--where", "fast<f()"],
        "QMTL-850",
        2,
        "--where was 'fast<f()'",
    ),
    "unknown figure": (["--param", "fast=3", "--by", "luck"], "QMTL-850", 2, "no figure 'luck'"),
    "all refused": (["--param", "fast=0"], "QMTL-853", 6, "fast 0: [QMTL-512]"),
    "no money": (["--param", "fast=3", "--cash", "lots"], "QMTL-801", 2, "--cash was the text 'lots'"),
    "an address without its engine": (
        ["--param", "fast=3", "--ray-address", "auto"],
        "QMTL-801",
        2,
        "--engine ray",
    ),
    "a period that is no multiple": (
        ["--param", "fast=3", "--period", "90s"],
        "QMTL-101",
        1,
        "period was 90 s",
    ),
}


@pytest.mark.parametrize("more, code, exit_code, told", BAD.values(), ids=BAD.keys())
def test_what_can_not_be_swept_is_refused(
    capsys: pytest.CaptureFixture[str], place: Path, more: list[str], code: str, exit_code: int, told: str
) -> None:
    ran = sweep(capsys, place, *more, "--out", str(place / "refused"))
    assert_one_screen(ran, code, exit_code, says=[told])
    assert not (place / "refused").exists()


@pytest.mark.parametrize("strategy", ["made_strategy.py:made", "missing.py", "swept_strategy.py:Other"])
def test_what_is_no_class_is_refused(capsys: pytest.CaptureFixture[str], place: Path, strategy: str) -> None:
    assert_one_screen(sweep(capsys, place, "--param", "fast=3", strategy=strategy), "QMTL-514", 5)


def test_ray_is_refused_where_it_is_not_installed(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = sweep(capsys, place, "--param", "fast=3", "--engine", "ray", "--out", str(place / "refused"))
    assert_one_screen(ran, "QMTL-812", 2, says=["pip install 'qmtl[ray]'"])


SLOW = ("--param", "fast=2:61:1", "--param", "slow=70,80")


def hearing() -> None:
    """Whoever runs the tests in the background has them ignore Ctrl-C, and what they start, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_all_processes_and_writes_nothing(place: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "qmtl",
            "sweep",
            "swept_strategy.py",
            *SLOW,
            "--processes",
            "2",
            "--out",
            "stopped",
        ],
        cwd=place,
        env=environment(TMPDIR=str(place)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hearing,
    )
    deadline = time.monotonic() + 60
    while len(of_session(process.pid)) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    while of_session(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (place / "stopped").exists()
    assert not list(place.glob("qmtl-sweep-*"))


def of_session(session: int) -> list[int]:
    """The processes of a session; who waits to be buried is none."""
    found = []
    for one in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *rest = one.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(rest[2]) == session and state != "Z":
            found.append(int(one.parent.name))
    return found
