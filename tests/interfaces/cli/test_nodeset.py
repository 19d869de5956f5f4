"""Node sets are listed and described, and a new one begins as a package whose own tests pass."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from qmtl import Strategy, dag_message
from qmtl.backtest.simulation import simulate
from qmtl.backtest.through import through
from qmtl.foundation.common.errors import InvalidNodeSet, QmtlError, RecipeTaken, UnknownRecipe, UsageError
from qmtl.runtime.nodesets.node_set import NodeSet
from qmtl.runtime.nodesets.recipes import RECIPES
from qmtl.runtime.nodesets.steps import KINDS
from tests.interfaces.cli.running import assert_one_screen, call
from tests.runtime.data.walk import walk

Capture = pytest.CaptureFixture[str]


def test_every_recipe_is_listed(capsys: Capture) -> None:
    rows = [json.loads(line) for line in call(capsys, "nodeset", "list", "--json").out.splitlines()]
    told = {row["name"]: (row["modes"], row["params"]) for row in rows}
    for name, one in RECIPES.items():
        assert told[name] == (list(one.modes), [param.name for param in one.params])
    assert "ccxt_spot" in call(capsys, "nodeset", "list").out


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_described(capsys: Capture, name: str) -> None:
    told = json.loads(call(capsys, "nodeset", "describe", name, "--json").out)
    assert (told["name"], told["nodes"], told["modes"]) == (name, list(KINDS), list(RECIPES[name].modes))
    assert " > ".join(KINDS) in call(capsys, "nodeset", "describe", name).out.replace("\n", "")


def test_a_parameter_is_said(capsys: Capture) -> None:
    args = ("nodeset", "describe", "ccxt_spot", "--param", "exchange_id=kraken", "--json")
    assert json.loads(call(capsys, *args).out)["venue"] == "kraken"


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (("describe", "nothing"), UnknownRecipe, "known are"),
        (("describe", "ccxt_spot", "--param", "exchange_id"), UsageError, "NAME=TEXT"),
        (("describe", "ccxt_spot", "--param", "key=x"), InvalidNodeSet, "was given 'key'"),
        (("new", "ccxt_spot"), RecipeTaken, "a recipe already"),
        (("new", "No Name"), UsageError, "QMTL-"),
    ],
)
def test_what_is_not_there_is_one_screen(
    capsys: Capture, args: tuple[str, ...], error: type[QmtlError], says: str
) -> None:
    ran = call(capsys, "nodeset", *args)
    assert_one_screen(ran, error.code, error.exit_code)
    assert says in ran.err.replace("\n", " ")


def test_a_new_node_set_passes_its_own_tests_and_is_never_written_over(
    capsys: Capture, tmp_path: Path
) -> None:
    ran = call(capsys, "nodeset", "new", "anvenue", "--into", str(tmp_path), "--json")
    files = json.loads(ran.out)["files"]
    assert all((tmp_path / "anvenue" / path).is_file() for path in files)
    assert not [path for path in files if "@name@" in (tmp_path / "anvenue" / path).read_text("utf-8")]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "anvenue",
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "5 passed" in tests.stdout
    assert call(capsys, "nodeset", "new", "anvenue", "--into", str(tmp_path)).code != 0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_there_is_an_example_of_each_recipe_and_it_trades(name: str) -> None:
    module = import_module(f"qmtl.examples.nodesets.{name}")
    (found,) = (
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Strategy) and one is not Strategy
    )
    strategy: Strategy = found()
    (nodeset,) = strategy.attachments
    assert isinstance(nodeset, NodeSet)
    assert nodeset.describe()["name"] == name
    symbol = "AAPL" if name == "ibkr_like" else "BTC-USD"
    done = simulate([dag_message(strategy)], {symbol: replace(walk(0, 200), symbol=symbol)})
    executed = through(nodeset, done)
    assert len(done.fills) > 1
    assert executed.orders == dict(done.orders)
