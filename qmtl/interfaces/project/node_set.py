"""The package that a new node set begins as. The same name gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PYPROJECT: Final = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "@name@"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["qmtl"]

[project.entry-points."qmtl.nodesets"]
@name@ = "@name@.recipe:make_@name@_nodeset"

[tool.setuptools]
packages = ["@name@"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
"""

_README: Final = """\
# @name@

A node set of QMTL: what is hung behind a signal so that it is executed at @name@.

| file | what to change |
|---|---|
| `@name@/profile.py` | what the exchange charges and accepts, as ccxt's `market()` says it |
| `@name@/recipe.py` | parameters, modes and steps |
| `@name@/example.py` | a strategy that uses it |
| `tests/test_contract.py` | nothing: it holds the recipe to what all recipes keep |

```sh
python -m pytest
pip install -e . && qmtl nodeset describe @name@
```
"""

_INIT: Final = '"""The node set of @name@."""\n'

_PROFILE: Final = '''\
"""What @name@ charges and accepts."""

from __future__ import annotations

from collections.abc import Mapping

from qmtl.runtime.brokerage.ccxt_profile import CcxtBrokerage, make_ccxt_brokerage

EXCHANGE: Mapping[str, object] = {"fees": {"trading": {"maker": "0.001", "taker": "0.001", "percentage": True}}}
"""Where a market says no fee: look them up at the exchange."""


def make_@name@_brokerage(market: Mapping[str, object]) -> CcxtBrokerage:
    """The profile of a market, as ccxt's `market()` gives it."""
    return make_ccxt_brokerage(market, EXCHANGE)
'''

_RECIPE: Final = '''\
"""How a signal is executed at @name@."""

from __future__ import annotations

from qmtl.runtime.nodesets.node_set import NodeSet
from qmtl.runtime.nodesets.recipes import NodeSetRecipe, build_adapter
from qmtl.runtime.nodesets.registry import nodeset_recipe
from qmtl.runtime.sdk.nodes import Node

from @name@.profile import make_@name@_brokerage

RECIPE = NodeSetRecipe("@name@", "Markets of @name@.", venue="@name@", brokerage=make_@name@_brokerage)
"""A step of its own replaces one of DEFAULT_STEPS (`qmtl.runtime.nodesets.steps`), with StepSpec.from_factory."""


@nodeset_recipe("@name@")
def make_@name@_nodeset(signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """Markets of @name@."""
    return build_adapter(RECIPE).attach(signal, world_id, **kwargs)
'''

_EXAMPLE: Final = '''\
"""A strategy whose signal is executed at @name@."""

from __future__ import annotations

from qmtl import Strategy, StreamInput, builtin

from @name@.recipe import make_@name@_nodeset


class Example(Strategy):
    """Long while the fast average of the closes is above the slow one."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], interval="1m", name="price")
        fast, slow = builtin("sma", price, 3, name="fast"), builtin("sma", price, 9, name="slow")
        cross = builtin("cross", [fast, slow], name="cross")
        signal = builtin("position_target", cross, name="target", long_percent=0.4, short_percent=0)
        self.add_nodes([price, fast, slow, cross, signal, make_@name@_nodeset(signal, "backtest")])
'''

_TEST: Final = '''\
"""The recipe keeps what every recipe keeps, and does what a backtest does."""

from __future__ import annotations

from decimal import Decimal

import pytest
from qmtl import dag_message
from qmtl.backtest.simulation import simulate
from qmtl.backtest.through import through
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.nodesets.node_set import NodeSet
from qmtl.testing.recipe_contract import require_recipe_contract

from @name@.example import Example
from @name@.profile import make_@name@_brokerage
from @name@.recipe import RECIPE


@pytest.mark.parametrize("mode", RECIPE.modes)
def test_the_recipe_keeps_the_contract(mode: str) -> None:
    require_recipe_contract(RECIPE, mode)


def test_the_node_set_does_what_a_backtest_does() -> None:
    bars = []
    for at in range(60):
        price = Decimal(100 + at % 17)
        bars.append(Bar("BTC-USD", at * 60_000, 60, price, price, price, price, Decimal(1)))
    strategy = Example()
    done = simulate([dag_message(strategy)], {"BTC-USD": BarColumns.of("BTC-USD", 60, bars)})
    (nodeset,) = strategy.attachments
    assert isinstance(nodeset, NodeSet)
    found = through(nodeset, done)
    assert done.fills
    assert sorted(found.fills, key=repr) == sorted(done.fills, key=repr)


def test_the_profile_charges() -> None:
    profile = make_@name@_brokerage({"symbol": "BTC/USDT", "base": "BTC", "quote": "USDT"})
    assert profile.symbol == "BTC/USDT"
'''

_FILES: Final = {
    "README.md": _README,
    "pyproject.toml": _PYPROJECT,
    "@name@/__init__.py": _INIT,
    "@name@/example.py": _EXAMPLE,
    "@name@/profile.py": _PROFILE,
    "@name@/recipe.py": _RECIPE,
    "tests/test_contract.py": _TEST,
}


def files_of(name: str) -> Mapping[str, bytes]:
    """The files of the package, by their paths in it.

    Args:
        name: of the recipe and of the package.
    """
    return {
        path.replace("@name@", name): body.replace("@name@", name).encode() for path, body in _FILES.items()
    }
