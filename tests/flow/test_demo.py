"""The demo as people start it: what it prints, that it is right, and everything that must not change it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

from qmtl.bootstrap import make_workers, open_log
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.dag import DagSubmission
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.client import Client, submission_id
from qmtl.replay.digest import digests
from tests.contract.driving import until
from tests.flow.driving import (
    ROOT,
    SHIPPED,
    WORKERS,
    Place,
    Result,
    begin,
    differences,
    embedded,
    end,
    on_kafka,
    qmtl,
    result_of,
    run_demo,
)
from tests.flow.restatement import CASH, average_cost, restate
from tests.services.graphs import price, sma, strategy, target, text

FILL_COLUMNS = ("time", "seq", "symbol", "side", "quantity", "price", "fee", "slippage")
ORDER_COLUMNS = ("created", "symbol", "side", "quantity", "status", "filled", "average_price")
TEXTS = {"time", "created", "symbol", "side", "status"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run over all the data that is shipped."""
    return run_demo(embedded(tmp_path_factory.mktemp("whole"), {}))


class Lived(NamedTuple):
    """A place on Kafka, what a run of the short bars gave there, and what another gave after the stores of the first were lost."""

    place: Place
    first: Result
    second: Result


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, bars: dict[str, Path], kafka_bootstrap: str
) -> Iterator[Lived]:
    with on_kafka(kafka_bootstrap, tmp_path_factory.mktemp("lived") / "state", bars) as place:
        first = run_demo(place)
        shutil.rmtree(place.state)
        yield Lived(place, first, run_demo(place, "--poll-records", "100"))


# ---- what it prints -------------------------------------------------------------------------------------------


def test_stdout_is_one_json_object_with_a_digest_per_topic_and_the_final_tables(undisturbed: Result) -> None:
    assert set(undisturbed) == {"digests", "equity_picture", "tables"}
    assert set(undisturbed["tables"]) == {
        "dag_versions",
        "activation",
        "orders",
        "fills",
        "rejections",
        "portfolio",
        "pnl",
    }
    assert {"trade.fills", "trade.portfolio", "dag.strategies", "clock"} < set(undisturbed["digests"])
    assert all(text.startswith("blake3:") and len(text) == 39 for text in undisturbed["digests"].values())
    assert len(undisturbed["tables"]["fills"]) >= 8
    assert Path(undisturbed["equity_picture"]).read_bytes().startswith(b"\x89PNG\r\n")


def test_without_json_the_same_digests_stand_on_the_page(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result
) -> None:
    place = embedded(tmp_path, bars)
    said = qmtl(*[part for part in place.demo() if part != "--json"])
    assert said.code == 0
    assert all(f"{name} " in said.out and text in said.out for name, text in undisturbed["digests"].items())


# ---- that it is right -----------------------------------------------------------------------------------------


def told(row: Mapping[str, str], columns: tuple[str, ...]) -> dict[str, object]:
    return {name: row[name] if name in TEXTS else Decimal(row[name]) for name in columns}


def assert_restated(found: Result, bars: Mapping[str, Path]) -> None:
    books = restate(bars)
    tables = found["tables"]
    assert [told(row, ORDER_COLUMNS) for row in tables["orders"]] == books.orders
    by_id = {row["order_id"]: (row["created"], row["symbol"]) for row in tables["orders"]}
    assert len(by_id) == len(books.orders)
    assert [
        {**told(row, FILL_COLUMNS), "order": by_id[row["order_id"]]} for row in tables["fills"]
    ] == books.fills
    assert tables["rejections"] == []
    numbers = ("quantity", "average_cost", "mark", "realised", "unrealised", "fees", "fills")
    assert {row["symbol"]: [Decimal(row[name]) for name in numbers] for row in tables["portfolio"]} == {
        symbol: [
            one.quantity,
            average_cost(one),
            one.mark,
            one.realised,
            one.quantity * one.mark - one.cost,
            one.fees,
            one.fills,
        ]
        for symbol, one in books.holdings.items()
    }
    (account,) = tables["pnl"]
    held = list(books.holdings.values())
    equity = books.cash + sum(one.quantity * one.mark for one in held)
    assert {name: Decimal(account[name]) for name in ("cash", "equity", "realised", "fees", "net")} == {
        "cash": books.cash,
        "equity": equity,
        "realised": sum(one.realised for one in held),
        "fees": sum(one.fees for one in held),
        "net": equity - CASH,
    }


def test_a_plain_loop_over_the_short_bars_gives_the_same_books(
    bars: dict[str, Path], undisturbed: Result
) -> None:
    assert_restated(undisturbed, bars)


def test_a_plain_loop_over_all_shipped_bars_gives_the_same_books(whole: Result) -> None:
    assert len(whole["tables"]["fills"]) >= 60
    assert_restated(whole, SHIPPED)


