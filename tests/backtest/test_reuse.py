"""What nodes gave in a backtest is used again by later ones in the same context, and changes nothing of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, dag_message
from qmtl.backtest import reuse
from qmtl.backtest.reuse import VALUES, WRITER, InContext, NodeValues, chunks_of
from qmtl.backtest.simulation import Simulated, Terms, simulate
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import read_all
from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain, compute_key
from qmtl.foundation.common.errors import CodeMissing, InvalidValue, LogUnreachable
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.foundation.contracts.node import ColumnChunk
from qmtl.foundation.contracts.world import World
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.runtime.columns import Column
from qmtl.runtime.sdk import functions
from qmtl.runtime.sdk.builtins import builtin
from qmtl.runtime.sdk.loading import message_of
from tests.backtest.test_feedback import Plain, columns_of
from tests.backtest.test_simulation import SYMBOLS, bars, message
from tests.flow.feedback import TERMS, Scaling
from tests.services.graphs import price, sma, strategy, tag_query, target, text

WHERE = TopicPartition(VALUES.name, 0)
BARS = {symbol: bars(symbol) for symbol in SYMBOLS}
CONTEXT = ComputeContext("w", ExecutionDomain.BACKTEST, "c1", "", "blake3:1")


@contextmanager
def opened(place: Path | str) -> Iterator[NodeValues]:
    """The values on a log, as a process has them."""
    log = EmbeddedLog(Path(place))
    values = NodeValues(log)
    try:
        yield values
    finally:
        values.close()
        log.close()


def written(done: Simulated) -> list[bytes]:
    """All that was traded, as bytes."""
    rows = (*done.intents, *done.orders.values(), *done.fills, *done.rejections, *done.rows())
    return [codec.encode(row) for row in rows]


def crossing(name: str, periods: tuple[int, int]) -> bytes:
    fast, slow = periods
    return message(name, slow=slow).replace(b'"period": 3', b'"period": %d' % fast)


def nodes_of(pairs: list[tuple[int, int]]) -> set[object]:
    """The averages and crossings of strategies with these periods, each once."""
    return {one for fast, slow in pairs for one in (fast, slow, (fast, slow))}


PERIODS = st.tuples(st.sampled_from([2, 3, 4]), st.sampled_from([6, 9, 12]))


@settings(max_examples=12)
@given(
    earlier=st.lists(PERIODS, max_size=3),
    later=st.lists(PERIODS, min_size=1, max_size=2, unique=True),
    rows=st.sampled_from([1, 7, 50, reuse.CHUNK_ROWS]),
    ends=st.tuples(*[st.integers(30, 120)] * 3),
)
def test_a_later_run_computes_what_no_earlier_one_has_and_comes_to_the_same(
    earlier: list[tuple[int, int]], later: list[tuple[int, int]], rows: int, ends: tuple[int, ...]
) -> None:
    data = {symbol: bars(symbol, 0, end) for symbol, end in zip(SYMBOLS, ends, strict=True)}
    messages = [crossing(f"later-{place}", pair) for place, pair in enumerate(later)]
    plain = simulate(messages, data)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as place:
        patch.setattr(reuse, "CHUNK_ROWS", rows)
        for pair in earlier:
            with opened(place) as values:
                simulate([crossing("earlier", pair)], data, reuse=values)
        with opened(place) as values:
            done = simulate(messages, data, reuse=values)
            again = simulate(messages, data, reuse=values)
        assert values.refused == []
    known, wanted = nodes_of(earlier), nodes_of(later)
    assert (done.reused, again.reused) == (len(known & wanted), len(wanted))
    assert done.computed + done.reused == again.computed + again.reused == plain.computed
    assert written(plain) == written(done) == written(again) != []


@settings(max_examples=30)
@given(
    column=st.integers(0, 40).flatmap(
        lambda count: st.builds(Column, arrays.arrays(np.float64, count), arrays.arrays(np.bool_, count))
    ),
    rows=st.integers(1, 41),
)
def test_a_column_comes_back_bit_by_bit(column: Column, rows: int) -> None:
    """Also zeros below zero, and what stands where nothing is there. Where something is, it is a finite number: a node gives no other."""
    node = graph_node()
    data = {"A": bars("A").chunk(0, len(column))}
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as place:
        patch.setattr(reuse, "CHUNK_ROWS", rows)
        with opened(place) as values:
            values.within(CONTEXT, data).keep(node, {"A": column})
            found = values.within(CONTEXT, data).find(node, ["A"])
            if not np.isfinite(column.values[column.there]).all():
                assert found is None
                assert "no finite number" in values.refused[-1].what
                return
            assert found is not None
            assert found["A"].values.tobytes() == column.values.tobytes()
            assert found["A"].there.tobytes() == column.there.tobytes()
            assert values.within(CONTEXT, data).find(node, []) is None


def test_a_row_has_far_fewer_bytes_than_a_record_may_have() -> None:
    column = Column.full(np.zeros(reuse.CHUNK_ROWS + 1))
    long, short = chunks_of("k" * 71, "n" * 71, "s" * 100, column)
    assert (long.rows, short.rows, long.chunks) == (reuse.CHUNK_ROWS, 1, 2)
    assert len(codec.encode(long)) < MAX_VALUE_BYTES * 0.6


@cache
def graph_node() -> ComputeNode:
    """The average whose rows come first on a log."""
    return next(one.node for one in simulate([message()], BARS).graphs[0].nodes if one.name == "fast")


# ---- contexts ---------------------------------------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "fewer bars": {"bars": {**BARS, "C": bars("C", 0, 118)}},
    "another bar": {"bars": {**BARS, "C": replace(bars("C"), volume=bars("C").close)}},
    "as_of": {"as_of": "c2"},
    "no as_of": {"as_of": ""},
    "world": {"terms": Terms(world_id="other")},
}


@pytest.mark.parametrize("case", sorted(OTHERS))
def test_nothing_is_found_in_another_context(case: str, tmp_path: Path) -> None:
    same: dict[str, Any] = {"messages": [message()], "bars": BARS, "terms": Terms(), "as_of": "c1"}
    with opened(tmp_path) as values:
        assert simulate(**same, reuse=values).reused == 0
        assert simulate(**{**same, **OTHERS[case]}, reuse=values).reused == 0
        assert simulate(**same, reuse=values).reused == 3
        assert (values.refused, values.cross_context_hits) == ([], 0)


def test_terms_and_names_are_no_part_of_what_nodes_give(tmp_path: Path) -> None:
    with opened(tmp_path) as values:
        simulate([message()], BARS, reuse=values)
        assert (
            simulate([message("other")], BARS, Terms(long=False, cash=Terms().cash / 2), reuse=values).reused
            == 3
        )


def test_a_context_in_safe_mode_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as values, pytest.raises(InvalidValue, match="was in safe mode"):
        values.within(replace(CONTEXT, as_of=""), BARS)


# ---- what is not kept -------------------------------------------------------------------------------------------


def fails(view: CacheView) -> float:
    if view.bucket_ms > view.params["until_ms"]:
        raise ValueError("too late")
    return 1.0


def half(view: CacheView) -> float:
    return float(view.bar.close) / 2


class Halves(Strategy):
    """A function that does not fail."""

    def setup(self) -> None:
        source = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        good = ProcessingNode(source, half, name="good")
        self.add_nodes([source, good])
        self.add_nodes(builtin("position_target", good, long_percent=0.1, short_percent=-0.1))


class Authored(Strategy):
    """A function that fails, an average of what it gives, and a function that does not."""

    def setup(self) -> None:
        source = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        until = {"until_ms": int(BARS["A"].bucket_ms[60])}
        bad = ProcessingNode(source, fails, name="bad", params=until)
        good = ProcessingNode(source, half, name="good")
        above = builtin("sma", bad, period=2, name="above")
        self.add_nodes([source, bad, good, above])
        self.add_nodes(builtin("position_target", above, long_percent=0.1, short_percent=-0.1))


def test_a_node_that_failed_fails_again_and_so_what_is_above_it(tmp_path: Path) -> None:
    authored = [message_of(Authored(), None)]
    with opened(tmp_path) as values:
        first, second = (simulate(authored, BARS, reuse=values) for _ in range(2))
    assert [one.name for one in first.faults] == [one.name for one in second.faults] == ["bad"]
    assert (first.reused, second.reused, second.computed) == (0, 1, 4)
    assert written(first) == written(second) != []


def test_a_function_that_is_not_there_is_missed_though_its_values_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = [message_of(Halves(), None)]
    with opened(tmp_path) as values:
        simulate(halves, BARS, reuse=values)
        assert simulate(halves, BARS, reuse=values).reused == 1
        monkeypatch.setattr(functions, "_REGISTERED", {})
        with pytest.raises(CodeMissing):
            simulate(halves, BARS, reuse=values)


def test_beside_a_strategy_that_reads_the_portfolio_the_nodes_of_others_are_reused(tmp_path: Path) -> None:
    """Its own take a step per bucket, and are neither kept nor asked for."""
    data, both = columns_of(60, 3), [dag_message(Plain()), dag_message(Scaling())]
    with opened(tmp_path) as values:
        assert simulate(both[1:], data, TERMS, reuse=values).reused == 0
        first, second = (simulate(both, data, TERMS, reuse=values) for _ in range(2))
    assert (first.reused, second.reused, second.computed) == (0, 3, first.computed - 3)
    assert written(first) == written(second) == written(simulate(both, data, TERMS)) != []


def test_what_comes_from_a_tag_query_is_its_runs_own(tmp_path: Path) -> None:
    """Its id does not say who answers: here another strategy does, the second time."""
    asks = [tag_query("asked", ["x"]), sma("above", 2, "asked"), target(source="above")]
    messages = [
        [
            text(strategy(asks, "asks")),
            text(strategy([price(symbols=SYMBOLS), mean, target(source="mean")], "told")),
        ]
        for mean in (sma("mean", 3, tags=["x"]), sma("mean", 5, tags=["x"]))
    ]
    with opened(tmp_path) as values:
        for one in messages:
            assert simulate(one, BARS, reuse=values).reused == 0
        again = simulate(messages[0], BARS, reuse=values)
    assert (again.reused, again.computed) == (1, 5)
    assert written(again) == written(simulate(messages[0], BARS)) != []


# ---- damage -----------------------------------------------------------------------------------------------------


def rewritten(change: Callable[[ColumnChunk], ColumnChunk]) -> Callable[[bytes], bytes]:
    return lambda value: codec.encode(change(codec.decode(value)))


FORGED = {
    "values cut": rewritten(lambda row: replace(row, values=row.values[:-8])),
    "values added": rewritten(lambda row: replace(row, values=row.values + bytes(8))),
    "bits cut": rewritten(lambda row: replace(row, there=row.there[:-1])),
    "bits added": rewritten(lambda row: replace(row, there=row.there + b"\0")),
    "all shorter": rewritten(lambda row: replace(row, rows=8, values=row.values[:64], there=row.there[:1])),
    "another count": rewritten(lambda row: replace(row, chunks=row.chunks + 1)),
    "another place": rewritten(lambda row: replace(row, chunk=row.chunk + 1)),
    "another symbol": rewritten(lambda row: replace(row, symbol="Z")),
    "another node": rewritten(lambda row: replace(row, node_id=f"blake3:{'1' * 64}")),
    "no number": rewritten(
        lambda row: replace(row, values=b"\xff" * len(row.values), there=b"\xff" * len(row.there))
    ),
    "no message": lambda value: value[:-1],
    "another message": lambda value: codec.encode(simulated_world()),
    "nothing": lambda value: b"",
}


def simulated_world() -> World:
    return simulate([message()], BARS).world


def forge(place: Path, change: Callable[[bytes], bytes | None], row: int = 0) -> None:
    """Change one row that is on a log."""
    log = EmbeddedLog(place)
    record = list(read_all(log, [WHERE]))[row]
    assert record.value is not None
    writer = log.writer(WRITER)
    writer.begin()
    writer.append(*WHERE, record.key, change(record.value))
    writer.commit({}, "", None)
    log.close()


def run(place: Path, many: int = reuse.CHUNK_ROWS) -> tuple[Simulated, NodeValues]:
    with pytest.MonkeyPatch.context() as patch, opened(place) as values:
        patch.setattr(reuse, "CHUNK_ROWS", many)
        return simulate([message()], BARS, reuse=values), values


@pytest.mark.parametrize("case", sorted(FORGED))
def test_damaged_rows_are_told_and_computed_anew_and_then_kept(case: str, tmp_path: Path) -> None:
    plain, _ = run(tmp_path)
    forge(tmp_path, FORGED[case])
    done, values = run(tmp_path)
    (refused,) = values.refused
    assert refused.code == "QMTL-821"
    assert "for 'A' that are on the log were not used" in refused.what
    assert (done.reused, done.computed, values.cross_context_hits) == (2, 3, 0)
    assert written(done) == written(plain)
    after, values = run(tmp_path)
    assert (after.reused, values.refused) == (3, [])


def test_rows_of_another_context_are_blocked_and_counted(tmp_path: Path) -> None:
    plain, _ = run(tmp_path)
    other = compute_key(graph_node().node_id, CONTEXT)
    forge(tmp_path, rewritten(lambda row: replace(row, compute_key=other)))
    done, values = run(tmp_path)
    assert (done.reused, values.cross_context_hits, len(values.refused)) == (2, 1, 1)
    assert written(done) == written(plain)


def test_a_node_of_which_a_row_is_missing_is_computed_anew(tmp_path: Path) -> None:
    run(tmp_path, 50)
    forge(tmp_path, lambda value: None, row=4)
    done, values = run(tmp_path, 50)
    assert (done.reused, len(values.refused)) == (2, 1)
    assert "some rows are missing" in values.refused[0].what


def test_of_a_transaction_that_was_not_ended_nothing_is_used(tmp_path: Path) -> None:
    """As a process leaves it that dies between two rows."""
    log = EmbeddedLog(tmp_path)
    values = NodeValues(log)
    found = simulate([message()], BARS)
    key = compute_key(
        graph_node().node_id,
        ComputeContext("backtest", ExecutionDomain.BACKTEST, found.fingerprint, "", found.fingerprint),
    )
    writer = log.writer(WRITER)
    writer.begin()
    for row in chunks_of(key, graph_node().node_id, "A", Column.full(np.ones(len(BARS["A"])))):
        writer.append(*WHERE, encode_key(VALUES.key_of(row)), codec.encode(row))
    log.close()
    done, values = run(tmp_path)
    assert (done.reused, values.refused) == (0, [])
    assert written(done) == written(found)


# ---- logs -------------------------------------------------------------------------------------------------------


def test_a_log_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(log: EmbeddedLog, name: str) -> None:
        raise LogUnreachable("the disk is gone.")

    monkeypatch.setattr(EmbeddedLog, "writer", refuse)
    done, values = run(tmp_path)
    assert [one.what for one in values.refused] == [
        "values of nodes could not be kept (QMTL-301: the disk is gone.); the rest of the run goes on without."
    ]
    assert written(done) == written(simulate([message()], BARS))


def take_turns(one: Log, other: Log) -> None:
    """Two that keep values at the same time, as two processes do: each takes the writer from the other."""
    columns = {symbol: Column.full(column.close.floats()) for symbol, column in BARS.items()}
    known = [one.node for one in simulate([message()], BARS).graphs[0].nodes]
    both = [NodeValues(one), NodeValues(other)]
    contexts: list[InContext] = [values.within(CONTEXT, BARS) for values in both]
    for place, node in enumerate(known):
        contexts[place % 2].keep(node, columns)
        contexts[1].keep(node, columns)
    last = NodeValues(one)
    context = last.within(CONTEXT, BARS)
    for node in known:
        found = context.find(node, SYMBOLS)
        assert found is not None
        assert all(found[symbol].values.tobytes() == columns[symbol].values.tobytes() for symbol in SYMBOLS)
    assert [values.refused for values in (*both, last)] == [[], [], []]
    for values in both:
        values.close()


def test_two_that_keep_the_same_nodes_do_not_disturb_each_other(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path)
    take_turns(log, log)
    log.close()


def test_two_processes_keep_the_same_nodes_on_kafka(kafka_bootstrap: str, kafka_namespace: str) -> None:
    one, other = (KafkaLog(kafka_bootstrap, kafka_namespace) for _ in range(2))
    try:
        take_turns(one, other)
    finally:
        one.close()
        other.close()
