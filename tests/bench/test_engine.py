"""The engine's benchmark as a whole, on few records: every part runs, agrees with the oracle, and gives a result of the known shape."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.engine import groups, peers, run, throughput
from bench.engine.gauge import started
from bench.engine.memory import last_rows
from bench.engine.rows import expected, judge, rows, scaled, symbol_of
from bench.engine.sampling import STEPS
from bench.engine.throughput import Arena, Sizes
from bench.engine.work import CODEC, HEADER_BYTES, Snapshot, apply, header, make_trade
from qmtl.foundation.wire.keys import encode_key

FIGURES = {"records_per_s", "records_per_s_with_start", "cpu_s", "peak_rss_mb"}
SPREADS = {"input_to_output_ms", "commit_to_visible_ms", "commit_call_ms"}
PIPELINE = {"engine", "hops", "commit_ms", "per_s", "ticks", "commits"} | SPREADS


def test_a_run_of_all_parts_of_ours_agrees_with_the_oracle_and_has_the_known_shape(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_TEST_BOOTSTRAP", kafka_bootstrap)
    out = tmp_path / "result.json"
    sizes = "--records 3000 --rounds 1 --keys 50 --partitions 2 --restore-keys 2000 --memory-records 4000 --short-commit-ms 0"
    ticks = "--latency-seconds 1 --latency-rate 50 --latency-hops 1 --latency-commit-ms 5"
    parts = "raw,ours,embedded,profile,restore,latency,memory"
    assert run.main([*sizes.split(), *ticks.split(), "--parts", parts, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {"date", "machine", "versions", "options", "ratios", "left_out"} < set(found)
    assert set(run.RATIOS) <= set(found["ratios"])
    assert found["ratios"]["vs_raw_loop"] > 0
    assert found["ratios"]["restore_vs_read"] > 0
    assert found["ratios"]["vs_quix"] is None
    for name in ("raw-50ms", "ours-50ms"):
        assert set(found["throughput"][name]["median"]) == FIGURES
        assert len(found["throughput"][name]["rounds"]) == 1
    assert found["throughput"]["ours-embedded"]["median"]["records_per_s"] > 0
    # What is booked begins with a decode; a run this short may be over between two looks at anything else.
    assert "decode" in found["profile"]["ours"]
    assert found["recovery"]["keys"] == 2000
    assert found["recovery"]["restore"]["median"]["records"] >= 2000
    assert found["recovery"]["restart"]["median"]["to_next_commit_s"] > 0
    assert found["recovery"]["restart"]["median"]["read"] < 2000
    assert [one["engine"] for one in found["latency"]] == ["raw", "raw-eager", "ours"]
    for one in found["latency"]:
        assert set(one) == PIPELINE
        assert one["commits"] > 0
        assert all(
            0 < one[name]["p50"] <= one[name]["p95"] <= one[name]["p99"] <= one[name]["max"]
            for name in SPREADS
        )
    assert found["memory"]["records"] == 4000
    assert found["versions"]["quix"]["quixstreams"] == "3.28.1"
    assert found["versions"]["faust"]["faust-streaming"] == "0.15.3"


def test_a_group_is_measured_for_how_long_tasks_are_nobodys(kafka_bootstrap: str, tmp_path: Path) -> None:
    endings = groups.ENDINGS[:1]
    (found,) = groups.measure(
        kafka_bootstrap, f"{tmp_path.name}.", 1, lambda text: None, ["classic"], endings
    )
    assert (found["protocol"], found["ending"]) == ("classic", "killed and started again")
    assert 0 < found["median"] < found["session_ms"] / 1e3


def test_a_library_that_can_not_be_installed_is_left_out_aloud(kafka_bootstrap: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    said: list[str] = []
    sizes = Sizes(100, 5, 1, 2, 1, 50.0, 10.0)
    arena = Arena(kafka_bootstrap, f"{tmp_path.name}.", tmp_path, sizes, said.append, taken / "work")
    left_out: dict[str, str] = {}
    assert throughput.measure(arena, throughput.contenders(["quix"], sizes), left_out) == {}
    arena.close()
    assert left_out["quix"].startswith("quix: its environment could not be made")
    assert f"LEFT OUT {left_out['quix']}" in said
    assert throughput.ratios({}, sizes)["vs_quix"] is None


@pytest.mark.parametrize("name", ["quix", "faust"])
def test_every_package_of_a_library_s_environment_has_its_hashes(name: str) -> None:
    lines = (peers.HERE / f"{name}.lock").read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if "==" in line and line[0].isalpha()]
    assert starts
    assert all(lines[number + 1].strip().startswith("--hash=sha256:") for number in starts)


def test_every_place_to_which_time_is_booked_is_there() -> None:
    root = Path(__file__).parents[2]
    files = [*root.glob("qmtl/**/*.py"), *root.glob("bench/**/*.py")]
    for file, name, _ in STEPS:
        (found,) = [one for one in files if str(one).endswith("/" + file)]
        kind, _, function = name.partition(".")
        text = found.read_text()
        assert not kind or f"class {kind}" in text, (file, name)
        assert not function or f"    def {function}(" in text, (file, name)


# ---- the oracle -------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.integers(-(10**12), 10**12), st.integers(1, 6))
def test_a_scaled_number_is_the_normal_form_of_its_value(units: int, places: int) -> None:
    text = scaled(units, places)
    whole, _, part = text.removeprefix("-").partition(".")
    sign = -1 if text.startswith("-") else 1
    assert sign * int(whole + part.ljust(places, "0")) == units
    assert not part.endswith("0")
    assert text != "-0"
    assert whole == "0" or not whole.startswith("0")


def test_the_rule_of_the_engines_and_the_oracle_give_the_same_bytes() -> None:
    held: dict[str, Snapshot] = {}
    want = expected(5000, 37, header(Snapshot))
    made: dict[str, list[bytes]] = {}
    for one in rows(5000, 37):
        held[one.symbol] = apply(held.get(one.symbol), make_trade(one))
        made.setdefault(one.symbol, []).append(CODEC.encode(held[one.symbol]))
    assert made == want.snapshots


def test_the_last_rows_of_many_cycles_are_those_of_one_after_the_other() -> None:
    held: dict[str, Snapshot] = {}
    for _ in range(3):
        for one in rows(500, 11):
            held[one.symbol] = apply(held.get(one.symbol), make_trade(one))
    assert last_rows(500, 3, 11) == {encode_key((name,)): CODEC.encode(value) for name, value in held.items()}


WANT = expected(60, 4, header(Snapshot))
GOOD = [value for values in WANT.snapshots.values() for value in values]


def test_the_right_output_is_right_in_any_order_between_symbols() -> None:
    chance = random.Random(7)
    left = {symbol: list(values) for symbol, values in WANT.snapshots.items()}
    mixed = []
    while any(left.values()):
        mixed.append(left[chance.choice([name for name, values in left.items() if values])].pop(0))
    assert judge(WANT, mixed, HEADER_BYTES) is None


@given(st.integers(0, 59), st.sampled_from(["lost", "doubled", "early", "another"]))
def test_no_output_with_one_fault_is_right(at: int, fault: str) -> None:
    bad = list(GOOD)
    match fault:
        case "lost":
            del bad[at]
        case "doubled":
            bad.insert(at, bad[at])
        case "early":
            same = [
                place
                for place, value in enumerate(bad)
                if symbol_of(value, HEADER_BYTES) == symbol_of(bad[at], HEADER_BYTES)
            ]
            bad[same[0]], bad[same[-1]] = bad[same[-1]], bad[same[0]]
        case _:
            bad[at] = bad[at][:-1] + bytes((bad[at][-1] ^ 1,))
    assert judge(WANT, bad, HEADER_BYTES) is not None


def test_no_word_of_a_child_is_lost_while_it_is_read() -> None:
    """Both sides have the same open file; a reader that moved its position would make the child write over itself."""
    telling = "import sys\nfor number in range(20_000): print('{\"number\": %d}' % number, flush=True)"
    with started([sys.executable, "-c", telling], "teller") as child:
        while child.process.poll() is None:
            child.facts()
        assert [fact["number"] for fact in child.facts()] == list(range(20_000))
