"""The laws of what an author writes: one strategy is one message, and each mistake is refused with the node, the rule and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qmtl
from qmtl import (
    BuiltinNode,
    CacheView,
    Node,
    ProcessingNode,
    Strategy,
    StreamInput,
    TagQueryNode,
    builtin,
    dag_message,
    register,
)
from qmtl.foundation.common.code_identity import function_hash
from qmtl.foundation.common.errors import (
    CodeDiffers,
    CodeMissing,
    DuplicateName,
    ImpureFunction,
    InvalidDag,
    InvalidStrategy,
    NoCanonicalForm,
    QmtlError,
    UsageError,
)
from qmtl.runtime.indicators.registry import BUILTINS
from qmtl.runtime.sdk import builtins, functions
from qmtl.runtime.sdk.functions import Functions
from qmtl.services.dagmanager.admission import admit
from tests.runtime.sdk import authored, impure
from tests.services.graphs import T0


@pytest.fixture(autouse=True)
def _nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tests before have registered in this process."""
    monkeypatch.setattr(functions, "_REGISTERED", {})


HERE = "tests.runtime.sdk.authored"


def made(*nodes: Any, interval: Any = "1m", period: int | None = None) -> Strategy:
    class Made(Strategy):
        def setup(self) -> None:
            self.add_nodes(nodes)

    return Made(interval, period)


def price(**more: Any) -> StreamInput:
    return StreamInput(symbols=["BTC-USD"], **more)


def target(read: Node, **more: Any) -> BuiltinNode:
    return builtin("position_target", read, long_percent=0.4, short_percent=-0.4, **more)


def said(strategy: Strategy) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dag_message(strategy))
    return found


# ---- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [authored.PythonCross, authored.BuiltinCross])
def test_the_message_of_a_strategy_is_sound_and_always_the_same(strategy: type[Strategy]) -> None:
    message = dag_message(strategy("1m"))
    assert message == dag_message(strategy("60s")) == dag_message(strategy(60))
    graph = admit(message, T0)
    assert len(graph.signals) == 1
    assert [one.name for one in graph.nodes] == [one["name"] for one in json.loads(message)["nodes"]]


def test_a_message_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from qmtl import dag_message; from tests.runtime.sdk.authored import PythonCross as P;"
        "import sys; sys.stdout.buffer.write(dag_message(P('1m')))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
    assert told == dag_message(authored.PythonCross("1m"))


def test_nodes_are_flattened_counted_once_and_named_after_what_they_compute() -> None:
    one = price()
    fast, slow, other = (builtin("sma", one, period) for period in (3, 8, 3))
    sign = ProcessingNode([fast, slow], authored.average, params={"length": 1})
    strategy = made([one, (fast, [slow]), one], iter([other, sign, target(sign)]))
    names = [node["name"] for node in said(strategy)["nodes"]]
    assert names == ["price", "sma_3", "sma_8", "sma_3_2", "average", "position_target"]
    nodes = {node["name"]: node for node in said(strategy)["nodes"]}
    assert nodes["average"]["params"]["ports"] == ["sma_3", "sma_8"]
    assert nodes["average"]["code"] == f"{HERE}:average"
    assert nodes["average"]["code_hash"] == function_hash(authored.average)
    assert said(strategy)["strategy_id"] == "made"
    assert said(strategy)["signals"] == ["position_target"]


def test_intervals_and_periods_come_from_the_node_its_inputs_or_the_strategy() -> None:
    hourly, source = price(interval="1h"), price(name="source")
    mean, sharp = builtin("sma", hourly), builtin("sma", source, 2)
    nodes = said(made(hourly, source, mean, sharp, target(sharp), period=7))["nodes"]
    assert [(one["interval"], one["period"]) for one in nodes] == [
        (3600, 1),
        (60, 1),
        (3600, 7),
        (60, 2),
        (60, 7),
    ]


def test_what_an_input_is_called_for_its_function_is_a_part_of_the_node_and_what_it_is_named_else_is_not() -> (
    None
):
    def ids(strategy: Strategy) -> list[str]:
        return [one.node.node_id for one in admit(dag_message(strategy), T0).nodes]

    def strategy(label: str, name: str, own: str) -> Strategy:
        one = price(name=name)
        node = ProcessingNode({label: one}, authored.average, name=own, params={"length": 1})
        return made(one, node, target(node))

    assert ids(strategy("x", "a", "b")) == ids(strategy("x", "c", "d"))
    assert ids(strategy("x", "a", "b"))[1] != ids(strategy("y", "a", "b"))[1]


