"""The identity of code: what is written otherwise is the same, what computes otherwise is another, what can't be told is refused."""

from __future__ import annotations

import argparse
import ast
import fractions
import functools
import heapq
import inspect
import math
import os
import random
import statistics
import subprocess
import sys
import types
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.code_identity import MAX_FUNCTIONS, _code_digest, function_hash
from qmtl.foundation.common.errors import NoCanonicalForm
from qmtl.foundation.common.identity import require_node_id


def made(source: str, name: str = "f", file: str = "author.py", **outside: Any) -> Any:
    """The function of a source, in a module of its own."""
    module: dict[str, Any] = {"__name__": "author", **outside}
    exec(compile(source, file, "exec"), module)
    return module[name]


def told(source: str, **more: Any) -> str:
    return function_hash(made(source, **more))


PLAIN = "def f(x, period=3):\n    total = x * 2.5\n    return total if total > period else None\n"

# ---- what is written otherwise ---------------------------------------------------------------------------------

WRITTEN_OTHERWISE = {
    "comment": "# says nothing\ndef f(x, period=3):  # nor this\n    # nor this\n    total = x * 2.5\n    return total if total > period else None\n",
    "docstring": 'def f(x, period=3):\n    """Doubles and a half."""\n    total = x * 2.5\n    return total if total > period else None\n',
    "layout": "def f(\n    x,\n    period = 3\n):\n\n  total = (x\n    *\n    2.5)\n  return (\n   total\n   if total >\n   period\n   else None)\n",
    "semicolon": "def f(x, period=3): total = x * 2.5; return total if total > period else None\n",
    "annotations": "def f(x: float, period: int = 3) -> float | None:\n    total = x * 2.5\n    return total if total > period else None\n",
    "number": "def f(x, period=0x3):\n    total = x * 25e-1\n    return total if total > period else None\n",
    "place": "\n" * 500 + PLAIN,
}


@pytest.mark.parametrize("how", WRITTEN_OTHERWISE)
def test_how_a_source_is_written_changes_nothing(how: str) -> None:
    assert told(WRITTEN_OTHERWISE[how]) == told(PLAIN)


def test_a_file_a_module_and_a_name_change_nothing() -> None:
    assert told(PLAIN, file="/elsewhere/other.py") == told(PLAIN)
    assert told(PLAIN.replace("def f", "def other"), name="other") == told(PLAIN)
    other = types.FunctionType(made(PLAIN).__code__, {"__name__": "other.module"}, None, (3,))
    assert function_hash(other) == told(PLAIN)


LONG = """
def f(xs, limit=10.0):
    total, seen = 0.0, {}
    for at, x in enumerate(xs):
        if x is None or x != x:
            continue
        while x > limit and x not in seen:
            x = x / 2
            if x < 1:
                break
        else:
            seen[at] = [y * 2 for y in (x, -x) if y]
        try:
            total += {"up": 1, "down": -1}["up" if x > 0 else "down"] / x
        except ZeroDivisionError as error:
            total -= len(f"{error!r:>10}")
        finally:
            with open(at) as kept:
                total += kept.read() if kept else 0
    assert total >= 0, "never"
    return (lambda z: z + total)(limit) if seen else None
"""


def moved(source: str, lines: Callable[[int], int]) -> Any:
    """The function of a source whose nodes are said to stand on other lines: what any layout could do to a compiler."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.arg | ast.keyword | ast.alias):
            node.lineno = node.end_lineno = lines(node.lineno)
    module: dict[str, Any] = {"__name__": "author"}
    exec(compile(tree, "author.py", "exec"), module)
    return module["f"]


def test_a_long_function_is_the_same_in_any_layout() -> None:
    assert told(ast.unparse(ast.parse(LONG))) == told(LONG)
    assert function_hash(moved(LONG, lambda line: 1)) == told(LONG)
    assert function_hash(moved(LONG, lambda line: 1000 - 7 * line)) == told(LONG)


@given(st.lists(st.integers(1, 9), min_size=30, max_size=30))
def test_no_numbering_of_lines_changes_anything(lines: list[int]) -> None:
    """Lines decide what CPython keeps of pauses, jumps to jumps and repeated endings."""
    assert function_hash(moved(LONG, lambda line: lines[line])) == told(LONG)


def relaid(tree: ast.AST, line: Callable[[int, int], int]) -> dict[str, set[str]]:
    """The digests of a module's functions by name, as if each of its words stood on another line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.arg | ast.keyword | ast.alias):
            node.lineno = node.end_lineno = line(node.lineno, node.col_offset)
            node.col_offset = node.end_col_offset = 0
    assert isinstance(tree, ast.Module)
    found: dict[str, set[str]] = {}
    codes = [compile(tree, "author.py", "exec")]
    for code in codes:  # grows while it is read
        codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
        if "<" not in code.co_qualname:
            found.setdefault(code.co_qualname, set()).add(_code_digest(code, code.co_name))
    return found