# ---- what must not change it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONHASHSEED": "4242", "LC_ALL": "C", "LANG": "C", "TZ": "America/St_Johns"},
        {"PYTHONHASHSEED": "0", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0"},
    ],
    ids=lambda env: env.get("LANG", "default"),
)
def test_hash_seed_locale_zone_and_directory_change_nothing(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, env: dict[str, str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = Place("embedded:run/log", Path("run"), bars)
    assert differences(run_demo(place, cwd=elsewhere, env=env), undisturbed) == []
    assert (elsewhere / "run" / "log" / "CURRENT").exists()


@pytest.mark.parametrize("records", [7, 100])
def test_the_size_of_a_batch_changes_nothing(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, records: int
) -> None:
    found = run_demo(embedded(tmp_path, bars), "--poll-records", str(records))
    assert differences(found, undisturbed) == []


def test_a_second_run_adds_nothing_with_its_stores_or_without(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result
) -> None:
    place = embedded(tmp_path, bars)
    first = run_demo(place)
    assert run_demo(place) == first
    shutil.rmtree(place.state / "tasks")
    assert run_demo(place) == first
    assert differences(first, undisturbed) == []


@pytest.mark.parametrize("kind", ["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def test_processors_that_lost_their_stores_take_a_second_strategy_and_repeat_nothing_of_the_first(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "embedded":
        place = embedded(tmp_path / "state", bars)
        run_demo(place)
    else:
        place = request.getfixturevalue("lived").place
    shutil.rmtree(place.state / "tasks")
    log = open_log(place.log)
    workers = make_workers(log, TaskSettings(place.state / "tasks"), slot="demo")
    try:
        client = Client(log, workers)
        message = text(strategy([price(), sma("mean", 30), target(source="mean")], "second"))
        said = client.in_log(DagSubmission(submission_id("demo", message), "demo", message, 0))
        outcome = client.submit(said)
        second = client.deployed(outcome)
        wheres = [where for name in log.topics() for where in all_partitions(log, name)]
        # A broker tells a writer of its commit before it has written the marker, and what is read ends before that.
        until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))
        asked = [row.topic for row in client.view("dag.tasks").rows()]
        reports = read_all(log, all_partitions(log, "dag.reports"))
        found = [codec.decode(one.value).topic for one in reports if one.value is not None]
        after = digests(log, codec)
    finally:
        for worker in workers:
            worker.close()
        log.close()
    assert [node.name for node in second.nodes if node.reused] == ["price", "mean"]
    assert sorted(found) == sorted(asked)
    assert len(asked) == 6
    touched = {name for name in after if after[name] != undisturbed["digests"].get(name)}
    touched.discard(
        "dag.readers"
    )  # who reads the new version is told when its tasks have closed a bucket, now or a moment later
    assert touched == {
        "dag.submissions",
        "dag.admin.log",
        "dag.diffs",
        "dag.edges",
        "dag.nodes",
        "dag.queues",
        "dag.reports",
        "dag.sentinels",
        "dag.strategies",
        "dag.tasks",
        "node.deployments",
        "node.state",
        "sentinel_weight",
        next(node.topic for node in second.nodes if node.name == "target"),
    }


def test_kafka_gives_the_digests_of_the_embedded_log_and_gives_them_again_without_its_stores(
    lived: Lived, undisturbed: Result
) -> None:
    """Of all shipped bars it is shown by `make campaign-kills ARGS="--log kafka --kills 1 --minutes 4320"`."""
    assert differences(lived.first, undisturbed) == []
    assert differences(lived.second, undisturbed) == []


# ---- the processors apart -------------------------------------------------------------------------------------


@contextmanager
def five_workers(place: Place, scripts: tuple[str, ...]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One process per processor, those named in `scripts` by their file in streams/; whatever still runs is killed."""
    running = {}
    try:
        for name in WORKERS:
            options = ["--log", place.log, "--state-dir", str(place.state / name)]
            script = ROOT / "streams" / f"{name}.py" if name in scripts else None
            running[name] = begin(options if script else ["worker", "run", name, *options], script=script)
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def test_five_worker_processes_give_the_same_digests_and_drain_within_seconds(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, kafka_bootstrap: str
) -> None:
    with (
        on_kafka(kafka_bootstrap, tmp_path, bars) as place,
        five_workers(place, ("nodes", "trading")) as running,
    ):
        assert differences(run_demo(place, "--no-workers"), undisturbed) == []
        assert all(process.poll() is None for process in running.values())
        asked = time.monotonic()
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        ends = {name: end(process, 60) for name, process in running.items()}
        assert time.monotonic() - asked < 20  # and not for as long as a call to the log may take
        assert {name: said.code for name, said in ends.items()} == dict.fromkeys(WORKERS, 0)
        assert all("drained" in said.err and not said.out for said in ends.values())
        again = begin(place.demo())
        assert differences(result_of(end(again)), undisturbed) == []