@given(st.permutations(["BTC-USD", "ETH-USD", "LTC-USD"]))
def test_a_source_is_what_it_reads_in_whatever_order(symbols: list[str]) -> None:
    one = StreamInput(symbols=symbols)
    assert said(made(one, *chain(one)))["nodes"][0]["params"] == {"symbols": sorted(symbols)}


def chain(one: Node) -> tuple[Node, ...]:
    mean = builtin("sma", one, 2)
    return mean, target(mean)


def test_a_tag_query_is_read_like_any_node() -> None:
    query = TagQueryNode(["sma", "crypto", "sma"], match_mode="all", aggregate="median", interval="1m")
    node = ProcessingNode(query, authored.average, params={"length": 1})
    message = said(made(query, node, target(node)))
    assert message["nodes"][0]["params"] == {
        "query_tags": ["crypto", "sma"],
        "match_mode": "all",
        "interval": 60,
        "aggregate": "median",
    }
    admit(dag_message(made(query, node, target(node))), T0)


@pytest.mark.parametrize("node_type", sorted(BUILTINS.keys() - {"price", "tag_query"}))
def test_there_is_a_function_for_every_built_in_type(node_type: str) -> None:
    assert callable(getattr(builtins, node_type))


def test_the_function_of_a_type_takes_its_inputs_and_then_the_period() -> None:
    one = price()
    found = builtins.sma(one, 5)
    assert (found.inputs, found.period, found.node_type) == ((one,), 5, "sma")
    assert builtins.cross(found, builtins.sma(one, period=9)).node_type == "cross"
    with pytest.raises(AttributeError):
        builtins.no_such_type  # noqa: B018


# ---- mistakes ----------------------------------------------------------------------------------------------------------


def two(view: CacheView, other: float) -> float:
    return other


def none() -> float:
    return 1.0


def many(*views: CacheView) -> float:
    return 1.0


def generating(view: CacheView) -> Any:
    yield 1.0


async def waiting(view: CacheView) -> float:
    return 1.0


def inner() -> Callable[[CacheView], float]:
    def within(view: CacheView) -> float:
        return 1.0

    return within


async def streaming(view: CacheView) -> Any:
    yield 1.0


def preset(view: CacheView, length: int = 3) -> float:
    return float(length)


class Called:
    def __call__(self, view: CacheView) -> float:
        return 1.0

    def method(self, view: CacheView) -> float:
        return 1.0


OBJECT = object()


def odd(view: CacheView) -> float:
    return float(OBJECT is None)


def processing(function: Any = authored.average, **more: Any) -> ProcessingNode:
    more.setdefault("params", {"length": 1})
    return ProcessingNode(price(), function, name="mine", **more)


