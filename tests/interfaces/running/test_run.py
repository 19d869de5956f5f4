"""A run publishes once, whoever says it how often, and tells what is on the log, of its strategy alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from qmtl import ProcessingNode, Strategy, StreamInput, TagQueryNode
from qmtl.bootstrap import open_log
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.common.errors import NoAnswer, NoGateway, UsageError
from qmtl.foundation.contracts.dag import SentinelStatus
from qmtl.foundation.contracts.diff import NodeOrigin
from qmtl.foundation.contracts.node import NodeStatus
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import PositionSide, WorldStatus
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli.main import main
from qmtl.interfaces.client import Client
from qmtl.interfaces.running.address import log_address
from qmtl.interfaces.running.events import (
    Activated,
    Completed,
    FedBefore,
    Filled,
    GateState,
    Intent,
    NodeChanged,
    Ordered,
    Refused,
    Rejected,
    RunEvent,
    Stopped,
    Submitted,
    Unanswered,
    VersionChanged,
    WorldChanged,
)
from qmtl.interfaces.running.publication import publish
from qmtl.interfaces.running.run import RunOptions, follow
from qmtl.interfaces.running.words import as_json, told
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.reading import BarsRead
from qmtl.runtime.sdk.builtins import builtin
from qmtl.topology import NAMES
from tests.interfaces.cli.running import call
from tests.replay.logs import commit, row
from tests.runtime.data.walk import as_csv
from tests.runtime.sdk import authored
from tests.services.graphs import T0, crossing, strategy, text
from tests.services.nodes.floor import bars_of

LIVE = RunOptions(domain="live")
CLOSES: list[float | None] = [100.0 + (at * 37 % 23) for at in range(40)]


def bars(closes: Sequence[float | None] = CLOSES, *symbols: str) -> BarsRead:
    columns = {
        symbol: BarColumns.of(symbol, 60, bars_of({symbol: closes})) for symbol in symbols or ("BTC-USD",)
    }
    return BarsRead(columns, 60, "f")


class Cross(authored.PythonCross):
    strategy_id = "python_cross"

    def __init__(self) -> None:
        super().__init__("1m")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with a world, in which nothing is published."""
    directory = tmp_path_factory.mktemp("begun")
    assert main(["world", "create", "w1", "--log", f"embedded:{directory / 'log'}"]) == 0
    return directory / "log"


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """The same, to be written."""
    shutil.copytree(begun.parent, tmp_path / "mine")
    return tmp_path / "mine" / "log"


def activate(place: Path, strategy_id: str, side: str, *more: str) -> None:
    line = ["world", "activation", "set", "w1", "--strategy", strategy_id, "--side", side, "--active", "true"]
    assert main([*line, *more, "--log", f"embedded:{place}"]) == 0


def is_settled(event: RunEvent) -> bool:
    return isinstance(event, VersionChanged) and event.status is not SentinelStatus.PENDING


def is_gate(event: RunEvent) -> bool:
    return isinstance(event, Activated)


def run(
    place: Path,
    strategy: Any,
    options: RunOptions = LIVE,
    world: str = "w1",
    *,
    ends: Callable[[RunEvent], bool] = is_settled,
) -> list[RunEvent]:
    """The events of a run that is stopped with the first one for which `ends` is true; one that feeds bars ends by itself."""
    found: list[RunEvent] = []
    for event in follow(
        strategy, world, place, options, lambda: options.bars is None and any(map(ends, found))
    ):
        found.append(event)
    assert isinstance(found[-1], Stopped)
    return found


def rows(place: Path, name: str) -> list[Any]:
    log = open_log(f"embedded:{place}", read_only=True)
    try:
        return TableView(log, name, codec).refresh().rows()
    finally:
        log.close()


def messages(place: Path, name: str) -> list[Any]:
    log = open_log(f"embedded:{place}", read_only=True)
    try:
        records = read_all(log, all_partitions(log, name))
        return [codec.decode(one.value) for one in records if one.value and not is_reserved(one.key)]
    finally:
        log.close()


def of(events: Sequence[RunEvent], kind: type) -> list[Any]:
    return [one for one in events if isinstance(one, kind)]


# ---- what is told -------------------------------------------------------------------------------------------------------


