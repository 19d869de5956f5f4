"""The benchmark of backtests on few bars, without the other engines: the count is right, and what is not as it was counted gives no figure."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.backtest import count, floats, orders, ours, peers, rounds, run, through, workload
from bench.backtest.count import Expected, expected
from bench.backtest.market import COLUMNS, Market, market
from bench.backtest.ours import Asked
from bench.backtest.peers import PEERS, Found
from bench.engine.gauge import Failed

BARS = 2_000
DATA = market(BARS)
WANT = expected("cross", DATA)

# ---- the count ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bars, fills", [(20_000, 747), (50_000, 1_942), (100_000, 3_872), (200_000, 7_768)])
def test_the_count_is_that_of_the_workload_s_definition(bars: int, fills: int) -> None:
    assert expected("cross", market(bars)).fills == fills


def flat(closes: list[int]) -> Market:
    """Bars of these closes, each opened at the close before, in hundredths."""
    close = np.array(closes, dtype=np.int64)
    return Market(np.concatenate((close[:1], close[:-1])), close, close, close, close)


def bar_by_bar(strategy: str, closes: list[int]) -> list[tuple[int, int]]:
    """Bar and price of every fill, by fractions and a walk over the bars."""
    lengths = {"cross": (10, 30), "dense": (1, 2), "ladder": (10, 30, 60)}[strategy]
    out: list[tuple[int, int]] = []
    held, side = False, 0
    for at in range(max(lengths) - 1, len(closes) - 1):
        averages = [Fraction(sum(closes[at + 1 - one : at + 1]), one) for one in lengths]
        wanted = held
        if strategy == "ladder":
            fast, slow, slowest = averages
            wanted = fast > slow > slowest and closes[at] > slowest
        elif averages[0] != averages[1]:
            before, side = side, 1 if averages[0] > averages[1] else -1
            wanted = side > 0 and (held or before < 0)
        if wanted != held:
            held = wanted
            out.append((at, closes[at]))
    return out


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(count.HOLDINGS)), st.integers(0, 2**32), st.integers(61, 200), st.integers(1, 9)
)
def test_the_count_is_what_a_walk_over_the_bars_gives(strategy: str, seed: int, bars: int, step: int) -> None:
    closes = (5_000 + np.cumsum(np.random.default_rng(seed).integers(-step, step + 1, bars))).tolist()
    found = expected(strategy, flat(closes))
    assert list(zip(found.at.tolist(), found.price.tolist(), strict=True)) == bar_by_bar(strategy, closes)
    assert found.position == found.fills % 2
    flows = [(-1) ** (number + 1) * price * 1000 - price for number, price in enumerate(found.price.tolist())]
    assert found.cash == sum(flows)


# ---- ours ---------------------------------------------------------------------------------------------------------------


def test_a_run_without_peers_gives_figures_of_the_known_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rounds, "once", ours.measure
    )  # a process of its own takes longer to begin than to run
    out = tmp_path / "result.json"
    few = ["--parts", "w1,orders,sharing", "--peers", "", "--bars", str(BARS), "--rounds", "1"]
    few += ["--orders", "20", "40", "--many", "2", "--sharing-bars", str(BARS)]
    assert run.main([*few, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {"date", "machine", "versions", "options", "left_out", "w1"} < set(found)
    assert found["w1_fills"] == found["w1"]["builtin"]["fills"] == WANT.fills > 50
    assert found["w1_builtin_bars_per_s"] > 0
    assert found["w1_python_bars_per_s"] > 0
    assert found["w1"]["builtin"]["rows"] > 5 * WANT.fills > found["w1"]["builtin_in_memory"]["rows"] == 0
    assert found["orders"]["by_orders"]["40"]["us_per_order"] > 0
    assert found["sharing"]["ours"]["50"]["2"]["nodes"] == 15
    assert not {"log", "w1_floats"} & set(found)


def test_a_wrong_number_of_fills_gives_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = replace(WANT, at=np.append(WANT.at, BARS), price=np.append(WANT.price, 1))
    monkeypatch.setattr(run, "expected", lambda strategy, data: more)
    out = tmp_path / "result.json"
    few = ["--parts", "w1", "--peers", "", "--bars", str(BARS), "--rounds", "1"]
    assert run.main([*few, "--out", str(out)]) == 1
    assert not out.exists()
    said = capsys.readouterr()
    assert f"{WANT.fills} fills, counted were {WANT.fills + 1}; its figures do not count" in said.err
    assert "bars/s" not in said.out


@pytest.mark.parametrize(
    "wrong, says",
    [
        (replace(WANT, at=WANT.at[:-1], price=WANT.price[:-1]), "fills, counted were"),
        (replace(WANT, price=WANT.price + 1), "fill 1 is"),
        (replace(WANT, at=WANT.at + 1), "fill 1 is"),
        (replace(WANT, position=WANT.position + 1), "units are held at the end"),
        (replace(WANT, cash=WANT.cash + 1), "cash has changed by"),
    ],
)
def test_what_differs_from_the_count_in_its_last_digit_is_found(wrong: Expected, says: str) -> None:
    found = ours.run(Asked("cross", BARS), DATA)
    assert ours.fault(found, WANT) is None
    assert says in (ours.fault(found, wrong) or "")


def test_functions_of_an_author_s_fill_what_the_built_in_nodes_fill() -> None:
    asked = Asked("cross", BARS)
    builtin, python = ours.run(asked, DATA), ours.run(replace(asked, python=True), DATA)
    assert ours.fault(python, WANT) is None
    assert {one.node.node_id for one in python.done.graphs[0].nodes} & {
        one.node.node_id for one in builtin.done.graphs[0].nodes
    } == {builtin.done.graphs[0].nodes[0].node.node_id}  # the source alone is the same


@pytest.mark.parametrize("shared", workload.SHARES)
def test_strategies_compute_what_they_share_once_and_fill_the_same(shared: int) -> None:
    told = ours.measure(Asked("ladder", BARS, 0, 3, shared, recorded=True))
    assert told["fault"] is None
    assert told["computed"] == workload.unique_nodes(3, shared) == {0: 30, 50: 20, 90: 12}[shared]
    assert told["fills"] == 3 * expected("ladder", DATA).fills > 0


@given(st.integers(1, 500))
@settings(max_examples=20)
def test_so_many_orders_are_filled_as_are_asked_for(many: int) -> None:
    bars = orders.bars_of(many, 1_000)
    assert expected("dense", market(1_000).repeated(bars)).fills == many
    assert expected("dense", market(1_000).repeated(bars - 1)).fills == many - 1


def test_prices_that_double_are_refused() -> None:
    doubled = Market(*(np.append(getattr(DATA, name), 2 * getattr(DATA, name)[:1]) for name in COLUMNS))
    with pytest.raises(Failed, match="no share of equity is one unit at both"):
        workload.share_of_one(doubled)


def test_the_processors_on_a_log_order_and_fill_the_same(tmp_path: Path) -> None:
    bars = 120
    found = through.run(f"embedded:{tmp_path / 'log'}", tmp_path / "state", Asked("cross", bars))
    columns = ours.run(Asked("cross", bars), market(bars))
    assert found.orders == through.rows(columns.orders()) != []
    assert found.fills == through.rows(columns.fills())


def test_many_strategies_that_share_nodes_order_on_a_log_what_they_order_in_columns(tmp_path: Path) -> None:
    bars = 72  # the slowest average takes 60
    asked = Asked("ladder", bars, 0, 30, 50)
    found = through.run(f"embedded:{tmp_path / 'log'}", tmp_path / "state", asked)
    columns = ours.run(asked, market(bars))
    assert found.orders == through.rows(columns.orders())
    assert found.fills == through.rows(columns.fills())
    assert len(found.fills) == 30 * expected("ladder", market(bars)).fills > 30


# ---- the others ---------------------------------------------------------------------------------------------------------


def as_floats(want: Expected) -> Found:
    """What an engine with floats would tell, in the order of vectorbt's operations."""
    price = want.price / 100
    fee = price * floats.FEES
    bought = np.arange(want.fills) % 2 == 0
    pairs = want.fills // 2
    entry, sold = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    profit = price[sold] - price[entry] - fee[entry] - fee[sold]
    cash = peers.CASH + np.cumsum(np.where(bought, -price, price) - fee)
    told = {"position": float(want.position), "cash_change": float(cash[-1]) - peers.CASH}
    more = {"size": np.ones(want.fills), "trade_pnl": profit, "cash": cash}
    return Found(told, price, bought, want.at, fee, more)