MISTAKES: list[tuple[Callable[[], object], type[QmtlError], tuple[str, ...]]] = [
    (lambda: processing(two), InvalidStrategy, ("'mine'", "two", "takes the view alone")),
    (lambda: processing(none), InvalidStrategy, ("'mine'", "takes ()")),
    (lambda: processing(many), InvalidStrategy, ("'mine'", "takes the view alone")),
    (lambda: processing(impure.kept), InvalidStrategy, ("'mine'", "takes the view alone")),
    (lambda: processing(generating), InvalidStrategy, ("'mine'", "generator")),
    (lambda: processing(waiting), InvalidStrategy, ("'mine'", "coroutine")),
    (lambda: processing(lambda view: 1.0), InvalidStrategy, ("'mine'", "lambda", "top of a module")),
    (lambda: processing(inner()), InvalidStrategy, ("'mine'", "within", "params")),
    (lambda: processing(Called()), InvalidStrategy, ("'mine'", "Called")),
    (lambda: processing(None), InvalidStrategy, ("'mine'", "NoneType")),
    (lambda: processing(Called().method), InvalidStrategy, ("'mine'", "of type method")),
    (lambda: processing(Called), InvalidStrategy, ("'mine'", "of type type")),
    (lambda: processing(abs), InvalidStrategy, ("'mine'", "builtin_function_or_method")),
    (lambda: processing(partial(preset, length=3)), InvalidStrategy, ("'mine'", "of type partial", "params of the node")),
    (lambda: processing(preset), InvalidStrategy, ("'mine'", "length: 'int' = 3", "params of the node")),
    (lambda: processing(streaming), InvalidStrategy, ("'mine'", "generator or coroutine")),
    (lambda: StreamInput(["BTC-USD"], name="price", preset="ohlcv.binance"), InvalidStrategy, ("'price'", "'ohlcv.binance'", "symbols")),
    (lambda: processing(odd), NoCanonicalForm, ("'mine'", "OBJECT")),
    (lambda: processing(period=0), InvalidStrategy, ("'mine'", "period", "the number 0", "1 to 10000")),
    (lambda: processing(period=True), InvalidStrategy, ("'mine'", "the truth value true")),
    (lambda: processing(interval=0), InvalidStrategy, ("'mine'", "interval", "the number 0")),
    (lambda: processing(interval="1 m"), InvalidStrategy, ("'mine'", "the text '1 m'")),
    (lambda: processing(when="some"), InvalidStrategy, ("'mine'", "when", "the text 'some'")),
    (lambda: processing(gives="orders"), InvalidStrategy, ("'mine'", "gives", "the text 'orders'")),
    (lambda: processing(bars=-1), InvalidStrategy, ("'mine'", "bars", "the number -1")),
    (lambda: processing(bars=9000, period=9000), InvalidStrategy, ("'mine'", "at most 40000")),
    (lambda: processing(lag=1), InvalidStrategy, ("'mine'", "lag", "Leave it out")),
    (lambda: processing(params={"world_id": 1}), InvalidStrategy, ("'mine'", "world_id")),
    (lambda: processing(params={"x": float("nan")}), InvalidStrategy, ("'mine'", "$.params.x")),
    (lambda: processing(tags=["a|b"]), InvalidStrategy, ("'mine'", "a|b")),
    (lambda: ProcessingNode([], authored.average, name="mine"), InvalidStrategy, ("'mine'", "at least one node")),
    (lambda: ProcessingNode(cast(Any, ["price"]), authored.average, name="mine"), InvalidStrategy, ("'mine'", "'price'")),
    (lambda: ProcessingNode({"a b": price()}, authored.average, name="mine"), InvalidStrategy, ("'mine'", "ports")),
    (lambda: ProcessingNode(price(), authored.average, name="a/b"), InvalidStrategy, ("'average'", "a/b")),
    (lambda: StreamInput(tags=["crypto"]), InvalidStrategy, ("at least one symbol", "TagQueryNode")),
    (lambda: StreamInput(symbols=["A", "A"], name="two"), InvalidStrategy, ("'two'", "twice")),
    (lambda: TagQueryNode([], name="asks"), InvalidStrategy, ("'asks'", "query_tags was empty")),
    (lambda: TagQueryNode(["a"], match_mode="most", name="asks"), InvalidStrategy, ("'asks'", "'most'")),
    (lambda: TagQueryNode(["a"], aggregate="best", name="asks"), InvalidStrategy, ("'asks'", "'best'")),
    (lambda: TagQueryNode(["a"], compute_fn=authored.average, name="asks"), InvalidStrategy, ("'asks'", "ProcessingNode")),
    (lambda: builtin("sma", [price(), price()], 3, name="m"), InvalidStrategy, ("'m'", "2 inputs", "takes 1")),
    (lambda: builtin("sma", price(), 3, name="m", length=3), InvalidStrategy, ("'m'", "'length'")),
    (lambda: builtin("smaa", price(), 3), InvalidDag, ("'smaa'", "built-in types")),
    (lambda: builtin("price", [], name="m"), InvalidStrategy, ("'m'", "StreamInput")),
    (lambda: builtin("position_target", price(), long_percent=2, short_percent=0), InvalidStrategy, ("long_percent",)),
    (lambda: Strategy(0), InvalidStrategy, ("the strategy Strategy", "interval")),
    (lambda: Strategy("1m", 0), InvalidStrategy, ("the strategy Strategy", "period")),
    (lambda: Strategy("1m").nodes, InvalidStrategy, ("no setup",)),
    (lambda: Strategy("1m").add_nodes("price"), InvalidStrategy, ("the text 'price'",)),
    (lambda: Strategy("1m").add_nodes(cast(Any, [price(), 3])), InvalidStrategy, ("the number 3",)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "says"), MISTAKES)
def test_a_mistake_is_refused_where_it_is_made(
    make: Callable[[], object], kind: type[QmtlError], says: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as caught:
        make()
    for word in says:
        assert word in str(caught.value)
    assert caught.value.remedy


def not_added() -> Strategy:
    mean = builtin("sma", price(name="others"), 2)
    return made(mean, target(mean))


def apart() -> Strategy:
    one, other = price(name="one", interval=60), price(name="other", interval=300)
    node = ProcessingNode([one, other], authored.average, name="mine", params={"length": 1})
    return made(one, other, node, target(node))


UNSOUND: list[tuple[Callable[[], Strategy], type[QmtlError], tuple[str, ...]]] = [
    (lambda: made(), InvalidStrategy, ("0 nodes",)),
    (lambda: made(price()), InvalidStrategy, ("no signal", "position_target")),
    (not_added, InvalidStrategy, ("'sma_2'", "'others'", "another strategy's")),
    (apart, InvalidStrategy, ("'mine'", "60 s", "'other'", "300 s")),
    (lambda: made(one := price(), *chain(one), interval=None), InvalidStrategy, ("'price'", "no interval", "default_interval")),
    (lambda: made(one := price(name="x"), target(one, name="x")), DuplicateName, ("'x'",)),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "kind", "says"), UNSOUND)
