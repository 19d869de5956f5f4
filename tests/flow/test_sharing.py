"""The tasks of one processor on several worker processes: shared, taken over from those that leave, and with the same results."""

from __future__ import annotations

import json
import signal
import subprocess
from itertools import chain
from pathlib import Path

from qmtl.bootstrap import open_log
from qmtl.engine.view import TableView
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import SHARDS
from tests.contract.driving import until
from tests.flow.driving import WORKERS, Result, begin, differences, end, on_kafka, qmtl, result_of

SLOTS = ("0", "1", "2")


def listed(address: str) -> dict[str, list[int]]:
    """The tasks of each slot of `nodes`, as the command line tells."""
    said = qmtl("worker", "list", "--log", address, "--format", "json")
    assert said.code == 0, said
    rows = [json.loads(line) for line in said.out.splitlines()]
    return {
        row["slot"]: sorted(map(int, row["tasks"]))
        for row in rows
        if row["processor"] == "nodes" and row["slot"] is not None
    }


def everything_is_shared(address: str, slots: set[str]) -> bool:
    """Whether these slots, and no others, have every task, each of them once and some each."""
    found = listed(address)
    having = {slot for slot, tasks in found.items() if tasks}
    return having == slots and sorted(chain(*found.values())) == list(range(SHARDS))


def slot_in_work(address: str) -> str:
    """The slot that has the strategy's nodes, as soon as they remember something that a worker can take over."""
    log = open_log(address, read_only=True)
    try:
        until(lambda: "node.windows" in log.topics(), 60)
        windows = TableView(log, "node.windows", codec)
        having = listed(address)
        until(lambda: windows.refresh().rows() != [], 60)
        shard = TableView(log, "node.deployments", codec).refresh().rows()[0].shard
    finally:
        log.close()
    (slot,) = [slot for slot, tasks in having.items() if shard in tasks]
    return slot


def test_three_workers_share_the_tasks_of_nodes_and_as_they_leave_results_stay_those_of_one(
    kafka_bootstrap: str, tmp_path: Path, bars: dict[str, Path], undisturbed: Result
) -> None:
    running: dict[tuple[str, str], subprocess.Popen[str]] = {}
    with on_kafka(kafka_bootstrap, tmp_path / "state", bars) as place:

        def start(name: str, slot: str) -> None:
            state = str(tmp_path / f"{name}-{slot}")
            line = ["worker", "run", name, "--slot", slot, "--log", place.log, "--state-dir", state]
            running[name, slot] = begin([*line, "--poll-records", "20"])

        try:
            for name in WORKERS:
                for slot in SLOTS if name == "nodes" else ("0",):
                    start(name, slot)
            until(lambda: everything_is_shared(place.log, {*SLOTS}), 60)
            demo = running["demo", ""] = begin(place.demo("--no-workers"))
            killed = slot_in_work(place.log)
            running["nodes", killed].kill()
            stopped, left = sorted({*SLOTS} - {killed})
            running["nodes", stopped].send_signal(signal.SIGTERM)
            assert running["nodes", stopped].wait(120) == 0
            assert demo.poll() is None, "all was done before anybody left"
            until(lambda: everything_is_shared(place.log, {left}), 60)
            assert differences(result_of(end(demo)), undisturbed) == []
        finally:
            for process in running.values():
                process.kill()
                process.communicate()