def test_a_run_over_bars_tells_all_that_the_log_has_of_it_and_of_nobody_else(place: Path) -> None:
    """Another strategy that wants the same of the same symbol runs beside it."""
    other = text(strategy(crossing(3, 8, symbols=["BTC-USD"]), "other"))
    assert isinstance(run(place, other)[0], Submitted)
    for name in ("python_cross", "other"):
        activate(place, name, "long")
    found = run(place, Cross(), RunOptions(domain="live", bars=bars()))
    first = found[0]
    assert isinstance(first, Submitted)
    assert {one.name: one.origin for one in first.nodes} == {
        "price": NodeOrigin.REUSED,
        **dict.fromkeys(("fast", "slow", "cross", "target"), NodeOrigin.NEW),
    }
    assert found[1] == WorldChanged("w1", WorldStatus.ACTIVE)
    assert found[-2:] == [Completed(T0 + 40 * 60_000), Stopped("completed")]
    mine = [one for one in messages(place, "trade.intents") if one.strategy_id == "python_cross"]
    intents = of(found, Intent)
    assert [(one.symbol, one.bucket_ms, one.target_percent, one.index) for one in intents] == [
        (one.symbol, one.bucket_ms, one.target_percent, one.intent_index) for one in mine
    ]
    assert len(intents) > 4
    fills = sorted(
        (one.order_id, one.seq, one.quantity, one.price, one.fee)
        for one in rows(place, "trade.fills")
        if one.strategy_id == "python_cross"
    )
    assert fills
    assert (
        sorted((one.order_id, one.seq, one.quantity, one.price, one.fee) for one in of(found, Filled))
        == fills
    )
    assert {one.order_id: one.status for one in of(found, Ordered)} == {
        one.order_id: one.status for one in rows(place, "trade.orders") if one.strategy_id == "python_cross"
    }
    refused = [one for one in messages(place, "trade.rejections") if one.strategy_id == "python_cross"]
    assert [(one.bucket_ms, one.reason) for one in of(found, Rejected)] == [
        (one.bucket_ms, one.reason) for one in refused
    ]
    assert refused, "the short side is closed"
    for order in of(found, Ordered):
        at = found.index(order)
        assert any(isinstance(one, Intent) and one.symbol == order.symbol for one in found[:at])
    ways: dict[str, list[NodeStatus]] = {}
    for one in of(found, NodeChanged):
        ways.setdefault(one.name, []).append(one.status)
    for name in ("fast", "slow", "cross", "target"):
        assert ways[name] == sorted(ways[name], key=list(NodeStatus).index)
        assert ways[name][-1] is NodeStatus.COMPLETED
    assert not of(run(place, Cross()), Intent), "what was written before is told where it is asked for"
    again = run(place, Cross(), RunOptions(since_ms=0, bars=bars()))
    for kind in (Intent, Ordered, Filled, Rejected):
        assert set(of(again, kind)) >= set(of(found, kind))
    assert of(again, Filled) == of(found, Filled)
    told_all = {type(one) for one in (*found, *again)} | {Refused, Unanswered}
    assert told_all == set(RunEvent.__args__)
    for one in (*found, *run(place, Cross, LIVE, "w9")):
        assert "\n" not in told(one)
        assert set(as_json(one)) == {"event", *one.__slots__}
    assert {as_json(one)["event"] for one in found} >= {"node_changed", "filled", "submitted"}


