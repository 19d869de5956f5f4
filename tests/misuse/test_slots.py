"""Two workers with one slot: the second has it, the first ends and says why."""

from __future__ import annotations

import signal
import subprocess
import uuid
from pathlib import Path

from qmtl.bootstrap import open_log
from qmtl.engine.log.port import Log, TopicPartition
from tests.contract.driving import until
from tests.interfaces.cli.running import Ran, assert_one_screen, run, start

STATE = TopicPartition("world.state", 0)


def worker(place: Path, address: str) -> subprocess.Popen[str]:
    process = start(
        place, "worker", "run", "worldservice", "--slot", "7", "--log", address, "--state-dir", str(place)
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "worker worldservice slot 7 runs on" in said, said
    return process


def stamped(log: Log) -> bool:
    return "world.state" in log.topics() and log.end_offsets([STATE])[STATE] > 0


def test_the_first_of_two_workers_in_one_slot_ends_and_says_so_and_the_second_goes_on(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = f"kafka://{kafka_bootstrap}/slot-{uuid.uuid4().hex[:10]}"
    log = open_log(address)
    (tmp_path / "first").mkdir()
    first = worker(tmp_path / "first", address)
    try:
        until(lambda: stamped(log))
        (tmp_path / "second").mkdir()
        second = worker(tmp_path / "second", address)
        try:
            out, err = first.communicate(timeout=240)  # with nothing to do, it still finds out
            assert_one_screen(
                Ran(first.returncode, out, err), "QMTL-313", 3, says=["newer", "worldservice.7"]
            )
            # The second does the slot's work.
            made = run(tmp_path, "world", "create", "w1", "--log", address)
            assert made.code == 0, made
            second.send_signal(signal.SIGTERM)
            assert second.wait(120) == 0
        finally:
            second.kill()
            second.communicate()
    finally:
        first.kill()
        first.communicate()
        log.close()