def test_a_peer_is_right_within_what_its_floats_make_of_cash() -> None:
    (vectorbt,) = rounds.peers_named(["vectorbt"])
    (exact,) = rounds.peers_named(["nautilus"])
    found = as_floats(WANT)
    assert peers.fault(vectorbt, found, WANT) is None
    assert 0 < abs(peers.cash_off(found, WANT)) < vectorbt.cash_off
    assert "cash is off by" in (peers.fault(exact, found, WANT) or "")


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"price": WANT.price[:-1] / 100}, "fills, counted were"),
        ({"price": WANT.price / 100 + 0.01}, "price of fill 1 is"),
        ({"bought": np.arange(WANT.fills) % 2 == 1}, "side of fill 1 is"),
        ({"at": WANT.at + 1}, "bar of fill 1 is"),
        ({"told": {"position": 2.0, "cash_change": WANT.cash / 1e5}}, "2.0 units are held"),
        ({"told": {"position": float(WANT.position), "cash_change": WANT.cash / 1e5 + 0.01}}, "cash is off"),
    ],
)
def test_a_peer_that_is_wrong_is_refused(changed: dict[str, Any], says: str) -> None:
    assert says in (peers.fault(PEERS[0], replace(as_floats(WANT), **changed), WANT) or "")


def test_our_fills_give_the_floats_of_the_same_operations_bit_for_bit() -> None:
    mine = ours.run(Asked("cross", BARS), DATA)
    theirs = as_floats(WANT)
    found = floats.compare(mine.fills(), theirs)
    assert found["same_operations"] == {"fees": 0, "pnl": 0}
    assert (found["price_ulps"], found["quantity_ulps"]) == (0, 0)
    assert found["fee_ulps"] <= 1
    assert found["pnl_off_at_most"] < 1e-10
    profit = theirs.more["trade_pnl"].copy()
    profit[3] = np.nextafter(profit[3], np.inf)
    with pytest.raises(Failed, match="'pnl': 1"):
        floats.compare(mine.fills(), replace(theirs, more={**theirs.more, "trade_pnl": profit}))
    with pytest.raises(Failed, match="fills of ours"):
        floats.compare(mine.fills()[:-1], theirs)


def test_a_peer_that_can_not_be_installed_is_left_out_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(PEERS[0], python="3.0")
    monkeypatch.setattr(rounds, "PEERS", (absent,))
    said: list[str] = []
    left_out: dict[str, str] = {}
    assert rounds.each_peer(["vectorbt"], DATA, "cross", 1, left_out, said.append) == {}
    assert left_out["vectorbt, cross"] == "vectorbt: needs Python 3.0; there is no python3.0 on the PATH"
    assert said == [f"LEFT OUT {left_out['vectorbt, cross']}"]
    with pytest.raises(Failed, match="there is no peer lean"):
        rounds.peers_named(["lean"])


@pytest.mark.parametrize("peer", PEERS, ids=lambda one: one.name)
def test_every_package_of_a_peer_has_its_hashes(peer: peers.Peer) -> None:
    lines = (peers.HERE / f"{peer.name}.lock").read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if "==" in line and line[0].isalpha()]
    assert starts
    assert all(lines[number + 1].strip().startswith("--hash=sha256:") for number in starts)
    pinned = (peers.HERE / f"{peer.name}.in").read_text()
    assert f"{peer.package}=={peers.version(peer)}\n" in pinned