def test_a_strategy_that_is_none_is_refused(
    strategy: Callable[[], Strategy], kind: type[QmtlError], says: tuple[str, ...]
) -> None:
    with pytest.raises(kind) as caught:
        dag_message(strategy())
    for word in says:
        assert word in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(("function", "says"), impure.REFUSED, ids=lambda one: getattr(one, "__name__", ""))
def test_a_function_that_names_the_clock_chance_or_what_changes_is_refused(
    function: Callable[..., Any], says: str
) -> None:
    with pytest.raises((ImpureFunction, NoCanonicalForm)) as caught:
        ProcessingNode(price(), function, name="mine")
    assert says in str(caught.value)
    assert "'mine'" in str(caught.value)


def test_a_function_of_constants_arrays_and_its_own_package_is_taken() -> None:
    assert ProcessingNode(price(), impure.pure).code_hash == function_hash(impure.pure)


# ---- where functions are found ------------------------------------------------------------------------------------------

CODE, HASH = f"{HERE}:average", function_hash(authored.average)


def test_a_function_is_found_in_a_package_that_was_told_and_nowhere_else() -> None:
    for packages in ([HERE], ["tests"], ["tests.runtime"]):
        assert Functions(packages).find([CODE], HASH) is authored.average
    for others in ([], ["test"], ["tests.runtime.sdk.author"], ["qmtl"]):
        with pytest.raises(CodeMissing) as caught:
            Functions(others).find([CODE], HASH)
        assert "--code tests" in caught.value.remedy


REFUSED_CODE: list[tuple[str, str, type[QmtlError], str]] = [
    ("tests.no_such_module:f", HASH, CodeMissing, "could not be imported"),
    (f"{HERE}:no_such_function", HASH, CodeMissing, "has no function"),
    (f"{HERE}:PythonCross.setup", HASH, CodeDiffers, "has the hash"),
    (f"{HERE}:crossing", HASH, CodeDiffers, "has the hash"),
    ("tests.runtime.sdk.impure:clock", HASH, CodeDiffers, "the module time"),
    (CODE, "blake3:" + "0" * 64, CodeDiffers, "has the hash"),
]


@pytest.mark.parametrize(("code", "code_hash", "kind", "says"), REFUSED_CODE)
def test_what_is_not_the_published_function_is_not_run(
    code: str, code_hash: str, kind: type[QmtlError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        Functions(["tests"]).find([code], code_hash)
    assert says in caught.value.what
    assert caught.value.remedy


def test_of_several_places_the_first_that_has_the_function_counts() -> None:
    assert Functions(["tests"]).find([f"{HERE}:crossing", CODE], HASH) is authored.average


def registered(view: CacheView) -> float:
    return view[0][60][-1][1]


def test_a_registered_function_is_found_by_its_hash_alone() -> None:
    code_hash = register(registered)
    assert Functions().find(["elsewhere:f"], code_hash) is registered
    with pytest.raises(ImpureFunction):
        register(impure.clock)


@pytest.mark.parametrize("package", ["", "a b", "../x", "a.", "a:b"])
def test_a_package_that_is_none_is_refused(package: str) -> None:
    with pytest.raises(UsageError):
        Functions([package])


# ---- the door ----------------------------------------------------------------------------------------------------------


def test_importing_qmtl_and_writing_a_strategy_loads_no_log_no_edge_and_no_http() -> None:
    heavy = [
        "confluent_kafka",
        "rocksdict",
        "faust",
        "ccxt",
        "http.client",
        "http.server",
        "aiohttp",
        "requests",
        "click",
    ]
    code = (
        "import sys, qmtl; light = [one for one in sys.modules if one.startswith('qmtl.')]; assert not light, light\n"
        "from qmtl import Strategy, StreamInput, ProcessingNode, dag_message\n"
        f"found = [one for one in {heavy!r} if one in sys.modules]; assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_that_the_door_names_is_there() -> None:
    assert sorted(qmtl.__all__) == sorted(qmtl._HOMES)
    for name in qmtl.__all__:
        assert getattr(qmtl, name).__name__ == name
    with pytest.raises(AttributeError):
        qmtl.no_such_name  # noqa: B018
