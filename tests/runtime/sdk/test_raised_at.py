"""Where an author's function raised: the line within its function for a log, the line of its file for people."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.code_identity import function_hash
from qmtl.foundation.common.errors import ComputeFailed
from qmtl.runtime.sdk.nodes import ProcessingNode, StreamInput
from qmtl.runtime.sdk.raised_at import RaisedAt, raised_at
from qmtl.runtime.sdk.strategy import Strategy
from qmtl.testing import outputs_of

PRICE = StreamInput(symbols=["BTC-USD"], interval="1m", name="price")


def loaded(path: Path, text: str, name: str = "mine_raised") -> ModuleType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def failure(function: Any) -> ComputeFailed:
    with pytest.raises(ComputeFailed) as caught:
        outputs_of(ProcessingNode(PRICE, function, name="mine"), [1.0])
    return caught.value


def at(function: Any, *given: object) -> RaisedAt:
    try:
        function(*given)
    except Exception as error:
        found = raised_at(error, function)
        assert found is not None
        return found
    raise AssertionError("it raised nothing")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raised")


@given(above=st.integers(0, 40), before=st.integers(0, 20), folder=st.sampled_from(["a", "b/c"]))
def test_a_log_is_told_the_line_within_the_function_wherever_the_function_lies(
    place: Path, above: int, before: int, folder: str
) -> None:
    body = "".join(f"    x{one} = view[0]\n" for one in range(before))
    text = "# a line\n" * above + f"def signal(view):\n{body}    return 1 / 0  # never\n"
    found = failure(loaded(place / folder / "trend.py", text).signal)
    bare = failure(loaded(place / "bare" / "trend.py", text[9 * above :]).signal)
    assert found.what == bare.what
    assert found.what.endswith(f"in the bucket 60000, on line {before + 2} of signal().")
    assert str(place) not in str(found)
    assert found.where.startswith(f"trend.py line {above + before + 2}: ")
    assert str(place) not in found.where


TEXT = '''\
from statistics import mean
# of a library


def helper(number):
    """Twice."""
    return 2 / number


def by_helper(view):
    return helper(
        0
    )


def by_library(view):
    here = 1
    return mean([])


def by_view(view):
    return view["other"][60]


def in_comprehension(view):
    rows = [1, 0]
    return sum(
        1 / one
        for one in rows
    )


def again(view):
    try:
        helper(0)
    except ZeroDivisionError as error:
        raise ValueError("odd") from error


def deep(view):
    return deep(view)
'''

LINES = {
    "by_helper": ("line 3 of helper()", 7, "return 2 / number"),
    "by_library": ("line 3 of by_library()", 18, "return mean([])"),
    "by_view": ("line 2 of by_view()", 22, 'return view["other"][60]'),
    "in_comprehension": ("line 4 of in_comprehension()", 28, "1 / one"),
    "again": ("line 5 of again()", 37, 'raise ValueError("odd") from error'),
    "deep": ("line 2 of deep()", 41, "return deep(view)"),
}


@pytest.mark.parametrize("name", LINES)
def test_the_line_is_the_innermost_one_that_the_author_wrote(place: Path, name: str) -> None:
    in_function, line, text = LINES[name]
    found = failure(getattr(loaded(place / "lines.py", TEXT), name))
    assert found.what.endswith(f", on {in_function}.")
    assert found.where == f"lines.py line {line}: {text}"


@pytest.fixture
def package(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(place))
    yield place / "raised_package"
    for name in [one for one in sys.modules if one.partition(".")[0] == "raised_package"]:
        del sys.modules[name]


def test_a_module_beside_it_in_its_package_is_the_authors_too(package: Path) -> None:
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def ratio(one):\n\n    return 1 / one\n")
    (package / "outer.py").write_text(
        "from raised_package.inner import ratio\n\ndef signal(view):\n    return ratio(0)\n"
    )
    found = failure(importlib.import_module("raised_package.outer").signal)
    assert found.what.endswith(", on line 3 of ratio().")
    assert found.where == "inner.py line 3: return 1 / one"


def test_a_function_of_qmtls_own_is_told_at_its_call_of_the_rest_of_qmtl() -> None:
    def signal(view: Any) -> float:
        raise LookupError

    name = Strategy.__module__
    bound = {"__name__": name, "failing": outputs_of}
    exec(compile("def shown(view):\n    return failing(None, 1)\n", "<shown>", "exec"), bound)
    shown: Any = bound["shown"]
    assert at(shown, None) == RaisedAt(2, "shown", "<shown>", 2, "")
    assert at(signal, None).in_function == "line 2 of signal()"


def test_what_is_shown_is_bounded_and_printable(place: Path) -> None:
    long = f"def signal(view):\n    return [1 / 0, '\t\x1b{'x' * 500}']\n"
    found = failure(loaded(place / f"{'n' * 200}.py", long).signal)
    assert len(found.where) < 250
    assert found.where.isprintable()
    assert found.where.endswith("…")


def test_a_source_that_is_gone_leaves_the_line_alone(place: Path) -> None:
    path = place / "gone.py"
    signal = loaded(path, "def signal(view):\n    return 1 / 0\n").signal
    path.unlink()
    assert failure(signal).where == "gone.py line 2"


def test_an_exception_that_never_entered_the_function_has_no_line() -> None:
    def signal(view: Any) -> float:
        return 1.0

    assert raised_at(ValueError(), signal) is None
    assert function_hash(signal)
