"""Kills runs of the demo and lets them go on, and says what came of it: one trial is one log, however often it is killed."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

from qmtl.bootstrap import open_log
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import QmtlError
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.demo.run import WORLD
from qmtl.replay.feed import last_closed
from tests.flow.driving import (
    WORKERS,
    Place,
    Result,
    Said,
    begin,
    differences,
    end,
    kill_at,
    qmtl,
    result_of,
    wait_for_line,
)

PHASES = ("start", "world", "deployed", "feeding", "trading", "traded")
"""How far a run had come when it was killed."""


@dataclass(slots=True)
class Trial:
    """What one disturbed run gave.

    Attributes:
        kills: for each kill that met its process alive, what was killed, when or where, and the phase that the log was in.
        wrong: everything in which the run differs from an undisturbed one; empty is good.
    """

    log: str
    kills: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def _timed(trial: Trial) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        trial.seconds = round(time.monotonic() - started, 2)


def killed_at_random(
    place: Place, undisturbed: Result, rng: random.Random, most_kills: int, span_s: float
) -> Trial:
    """Kill the demo at random moments, up to so many times, then let it complete.

    A quarter of the moments lies within the first second of the process, the others within `span_s` seconds from where it
    has opened its log. Between two attempts the stores are lost now and then, as with a disk.
    """
    trial = Trial(place.log)
    with _timed(trial):
        while len(trial.kills) < most_kills:
            early = rng.random() < 0.25
            delay_s = rng.uniform(0.05, 1.0) if early else rng.uniform(0.0, span_s)
            demo = begin(place.demo("--poll-records", str(rng.choice((20, 100, 4000)))))
            if not early:
                wait_for_line(demo)
            said = kill_at(demo, delay_s)
            if said is not None:
                if said.code != 0:
                    trial.wrong.append(f"an attempt ended by itself: {said}")
                break
            moment = f"{delay_s:.3f} s after {'the start' if early else 'opening'}"
            trial.kills.append({"what": "demo", "at": moment, "phase": phase_of(place)})
            if rng.random() < 0.2:
                shutil.rmtree(place.state / "tasks", ignore_errors=True)
        complete(place, undisturbed, trial)
    return trial


def killed_at_points(place: Place, undisturbed: Result, points: Sequence[str], records: int) -> Trial:
    """Let the demo end itself at each failpoint in turn (`name:n`), then let it complete.

    The stores are lost before each point of recovery, so that there is something to recover.
    """
    trial = Trial(place.log)
    with _timed(trial):
        for point in points:
            if point.split(":")[0].endswith("_restore"):
                shutil.rmtree(place.state / "tasks", ignore_errors=True)
            said = end(begin(place.demo("--poll-records", str(records)), env={"QMTL_FAILPOINT": point}))
            if said.code != -signal.SIGKILL:
                trial.wrong.append(f"{point} was never passed: {said}")
                break
            trial.kills.append({"what": "demo", "at": point, "phase": phase_of(place)})
        complete(place, undisturbed, trial)
    return trial


def workers_killed(place: Place, undisturbed: Result, rng: random.Random, most_kills: int) -> Trial:
    """Kill one of five worker processes after another, at random, while a demo without workers drives them."""
    trial = Trial(place.log)

    def start(name: str) -> Any:
        state = str(place.state / name)
        return begin(
            ["worker", "run", name, "--log", place.log, "--state-dir", state, "--poll-records", "40"]
        )

    with _timed(trial):
        running = {name: start(name) for name in WORKERS}
        demo = begin(place.demo("--no-workers"))
        try:
            while demo.poll() is None and phase_of(place) == "start":
                time.sleep(0.05)
            while len(trial.kills) < most_kills:
                delay_s = rng.uniform(0.1, 1.2)
                name = rng.choice(WORKERS)
                if kill_at(running[name], delay_s) is not None:
                    trial.wrong.append(f"worker {name} ended by itself")
                    break
                if demo.poll() is not None:
                    break
                trial.kills.append({"what": name, "at": f"{delay_s:.3f} s later", "phase": phase_of(place)})
                running[name] = start(name)
            judge(place, end(demo), undisturbed, trial)
        finally:
            for process in (*running.values(), demo):
                process.kill()
                process.communicate()
    return trial


def complete(place: Place, undisturbed: Result, trial: Trial) -> None:
    """The same command once more, undisturbed."""
    judge(place, end(begin(place.demo())), undisturbed, trial)


def judge(place: Place, said: Said, undisturbed: Result, trial: Trial) -> None:
    """Compare what a completed run printed with an undisturbed one; rebuild its tables; compute every output of it again."""
    if said.code != 0:
        trial.wrong.append(f"the last attempt failed: {said}")
        return
    found = result_of(said)
    trial.wrong += differences(found, undisturbed)
    fills = [(row["order_id"], row["seq"]) for row in found["tables"]["fills"]]
    wanted = [(row["order_id"], row["seq"]) for row in undisturbed["tables"]["fills"]]
    trial.wrong += [f"fill {key} is twice" for key in sorted(set(fills)) if fills.count(key) > 1]
    trial.wrong += [f"fill {key} is lost" for key in sorted(set(wanted) - set(fills))]
    trial.wrong += [f"fill {key} is new" for key in sorted(set(fills) - set(wanted))]
    if find_spec("qmtl.interfaces.cli.replay") is not None:
        verifying = begin(["replay", "verify", "--log", place.log, "--state-dir", str(place.state)])
        again = qmtl("replay", "run", "--log", place.log)
        verified = end(verifying)
        if verified.code != 0:
            trial.wrong.append(f"replay verify: {verified}")
        if again.code != 0:
            trial.wrong.append(f"replay run: {again}")


def phase_of(place: Place) -> str:
    """How far the log says that its run has come."""
    try:
        log = open_log(place.log, read_only=True)
    except QmtlError:
        return "start"
    try:
        if "trade.portfolio" not in log.topics():
            return "start"
        rows = TableView(log, "node.deployments", codec).refresh().rows()
        if not rows:
            known = TableView(log, "world.state", codec).refresh().get(WORLD)
            return "start" if known is None else "world"
        partition = partition_for(encode_key((WORLD,)), topic("trade.portfolio").partitions)
        traded_ms = last_closed(log, TopicPartition("trade.portfolio", partition))
        fed_ms = last_closed(log, TopicPartition("clock", 0))
        if fed_ms <= 0:
            return "deployed"
        if fed_ms < place.end_ms():
            return "feeding"
        return "trading" if traded_ms < fed_ms else "traded"
    finally:
        log.close()


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Of many trials: how many kills in which phase, and everything that was wrong."""
    phases = [kill["phase"] for trial in trials for kill in trial.kills]
    return {
        "trials": len(trials),
        "kills": len(phases),
        "phases": {name: phases.count(name) for name in PHASES},
        "wrong": [problem for trial in trials for problem in trial.wrong],
        "seconds": round(sum(trial.seconds for trial in trials), 1),
    }