def test_what_is_written_between_the_publication_and_the_first_look_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared node may be warm, so a strategy may want something at once."""

    def published(client: Client, *of: Any) -> Any:
        done = publish(client, *of)
        want = OrderIntent("w1", "python_cross", "BTC-USD", T0, Decimal("0.4"), Decimal(100), "n")
        commit(client.log, [row("trade.intents", want)])
        return done

    monkeypatch.setattr("qmtl.interfaces.running.run.publish", published)
    assert of(run(place, Cross()), Intent) == [Intent("BTC-USD", T0, Decimal("0.4"), Decimal(100), 0)]


class Failing(Strategy):
    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price", interval=60)
        bad = ProcessingNode(price, authored.fails_above, name="bad", params={"limit": 110})
        self.add_nodes([price, bad])
        self.add_nodes(builtin("position_target", bad, long_percent=0.1, short_percent=-0.1))


def test_a_node_that_fails_is_told_with_its_cause_and_the_run_goes_on(place: Path) -> None:
    found = run(place, Failing, RunOptions(domain="live", bars=bars()))
    (failed,) = [one for one in of(found, NodeChanged) if one.status is NodeStatus.ERROR]
    assert (failed.name, failed.cause_code) == ("bad", "QMTL-413")
    assert "is too high" in failed.cause
    assert "bad is error since" in told(failed)
    assert found[-2:] == [Completed(T0 + 40 * 60_000, ("bad",)), Stopped("completed")]
    assert told(found[-2]).endswith("are computed and traded; in state error: bad")


def test_a_run_that_has_come_to_the_end_of_its_bars_with_a_node_in_error_ends_with_a_code_of_its_own(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = as_csv(tmp_path / "bars.csv", bars_of({"BTC-USD": CLOSES}))
    what = ("strategy", "run", f"{__name__}:Failing", "--world", "w1", "--log", f"embedded:{place}")
    line = (*what, "--domain", "backtest", "--as-of", "sample", "--data", f"BTC-USD={data}")
    first = call(capsys, *line)
    assert (first.code, first.err.splitlines()[0]) == (
        12,
        "[QMTL-415] all bars are computed and traded, but 'bad' of the strategy ended in state error.",
    )
    assert "bad is error since" in first.out
    assert "on line 5 of fails_above()" in first.out
    assert first.out.endswith("stopped    completed\n")
    again = call(capsys, *line, "--json")  # to run it again mends nothing, and says so again
    assert again.code == 12
    assert [one["failed"] for one in again.lines() if one["event"] == "completed"] == [["bad"]]


def test_the_gate_is_switched_by_each_word_of_the_world_service_and_nothing_else(place: Path) -> None:
    activate(place, "python_cross", "long")
    activate(place, "python_cross", "short", "--freeze", "true")
    words = of(run(place, Cross(), ends=is_gate), Activated)
    assert (words[0].long, words[0].short) == (GateState.OPEN, GateState.CLOSED)
    assert [one.side for one in words] == [PositionSide.LONG, PositionSide.SHORT]
    assert (words[-1].long, words[-1].short) == (GateState.FROZEN, GateState.FROZEN)
    assert words[-1].weight == Decimal(1)


def test_bars_that_nobody_trades_end_a_run_that_has_waited_for_them(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmtl.topology.NAMES", tuple(one for one in NAMES if one != "trading"))
    monkeypatch.setattr("qmtl.interfaces.running.run.monotonic", count(0, 20).__next__)
    with pytest.raises(NoAnswer, match=f"stands still behind the bucket {T0} for 30 s"):
        run(place, Cross(), RunOptions(domain="live", bars=bars(CLOSES[:3])))


def test_a_version_that_differs_in_names_alone_is_told_by_the_names_of_who_runs_it(place: Path) -> None:
    plain = strategy(crossing(2, 3), "s1")
    renamed = json.loads(json.dumps(plain).replace('"fast"', '"quick"'))
    first, again = (run(place, text(one))[0] for one in (plain, renamed))
    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert again.sentinel_id == first.sentinel_id
    assert [one.name for one in again.nodes] == [
        "quick" if one.name == "fast" else one.name for one in first.nodes
    ]


# ---- once ---------------------------------------------------------------------------------------------------------------


def test_the_same_content_is_the_same_submission_and_is_answered_from_what_is_there(place: Path) -> None:
    first = run(place, Cross())[0]
    sent = messages(place, "dag.submissions")
    again = run(place, Cross(), RunOptions())[0]
    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.submission_id == first.submission_id
    assert again.nodes == first.nodes
    assert messages(place, "dag.submissions") == sent


class Asking(Strategy):
    """Asks for tags, and has a node with others."""

    tags = ("nobody-has-this",)

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price", tags=["crypto"])
        asked = TagQueryNode(list(self.tags), name="asked", interval="1m")
        self.add_nodes([price, asked, builtin("position_target", asked, long_percent=0.1, short_percent=0)])


class Answered(Asking):
    """Asks for tags that it has itself."""

    tags = ("crypto",)


def test_a_tag_query_that_nobody_answers_is_told_with_its_name(place: Path) -> None:
    (said,) = of(run(place, Asking("1m"), RunOptions(domain="live", bars=bars())), Unanswered)
    assert said.name == "asked"
    assert "the tag query 'asked': it and what reads it are silent" in told(said)
    again = run(place, Asking("1m"), ends=lambda event: isinstance(event, Unanswered))
    assert of(again, Unanswered) == [said]
    assert of(run(place, Answered("1m")), Unanswered) == []


def test_who_comes_after_the_bars_were_fed_is_told_that_new_nodes_see_none_of_them(place: Path) -> None:
    def begins(fast: int, name: str, read: BarsRead) -> tuple[list[FedBefore], int]:
        found = run(place, text(strategy(crossing(fast, 8), name)), RunOptions(domain="live", bars=read))
        assert found[-1] == Stopped("completed")
        return of(found, FedBefore), len(of(found, Intent))

    symbols = ("BTC-USD", "ETH-USD")
    half, whole = bars(CLOSES[:20], *symbols), bars(CLOSES, *symbols)
    assert begins(2, "s1", half)[0] == []
    told_then, intents = begins(3, "s2", half)
    assert told_then == [FedBefore(T0 + 20 * 60_000, is_all=True)]
    assert intents == 0
    assert "nothing is left to feed, and nodes that are new see only" in told(told_then[0])
    told_later, intents = begins(4, "s3", whole)
    assert told_later == [FedBefore(T0 + 20 * 60_000, is_all=False)]
    assert intents > 0


def test_a_run_that_is_begun_again_takes_nothing_back_from_a_newer_version(place: Path) -> None:
    old, new = (text(strategy(crossing(fast, 8), "s1", version=f"v{fast}")) for fast in (2, 3))
    run(place, old)
    newer = run(place, new)[0]
    found = run(place, old, RunOptions(bars=bars(CLOSES, "BTC-USD", "ETH-USD")))
    assert isinstance(newer, Submitted)
    assert [one.status for one in of(found, VersionChanged)] == [SentinelStatus.RETIRED]
    (row,) = rows(place, "dag.strategies")
    assert row.sentinel_id == newer.sentinel_id
    assert "is retired" in of(found, Refused)[0].what


# ---- refused ------------------------------------------------------------------------------------------------------------


def refusals() -> Iterator[Any]:
    bad = {**strategy(crossing()), "signals": ["nothing"]}
    bad["nodes"][1] = {**bad["nodes"][1], "period": 0}
    yield pytest.param(text(bad), "w1", LIVE, "QMTL-500", ("nothing", "period"), id="two faults")
    yield pytest.param(Cross, "w9", LIVE, "QMTL-601", ("w9",), id="no such world")
    yield pytest.param(Cross, "w1", RunOptions(), "QMTL-602", ("decision_unavailable",), id="no context")
    yield pytest.param(authored.PythonCross, "w1", LIVE, "QMTL-512", ("no interval",), id="no interval")


@pytest.mark.parametrize(("strategy", "world", "options", "code", "says"), list(refusals()))
def test_a_refusal_is_an_event_with_all_reasons_and_the_end(
    begun: Path, strategy: Any, world: str, options: RunOptions, code: str, says: Sequence[str]
) -> None:
    found = run(begun, strategy, options, world)
    refused, end = found
    assert isinstance(refused, Refused)
    assert (refused.code, end) == (code, Stopped("refused"))
    words = " ".join([refused.what, *(one.what for one in refused.reasons)])
    assert all(one in words for one in says), words
    error = refused.error()
    assert (error.code, error.what, error.exit_code) == (refused.code, refused.what, refused.exit_code)
    assert rows(begun, "dag.strategies") == []


@pytest.mark.parametrize("address", ["http://gateway:8000", "https://gateway", " HTTPS://x "])
def test_there_is_no_gateway_to_talk_to(address: str) -> None:
    with pytest.raises(NoGateway, match="no gateway") as refused:
        log_address(address)
    assert "kafka://HOST:PORT" in refused.value.remedy
    with pytest.raises(NoGateway):
        next(follow(Cross, "w1", address))


@pytest.mark.parametrize("address", ["", "  ", "ftp://x", "postgres://x/y"])
def test_an_address_of_another_scheme_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        log_address(address)


def test_an_address_of_a_log_is_taken_as_log_takes_it(tmp_path: Path) -> None:
    assert log_address("kafka://h:1/ns") == "kafka://h:1/ns"
    assert log_address("embedded:x") == "embedded:x"
    assert log_address(tmp_path) == f"embedded:{tmp_path}"
