"""The tasks of one processor on several worker processes: shared, taken over from those that leave, and with the same results."""

from __future__ import annotations

import json
import signal
import subprocess
from itertools import chain
from pathlib import Path

from qmtl.foundation.wire.topics import SHARDS
from tests.contract.driving import until
from tests.flow.driving import WORKERS, Result, begin, differences, end, on_kafka, qmtl, result_of
from tests.flow.kills import phase_of

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
            until(lambda: phase_of(place) in ("feeding", "trading"), 60)
            running["nodes", "1"].send_signal(signal.SIGTERM)
            assert running["nodes", "1"].wait(30) == 0
            running["nodes", "2"].kill()
            assert demo.poll() is None, "all was done before anybody left"
            until(lambda: everything_is_shared(place.log, {"0"}), 60)
            assert differences(result_of(end(demo)), undisturbed) == []
        finally:
            for process in running.values():
                process.kill()
                process.communicate()
