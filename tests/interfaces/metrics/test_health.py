"""Ready is a worker whose every task is restored and runs, and who was heard of lately; and how the server answers."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from qmtl.engine import pace, recovery
from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.observer import Commit, Look, Outcome, Stall, StallKind, TaskId
from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.metrics.health import health
from qmtl.interfaces.metrics.serve import Metrics
from qmtl.interfaces.metrics.watch import SETTLED_S, Watch
from tests.contract.driving import until
from tests.engine.toys import COUNTS, ITEMS, Counter, Feed, Item, make_topics
from tests.interfaces.metrics.scraping import LOOPBACK, Answer, ask, shown

# ---- the rule -----------------------------------------------------------------------------------------------------

TASKS = (TaskId("p", 0), TaskId("p", 1))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("poll"), st.frozensets(st.integers(0, 1))),
        st.tuples(st.sampled_from(["open", "restore", "close"]), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.integers(1, 9)),
    ),
    max_size=14,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(events=EVENTS)
def test_ready_is_who_was_heard_of_lately_owns_tasks_and_runs_each_of_them(
    events: Sequence[tuple[str, frozenset[int] | int]],
) -> None:
    clock = Clock()
    watch = Watch(["p"], CollectorRegistry(), clock)
    owned: Iterable[int] | None = None
    running: set[int] = set()
    heard = 0.0
    for event, what in events:
        if event == "poll":
            assert isinstance(what, frozenset)
            owned, heard = what, clock.now
            watch.polled("p", what)
            continue
        assert isinstance(what, int)
        if event == "wait":
            clock.now += what
        elif event == "open":
            watch.opening(TASKS[what])
            watch.opened(TASKS[what])
            running.add(what)
        elif event == "restore":
            watch.opening(TASKS[what])
            running.discard(what)
        else:
            watch.closed(TASKS[what])
            running.discard(what)
    ready = bool(owned) and set(owned or ()) <= running and clock.now - heard <= 10
    assert health(watch, 10).ready is ready
    assert bool(health(watch, 10).reasons) is not ready


def test_each_reason_is_told() -> None:
    clock = Clock()
    watch = Watch(["p"], CollectorRegistry(), clock)
    assert health(watch).reasons == ("p has not taken part in its group yet",)
    watch.polled("p", [])
    assert health(watch).reasons == ("p owns no task: it joins its group, or others have them all",)
    watch.polled("p", [0])
    assert health(watch).reasons == ("p[0] is not open",)
    watch.opening(TASKS[0])
    watch.restoring(TASKS[0], 10, 50)
    assert health(watch).reasons == ("p[0] restores its tables: 10 of 50 offsets",)
    watch.opened(TASKS[0])
    watch.stepped(TASKS[0], lambda: Look({}, {}))
    assert health(watch).ready
    clock.now += 15.5
    assert health(watch).reasons == ("p took part in its group 15.5 s ago, the bound is 15 s",)
    watch.polled("p", [0])
    watch.ended(TASKS[0], Outcome.ABORTED)
    watch.closed(TASKS[0])
    assert health(watch).reasons == ("p[0] is not open",)


# ---- a worker -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["commit", "time", "begins anew"])
def test_a_task_is_well_again_once_it_shows_so(ends: str) -> None:
    now = 100.0
    watch, task = Watch(["counter"], CollectorRegistry(), lambda: now), TaskId("counter", 0)
    watch.polled("counter", [0])
    watch.opening(task)
    watch.opened(task)
    if ends == "begins anew":  # nobody opens it, as it never was closed
        watch.restoring(task, 1, 1)
    else:
        watch.stalled(task, Stall(StallKind.FAILED_TRANSACTIONS, "It failed.", "", 0.0))
        watch.opened(task)
    assert not health(watch, math.inf).ready
    if ends == "commit":
        watch.committed(task, Commit(1, 1, 0, 0, {}, 0, 0.1))
    elif ends == "time":
        watch.stepped(task, lambda: Look({}, {}))
        assert not health(watch, math.inf).ready
        now += SETTLED_S + 1
    watch.stepped(task, lambda: Look({}, {}))
    assert health(watch, math.inf).reasons == ()


def test_a_worker_is_ready_once_its_tasks_run_and_no_more_when_it_stands_still(
    log: Log, tmp_path: Path
) -> None:
    make_topics(log)
    with shown(log, tmp_path, Counter, stale_s=1.0) as runs:
        before = runs.health()
        assert (before.status, before.kind) == (503, "application/json")
        assert before.json() == {
            "ready": False,
            "reasons": ["counter has not taken part in its group yet"],
            "tasks": [],
        }

        answers: list[Answer] = []

        def ready() -> bool:
            runs.worker.step(0.02)
            answers.append(runs.health())
            return answers[-1].status == 200

        until(ready)
        told = answers[-1].json()
        assert (told["ready"], told["reasons"]) == (True, [])
        assert [(one["processor"], one["task"], one["phase"]) for one in told["tasks"]] == [
            ("counter", 0, "running"),
            ("counter", 1, "running"),
        ]
        until(lambda: runs.health().status == 503)  # nobody steps
        (reason,) = runs.health().json()["reasons"]
        assert "the bound is 1 s" in reason
        until(ready)
        runs.leave()
        assert runs.health().json()["reasons"][:2] == ["counter[0] is not open", "counter[1] is not open"]


def test_a_restore_is_told_with_its_progress(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path / "first", Counter) as runs:
        Feed(embedded_log, ITEMS).put({0: [Item(f"n{number}", 0, 1) for number in range(50)]})
        runs.settle()
    with shown(embedded_log, tmp_path / "second", Counter) as runs:
        runs.settle()
        found = runs.scrape()
    where = TopicPartition(COUNTS.name, 0)
    everything = embedded_log.end_offsets([where])[where]  # nothing was in the store
    assert everything > 50
    assert found.get("qmtl_restore_target_offsets", processor="counter", task=0) == everything
    assert found.get("qmtl_restore_done_offsets", processor="counter", task=0) == everything
    assert found.get("qmtl_restore_running_seconds", processor="counter", task=0) == 0
    assert found.get("qmtl_task_phase", processor="counter", task=0, phase="running") == 1


def test_a_scrape_in_the_middle_of_a_restore_sees_how_far_it_is_from_its_beginning_on(
    embedded_log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topics(embedded_log)
    monkeypatch.setattr(pace, "FIRST", 50)  # one transaction
    with shown(embedded_log, tmp_path / "first", Counter) as runs:
        Feed(embedded_log, ITEMS).put({0: [Item(f"n{number}", 0, 1) for number in range(50)]})
        runs.settle()
    where = TopicPartition(COUNTS.name, 0)
    everything = embedded_log.end_offsets([where])[where]
    monkeypatch.setattr(recovery, "BATCH", 10)
    task: Mapping[str, str | int] = {"processor": "counter", "task": 0}
    seen: list[list[float | None]] = []
    reasons: list[str] = []

    def look(label: str, done: int, total: int) -> None:
        if label == "counter[0]":
            found = runs.scrape()
            seen.append(
                [
                    found.get("qmtl_restore_done_offsets", **task),
                    found.get("qmtl_restore_target_offsets", **task),
                    found.get("qmtl_task_phase", **task, phase="restoring"),
                ]
            )
            reasons.extend(runs.health().json()["reasons"])

    with shown(embedded_log, tmp_path / "second", Counter, on_restore=look) as runs:
        runs.settle()
    assert seen[0] == [0, everything, 1]
    assert [done for done, _, _ in seen[1:6]] == [10, 20, 30, 40, 50]
    assert seen[-1] == [everything, everything, 1]
    assert f"counter[0] restores its tables: 0 of {everything} offsets" in reasons
    assert f"counter[0] restores its tables: 30 of {everything} offsets" in reasons


class Mute(EmbeddedLog):
    """An embedded log that gives nothing for a while."""

    silent = False

    def reader(self) -> EmbeddedReader:
        return MuteReader(self)


class MuteReader(EmbeddedReader):
    def __init__(self, log: Mute) -> None:
        super().__init__(log)
        self._mute = log

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        return [] if self._mute.silent else super().poll(max_records, timeout_s)


def test_a_restore_that_stands_still_is_told_with_its_cause_as_long_as_that_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Mute(tmp_path / "log")
    make_topics(log)
    with shown(log, tmp_path / "first", Counter) as runs:
        Feed(log, ITEMS).put({0: [Item("n", 0, 1)]})
        runs.settle()
    monkeypatch.setattr(recovery, "LOOK_S", 0.05)
    task: Mapping[str, str | int] = {"processor": "counter", "task": 0}
    where = TopicPartition(COUNTS.name, 0)
    says = f"{COUNTS.name}[0] at 0 of {log.end_offsets([where])[where]}: the log gives nothing."
    log.silent = True

    def stands(cause: str) -> float | None:
        return runs.scrape().get("qmtl_restore_stalled_seconds", **task, cause=cause)

    with shown(log, tmp_path / "second", Counter, stale_s=1.0) as runs, ThreadPoolExecutor(1) as pool:
        try:
            opening = pool.submit(runs.settle)
            until(lambda: (stands("silent_log") or 0) > 1.5)
            told = runs.health().json()
            assert stands("open_transaction") == 0
            assert any(
                "counter[0] makes no progress with that for" in one and says in one for one in told["reasons"]
            )
            assert not any("the bound is" in one for one in told["reasons"]), (
                "it takes part in its group meanwhile"
            )
            assert told["tasks"][0]["stall"]["what"] == says
        finally:
            log.silent = False
        opening.result(20)
        assert stands("silent_log") == 0
        assert runs.health().json()["reasons"] == []
        assert "stall" not in runs.health().json()["tasks"][0]
    log.close()


# ---- the server ---------------------------------------------------------------------------------------------------


def test_other_paths_and_methods_are_refused(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        assert ask(f"{runs.url}/").status == 404
        assert "/healthz" in ask(f"{runs.url}/metricsx").body
        assert ask(f"{runs.url}/metrics", "POST").status == 405
        assert ask(f"{runs.url}/healthz", "DELETE").status == 405


def test_a_client_that_says_nothing_holds_up_nobody(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        host, _, port = runs.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5), socket.create_connection((host, int(port)), 5):
            assert runs.health().status == 503
            assert runs.scrape().get("qmtl_worker_tasks", processor="counter") == 0


def test_after_the_drain_the_port_is_free_and_no_thread_is_left(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    others = {
        *threading.enumerate()
    }  # of a test before, which may still wait for a broker that it has killed
    with shown(embedded_log, tmp_path, Counter) as runs:
        port = int(runs.url.rpartition(":")[2])
        runs.scrape()
        mine = {one.name for one in {*threading.enumerate()} - others}
        assert mine >= {"qmtl-metrics", "qmtl-lags", "qmtl-sizes"}
    left = {*threading.enumerate()} - others
    assert [one.name for one in left if one.name.startswith("qmtl-")] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port), 5)
    for _ in range(2):
        with Metrics(["counter"]).serving(embedded_log, tmp_path, LOOPBACK, port) as url:
            assert ask(f"{url}/healthz").status == 503


def test_a_place_where_nobody_can_listen_is_refused(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    with Metrics(["counter"]).serving(embedded_log, tmp_path, LOOPBACK, 0) as url:
        taken = int(url.rpartition(":")[2])
        for host, port in ((LOOPBACK, taken), ("192.0.2.1", 0), ("no such host", 0)):
            with (
                pytest.raises(UsageError, match=r"--metrics-port"),
                Metrics(["counter"]).serving(embedded_log, tmp_path, host, port),
            ):
                raise AssertionError("somebody listens there")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6_is_served_too(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    with Metrics(["counter"]).serving(embedded_log, tmp_path, "::1", 0) as url:
        assert url.startswith("http://[::1]:")
        assert ask(f"{url}/metrics").status == 200
