"""A strategy is taken from where its author has it; what is wrong with that place is told with its line, and nothing of Python's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from qmtl.foundation.common.errors import InvalidDag, InvalidStrategy, StrategyNotLoaded
from qmtl.runtime.sdk.functions import Functions
from qmtl.runtime.sdk.loading import MAX_MESSAGE_BYTES, lacks_interval, load_strategy, message_of
from qmtl.runtime.sdk.message import dag_message
from qmtl.runtime.sdk.strategy import Strategy
from qmtl.services.dagmanager import raw

CROSS = """
    from qmtl import ProcessingNode, Strategy, StreamInput, Target
    from beside import LENGTH

    def lean(view):
        return Target(0.5 if view[0][60].latest()[1] > 0 else -0.5)

    class Lean(Strategy):
        def setup(self):
            price = StreamInput(symbols=["BTC-USD"], name="price")
            self.add_nodes([price, ProcessingNode(price, lean, period=LENGTH, gives="target")])
"""


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """What a test imports is forgotten after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(path: Path, source: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(source))
    return str(path)


def nodes(message: bytes) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(message)["nodes"]
    return found


def test_a_file_a_class_and_a_package_give_the_same_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "beside.py", "LENGTH = 3")
    file = write(tmp_path / "leaning.py", CROSS)
    monkeypatch.chdir(tmp_path)
    of_file = message_of(load_strategy(file), 60)
    assert message_of(load_strategy(f"{file}:Lean"), 60) == of_file
    assert message_of(load_strategy("leaning:Lean"), 60) == of_file
    function = nodes(of_file)[1]
    assert function["code"] == "leaning:lean"
    found = Functions().find([], str(function["code_hash"]))  # this process can run it
    assert found.__name__ == "lean"


def test_a_file_of_a_package_is_imported_as_a_part_of_it(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "__init__.py", "")
    write(tmp_path / "mine" / "beside.py", "LENGTH = 3")
    file = write(tmp_path / "mine" / "leaning.py", CROSS.replace("from beside", "from .beside"))
    assert nodes(message_of(load_strategy(file), 60))[1]["code"] == "mine.leaning:lean"


def test_a_changed_file_is_loaded_anew(tmp_path: Path) -> None:
    write(tmp_path / "beside.py", "LENGTH = 3")
    before = message_of(load_strategy(write(tmp_path / "leaning.py", CROSS)), 60)
    after = message_of(load_strategy(write(tmp_path / "leaning.py", CROSS.replace("0.5", "0.25"))), 60)
    assert nodes(before)[1]["code_hash"] != nodes(after)[1]["code_hash"]


def test_a_message_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dag.json").write_bytes(b'{"any": "bytes"}\n')
    loaded = load_strategy(str(tmp_path / "dag.json"))
    assert loaded == b'{"any": "bytes"}\n' == message_of(loaded)


def test_of_a_message_that_is_too_long_so_much_is_read_that_it_is_refused(tmp_path: Path) -> None:
    assert MAX_MESSAGE_BYTES == raw.MAX_BYTES
    (tmp_path / "dag.json").write_bytes(b" " * (2 * MAX_MESSAGE_BYTES))
    assert len(message_of(load_strategy(str(tmp_path / "dag.json")))) == MAX_MESSAGE_BYTES + 1


def test_an_interval_is_lent_and_changes_no_strategy(tmp_path: Path) -> None:
    write(tmp_path / "beside.py", "LENGTH = 3")
    strategy = load_strategy(write(tmp_path / "leaning.py", CROSS))
    assert isinstance(strategy, Strategy)
    assert lacks_interval(strategy)
    intervals = [{one["interval"] for one in nodes(message_of(strategy, of))} for of in (60, 300)]
    assert intervals == [{60}, {300}]
    assert strategy.default_interval is None
    with pytest.raises(InvalidStrategy, match="has no interval"):
        dag_message(strategy)


HEAD = "from qmtl import Strategy, StreamInput, builtin\n"
SETUP = "    def setup(self):\n        "
WRONG = {
    "raises": ("import os\n1 / 0\n", "", "raises.py line 2: ZeroDivisionError (division by zero)"),
    "exits": ("raise SystemExit(3)\n", "", "exits.py line 1: SystemExit (3)"),
    "syntax": ("def f(:\n    pass\n", "", "syntax.py line 1: invalid syntax"),
    "missing": ("\nimport not_there_at_all\n", "", "missing.py line 2: ModuleNotFoundError"),
    "empty": ("", "", "has no strategy"),
    "base": (HEAD + "class Base(Strategy):\n    pass\n", "", "has no strategy"),
    "two": (
        HEAD + f"class A(Strategy):\n{SETUP}pass\nclass B(Strategy):\n{SETUP}pass\n",
        "",
        "has 2 strategies: A, B",
    ),
    "named": (HEAD + f"class A(Strategy):\n{SETUP}pass\n", ":Other", "is not there; its strategies: A"),
    "number": ("A = 3\n", ":A", "is no strategy"),
    "asks": (
        HEAD + f"class A(Strategy):\n    def __init__(self, fast):\n        pass\n{SETUP}pass\n",
        "",
        "can't be made without arguments",
    ),
    "broken": (
        HEAD + f"class A(Strategy):\n    def __init__(self):\n        [][1]\n{SETUP}pass\n",
        "",
        "broken.py line 4: IndexError",
    ),
    "setup": (HEAD + f"class A(Strategy):\n{SETUP}self.nothing\n", "", "setup.py line 4: AttributeError"),
    "refused": (
        HEAD + f"class A(Strategy):\n{SETUP}StreamInput(symbols=[])\n",
        "",
        "refused.py line 4: symbols of the StreamInput",
    ),
    "period": (
        HEAD + f"class A(Strategy):\n{SETUP}builtin('sma', StreamInput(symbols=['X']), 0)\n",
        "",
        "period.py line 4: period of the node 'sma' was",
    ),
    "no-name": (HEAD, "", "is no name of a module"),
    "json": ("", "", "there is another module 'json' already"),
    "turtledemo": ("", "", "there is another module 'turtledemo' already"),
    "silent": (
        HEAD + f"class A(Strategy):\n{SETUP}self.add_nodes(StreamInput(symbols=['X'], interval=60))\n",
        "",
        "has no signal",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_is_wrong_with_a_file_is_told(name: str, tmp_path: Path) -> None:
    source, behind, says = WRONG[name]
    file = write(tmp_path / f"{name}.py", source)
    with pytest.raises(InvalidDag) as refused:
        message_of(load_strategy(file + behind))
    assert refused.value.code in ("QMTL-512", "QMTL-514")
    assert says in refused.value.what
    assert refused.value.remedy
    assert len(refused.value.what) < 600


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere.py", "No such file"),
        ("nowhere.json", "No such file"),
        ("nowhere.at.all:Cross", "No module named 'nowhere'"),
        ("json:loads", "is no strategy"),
        ("json", "names no strategy"),
        ("not a/path:Cross", "names no strategy"),
        ("", "names no strategy"),
    ],
)
def test_what_is_nowhere_is_told(
    spec: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StrategyNotLoaded, match=says):
        load_strategy(spec)