@pytest.mark.parametrize("module", [argparse, fractions, heapq, random, statistics])
def test_no_layout_of_a_module_of_the_standard_library_changes_its_functions(
    module: types.ModuleType,
) -> None:
    """One line, a few lines, and a line for each expression: what decides what a compiler swaps, repeats and jumps over."""
    source = inspect.getsource(module)
    plain = relaid(ast.parse(source), lambda line, column: line)
    assert len(plain) > 10
    assert relaid(ast.parse(source), lambda line, column: 1000 * line + column + 1) == plain
    assert relaid(ast.parse(source), lambda line, column: 1 + line * 7 % 13) == plain
    assert relaid(ast.parse(source), lambda line, column: 1) == plain


def test_a_line_and_a_comment_for_every_word_change_nothing() -> None:
    source = "def f(x):\n    return max(x + 1, [x, 2][0], {1: x}[1])\n"
    words = list("x+1,[x,2][0],{1:x}[1]")
    spread = "def f(x):\n    return max(" + "".join(f"\n# {word}\n{word}" for word in words) + ")\n"
    assert told(spread) == told(source)


# ---- what computes otherwise -------------------------------------------------------------------------------------

COMPUTES_OTHERWISE = {
    "constant": ("2.5", "2.6"),
    "type of a constant": ("2.5", "2"),
    "operator": ("x * 2.5", "x + 2.5"),
    "comparison": (">", ">="),
    "branches": ("total if total > period else None", "None if total > period else total"),
    "default": ("period=3", "period=4"),
    "type of a default": ("period=3", "period=3.0"),
    "no default": ("period=3", "period"),
    "order of parameters": ("x, period=3", "period, x=3"),
    "keyword only": ("x, period=3", "x, *, period=3"),
    "positional only": ("x, period=3", "x, /, period=3"),
    "rest": ("x, period=3", "*x, period=3"),
    "a step more": ("return", "total += 1; return"),
    "a generator": ("return total", "yield total; return total"),
    "a coroutine": ("def f", "async def f"),
}


@pytest.mark.parametrize("how", COMPUTES_OTHERWISE)
def test_what_computes_otherwise_is_another(how: str) -> None:
    old, new = COMPUTES_OTHERWISE[how]
    changed = PLAIN.replace(old, new)
    assert changed != PLAIN
    assert told(changed) != told(PLAIN)


@pytest.mark.parametrize(
    "old, new",
    [
        ("limit=10.0", "limit=11.0"),
        ("continue", "break"),
        ("x / 2", "x // 2"),
        ("* 2 for", "* 3 for"),
        ("z + total", "z - total"),
        ('"up": 1', '"up": 2'),
        ('"up" if', '"down" if'),
        ("ZeroDivisionError", "ValueError"),
        ("total -= len", "total += len"),
        (">10}", ">11}"),
        ("!r", "!s"),
        ("x < 1", "x < 2"),
        ("and x not in", "or x not in"),
        ("x is None or", "x is None and"),
        ("if y]", "if not y]"),
        ("else 0", "else 1"),
        ('"never"', '"ever"'),
    ],
)
def test_one_change_anywhere_in_a_long_function_is_another(old: str, new: str) -> None:
    assert LONG.count(old) == 1
    assert told(LONG.replace(old, new)) != told(LONG)


def test_the_names_of_keyword_arguments_are_a_part() -> None:
    assert told("def f(x):\n    return round(number=x)\n") != told("def f(x):\n    return round(ndigits=x)\n")


def test_a_keyword_default_is_a_part() -> None:
    assert told("def f(*, x=1):\n    return x\n") != told("def f(*, x=2):\n    return x\n")


@pytest.mark.parametrize("targets", ["b, a", "a, c", "a, *b"])
def test_which_variable_is_given_which_value_is_a_part(targets: str) -> None:
    source = "def f(a, b, c):\n    {} = a, b\n    return a - b - c\n"
    assert told(source.format(targets)) != told(source.format("a, b"))


def captured(value: Any) -> str:
    return told("def f(x):\n    return taken(x)\n", taken=value)


def closed_over(value: Any) -> str:
    def f(x: Any) -> Any:
        return value, x

    return function_hash(f)


DIFFERENT: list[Any] = [
    0,
    -0.0,
    0.0,
    1,
    1.0,
    True,
    None,
    Ellipsis,
    Decimal("1"),
    Decimal("1.0"),
    1j,
    "1",
    b"1",
    "\ud800",
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [1],
    [[1]],
    [1, 1],
    {1},
    {1: 1},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    {"a": 2, "b": 1},
    types.MappingProxyType({"a": 1, "b": 2}),
    10**30,
    1e30,
    math.pi,
    len,
    math.sqrt,
    math,
    Decimal,
    functools.partial(pow, 2),
    functools.partial(pow, 3),
    functools.partial(pow, exp=2),
]


@pytest.mark.parametrize("take", [captured, closed_over])
def test_every_captured_value_and_type_is_another(take: Callable[[Any], str]) -> None:
    assert len({take(value) for value in DIFFERENT}) == len(DIFFERENT)


SIMPLE = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4) | st.booleans()
)
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner), max_leaves=6)


@given(VALUES, VALUES)
def test_closures_are_one_exactly_if_they_hold_the_same(left: Any, right: Any) -> None:
    assert (closed_over(left) == closed_over(right)) == (repr(left) == repr(right))


def test_the_order_of_a_set_changes_nothing() -> None:
    assert captured({"a", "b", "c", 1}) == captured({1, "c", "b", "a"})


HELPERS = """
def helper(x):
    return x + STEP

def f(x):
    def inner(y):
        return helper(y) * 2
    return inner(x)

STEP = 1
"""


@pytest.mark.parametrize("old, new", [("x + STEP", "x - STEP"), ("STEP = 1", "STEP = 2"), ("* 2", "* 3")])
def test_what_a_function_leads_to_is_a_part_of_it(old: str, new: str) -> None:
    assert told(HELPERS.replace(old, new)) != told(HELPERS)


def test_functions_that_call_each_other_have_an_end() -> None:
    even = "def f(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and f(n - 1)\n"
    assert told(even) == told("\n" + even)
    assert told(even) != told(even.replace("n != 0", "n > 0"))


def test_a_helper_of_the_authors_own_package_is_told_by_its_code_and_not_by_a_version() -> None:
    own = types.ModuleType("author")
    own.__version__ = "1.0"  # type: ignore[attr-defined]
    sys.modules["author"] = own
    try:
        helpers = [made(f"def helper(x):\n    return x + {step}\n", "helper") for step in (1, 2)]
        assert len({captured(helper) for helper in helpers}) == 2
    finally:
        del sys.modules["author"]


def test_a_package_of_others_is_told_by_its_version() -> None:
    other = types.ModuleType("vendor")
    sys.modules["vendor"] = other
    try:
        with pytest.raises(NoCanonicalForm, match="taken"):
            captured(other)
        found = set()
        for version in ("1.0", "1.1"):
            other.__version__ = version  # type: ignore[attr-defined]
            found.add(captured(other))
        assert len(found) == 2
    finally:
        del sys.modules["vendor"]


# ---- what can't be told --------------------------------------------------------------------------------------------


class Stateful:
    def __call__(self, x: float) -> float:
        return x

    def method(self, x: float) -> float:
        return x


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, Decimal("NaN"), [math.nan], Stateful(), Stateful().method, object(), Stateful, LOOP],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_canonical_form_is_refused_by_function_and_name(value: Any) -> None:
    with pytest.raises(NoCanonicalForm, match="f: taken"):
        captured(value)


@pytest.mark.parametrize(
    "source, word",
    [
        ("def f(x):\n    return nowhere(x)\n", "nowhere"),
        ("def f(x):\n    global kept\n    kept = x\n", "kept"),
        ("def f(x):\n    import vendor.part\n    return vendor.part(x)\n", "vendor"),
        ("def f(x):\n    return 1e999\n", "inf"),
        ("def g():\n    def f():\n        return later\n    return f\n    later = 1\nf = g()\n", "later"),
    ],
)
def test_what_can_only_be_known_by_running_is_refused(source: str, word: str) -> None:
    with pytest.raises(NoCanonicalForm, match=word):
        told(source)


@pytest.mark.parametrize("value", [len, Stateful(), functools.partial(len), 3, Stateful])
def test_only_a_function_written_in_python_has_a_code_hash(value: Any) -> None:
    with pytest.raises(NoCanonicalForm, match="written in Python"):
        function_hash(value)


def test_a_chain_of_functions_ends_at_its_limit_and_not_in_the_stack() -> None:
    def chain(links: int) -> Any:
        source = "".join(f"def g{at}(x):\n    return g{at + 1}(x)\n" for at in range(links - 1))
        return made(source + f"def g{links - 1}(x):\n    return x\n", "g0")

    require_node_id(function_hash(chain(MAX_FUNCTIONS)))
    with pytest.raises(NoCanonicalForm, match=str(MAX_FUNCTIONS)):
        function_hash(chain(MAX_FUNCTIONS + 1))


def test_another_process_with_another_hash_seed_tells_the_same() -> None:
    program = (
        "from tests.foundation.test_code_identity import HELPERS, LONG, captured, told;"
        "print(told(LONG), told(HELPERS), captured({'a', 'b', 'c', (1, 'd')}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{told(LONG)} {told(HELPERS)} {captured({'a', 'b', 'c', (1, 'd')})}\n"}
