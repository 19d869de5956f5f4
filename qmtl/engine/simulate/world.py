"""A simulated world: processes in slots, machines with stores, one cluster, and a schedule that is played to its end.

One step of a worker runs at a time. At a failpoint the step may end with the death of its process, or stand still while
others go on: what they do then nests inside it, so every interleaving needs no thread and comes back with its schedule.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from qmtl.engine.failpoint import watched
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.simulate.cluster import Cluster
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Died, Process
from qmtl.engine.simulate.partition import Partition
from qmtl.engine.simulate.scenario import Said, Scenario, Start, Waiting
from qmtl.engine.simulate.schedule import (
    DAY_MS,
    Act,
    Clean,
    Crash,
    Die,
    Disk,
    Evict,
    Feed,
    Kill,
    Noise,
    Pause,
    Release,
    Retain,
    Run,
    Schedule,
    Stop,
    Tick,
    Trouble,
    Twin,
)
from qmtl.engine.simulate.trace import Trace
from qmtl.engine.table import unframe
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import Fenced, OffsetGone, SimulationFailed

QUIET_ROUNDS: Final = 6
QUIET_TICK_MS: Final = 6_000
"""So many rounds without anything to do, and so long between them, outlast every transaction and session."""

CRASH_STEPS: Final = 5
"""Steps in which a process has joined its group, and has reached whatever its input lets it reach."""

ROUNDS: Final = 3_000
"""Rounds over all slots after which a healed world has to be quiet."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep to itself what the engine warns of meanwhile: stores that are thrown away are what is meant to happen."""
    logger, silence = logging.getLogger("qmtl.engine"), logging.NullHandler()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(silence)
    try:
        yield
    finally:
        logger.removeHandler(silence)
        logger.propagate = before


class LawBroken(SimulationFailed):
    """What a run showed that must not be.

    Attributes:
        law: which one, as one word or two.
    """

    def __init__(self, law: str, what: str) -> None:
        super().__init__(f"{law}: {what}")
        self.law = law


@dataclass(slots=True)
class _Live:
    """A process with its worker, and the machine that it runs on."""

    process: Process
    worker: Worker
    disk: Path


@dataclass(slots=True)
class _Slot:
    name: str
    start: Start
    disk: Path
    disks: list[Path]
    current: _Live | None = None
    older: list[_Live] | None = None


@dataclass(slots=True)
class _Source:
    steps: Iterator[Said]
    waits: Waiting | None = None
    done: bool = False


@dataclass(slots=True)
class _Running:
    live: _Live
    trouble: Trouble | None
    passages: int = 0
    slept: bool = False


class World:
    """One run of a scenario.

    Args:
        place: an empty directory for the stores.
        expected: what a run without trouble has shown; None while that run is made.
    """

    def __init__(self, scenario: Scenario, place: Path, expected: Trace | None = None) -> None:
        self.scenario = scenario
        self.cluster = Cluster()
        self.coverage = self.cluster.coverage
        self.log: Log = SimulatedLog(self.cluster)
        self.trace = scenario.trace(expected)
        self._place = place
        self._machines = 0
        self._stack: list[_Running] = []
        self._busy: dict[Path, _Live] = {}
        self._positions: dict[tuple[str, TopicPartition], int] = {}
        scenario.prepare(self.log)
        self._slots = [self._slot(name, start) for name, start in scenario.slots.items()]
        self._sources = [_Source(people(self.log)) for people in scenario.people]

    def _slot(self, name: str, start: Start) -> _Slot:
        disk = self._machine()
        return _Slot(name, start, disk, [disk], older=[])

    def _machine(self) -> Path:
        self._machines += 1
        return self._place / f"machine-{self._machines}"

    # ---- playing ----------------------------------------------------------------------------------------------------

    def play(self, schedule: Schedule) -> None:
        """Run a schedule, heal what it has broken, and hold what came out against what was expected.

        Raises:
            LawBroken: at the first thing that is wrong.
        """
        with watched(self._passing), _quietly():
            try:
                for act in schedule:
                    self._act(act)
                    self.check()
                self._heal()
                self._settle()
                self._compare()
                self._restart()
            finally:
                self.close()

    def _act(self, act: Act) -> None:
        match act:
            case Feed(source):
                self._feed(self._sources[source])
            case Run(slot, chance, trouble, older):
                self._run(self._slots[slot], chance, trouble, older)
            case Crash(slot, point, passage):
                self._crash(self._slots[slot], Die(point, passage))
            case Kill(slot):
                self._kill(self._slots[slot])
            case Stop(slot):
                if self._stop(self._slots[slot]):
                    self.coverage.note("left in good order")
            case Twin(slot):
                self._twin(self._slots[slot])
            case Evict(slot):
                self._evict(self._slots[slot])
            case Disk(slot, lost, chance):
                self._exchange(self._slots[slot], lost, Random(chance))
            case Tick(ms):
                self.cluster.pass_ms(ms)
                if ms >= DAY_MS:
                    self.coverage.note("days passed")
            case Clean(chance):
                self._clean(Random(chance))
            case Retain(chance):
                self._retain(Random(chance))
            case Noise(chance, leaves_open):
                self._noise(Random(chance), leaves_open)
            case Release(chance):
                if self.cluster.held:
                    self.cluster.arrive(Random(chance).choice(self.cluster.held))

    def check(self) -> None:
        """Hold the world against every invariant.

        Raises:
            LawBroken: naming the first that does not hold.
        """
        for what in self.trace.follow(self.cluster):
            raise LawBroken("exactly once", what)
        for what in self.cluster.torn:
            raise LawBroken("one transaction", what)
        for group, positions in self.cluster.positions.items():
            for where, offset in positions.items():
                if (group, where.topic) not in self.scenario.alone:
                    continue
                if self._positions.get((group, where), 0) > offset:
                    raise LawBroken("positions only grow", f"{group} went back to {offset} in {where}")
                self._positions[group, where] = offset
        for invariant in self.scenario.invariants:
            for what in invariant(self):
                raise LawBroken(getattr(invariant, "__name__", "invariant"), what)

    # ---- processes --------------------------------------------------------------------------------------------------

    def _run(self, slot: _Slot, chance: int, trouble: Trouble | None, older: bool) -> None:
        live = slot.current
        if older:
            live = slot.older[-1] if slot.older else None
        elif live is None:
            live = slot.current = self._start(slot)
        if live is not None and live.process.runs and not self._is_stepping(live):
            self._step(slot, live, Random(chance), trouble)

    def _crash(self, slot: _Slot, where: Die) -> None:
        for _ in range(CRASH_STEPS):
            live = slot.current = slot.current or self._start(slot)
            if not live.process.runs or self._is_stepping(live):
                return
            self._step(slot, live, None, where)
            if not live.process.alive:
                return

    def _is_stepping(self, live: _Live) -> bool:
        return any(one.live is live for one in self._stack)

    def _start(self, slot: _Slot) -> _Live:
        if slot.disk in self._busy:
            slot.disk = self._machine()
            slot.disks.append(slot.disk)
        process = Process(slot.name)
        log = SimulatedLog(self.cluster, process)
        settings = TaskSettings(slot.disk, self.scenario.poll_records, clock=self.cluster.clock.seconds)
        worker = slot.start(log, settings)
        live = _Live(process, worker, slot.disk)
        self._busy[slot.disk] = live
        return live

    def _step(self, slot: _Slot, live: _Live, chance: Random | None, trouble: Trouble | None = None) -> bool:
        process = live.process
        process.chance = chance
        process.hitches = [] if trouble is None or isinstance(trouble, Die | Pause) else [trouble]
        running = _Running(live, trouble)
        self._stack.append(running)
        try:
            return live.worker.step()
        except Died:
            self._bury(slot, live)
        except Fenced:
            self.coverage.note("an owner was fenced" if live is slot.current else "a twin was fenced")
            self._bury(slot, live)
        except LawBroken:
            raise
        except OffsetGone as error:
            if not running.slept:
                raise LawBroken("no failure", f"{slot.name}: {error}") from error
            # While it stood still others went on with its tasks: what it can't read any more is theirs.
            self.coverage.note("a sleeper refused what it found")
            self._bury(slot, live)
        except Exception as error:
            raise LawBroken("no failure", f"{slot.name}: {type(error).__name__}: {error}") from error
        finally:
            self._stack.pop()
            process.hitches, process.chance = [], None
        return True

    def _passing(self, point: str) -> None:
        if not self._stack or self._stack[-1].live.process.paused:
            return  # it is one of the people who passes
        running = self._stack[-1]
        self.coverage.note(f"passed {point}")
        trouble, process = running.trouble, running.live.process
        if not isinstance(trouble, Die | Pause) or trouble.point != point:
            return
        running.passages += 1
        if running.passages != trouble.passage:
            return
        if isinstance(trouble, Die):
            self.coverage.note(f"died {point}")
            process.alive = False
        else:
            self.coverage.note(f"paused {point}")
            process.paused = running.slept = True
            for act in trouble.acts:
                self._act(act)
                self.check()
            process.paused = False
            running.trouble, running.passages = trouble.then, 0
        process.must_live()

    def _bury(self, slot: _Slot, live: _Live) -> None:
        """The end of a process: its stores have what was written, and nothing that it does reaches the log."""
        live.process.alive = False
        if slot.current is live:
            slot.current = slot.older.pop() if slot.older else None
        elif slot.older and live in slot.older:
            slot.older.remove(live)
        if live.process.paused:
            return  # it stands still inside a step, which ends when it wakes
        live.worker.close()
        self._busy.pop(live.disk, None)

    def _kill(self, slot: _Slot) -> None:
        if slot.current is not None:
            self.coverage.note("killed between steps")
            self._bury(slot, slot.current)

    def _stop(self, slot: _Slot) -> bool:
        live = slot.current
        if live is None or self._is_stepping(live):
            return False
        live.worker.close()
        self._bury(slot, live)
        return True

    def _twin(self, slot: _Slot) -> None:
        if slot.current is None or slot.older is None:
            return
        self.coverage.note("a twin was started")
        slot.older.append(slot.current)
        slot.current = self._start(slot)

    def _evict(self, slot: _Slot) -> None:
        if slot.current is not None:
            self.coverage.note("a place in the group was given away")
            self.cluster.give_away(slot.current.worker.name, slot.name)

    def _exchange(self, slot: _Slot, lost: bool, chance: Random) -> None:
        if slot.current is not None or slot.disk in self._busy:
            return
        if lost:
            self.coverage.note("stores were lost")
            shutil.rmtree(slot.disk, ignore_errors=True)
            return
        others = [disk for disk in slot.disks if disk != slot.disk and disk not in self._busy]
        if others:
            self.coverage.note("stores of an earlier machine came back")
            slot.disk = chance.choice(others)

    # ---- the world outside ------------------------------------------------------------------------------------------

    def _feed(self, source: _Source) -> bool:
        """The next piece of a source; says whether there was one."""
        if source.done or (source.waits is not None and not source.waits()):
            return False
        try:
            said = next(source.steps)
        except StopIteration:
            source.done = True
            return True
        source.waits = None
        if callable(said):
            source.waits = said
        elif said is not None and self.trace.expected is not None:
            for act in said:
                self._act(act)
                self.check()
        return True

    def _clean(self, chance: Random) -> None:
        if not self.scenario.cleans:
            return
        for partition in self.cluster.partitions():
            if self.cluster.topics[partition.where.topic].compacted:
                position = chance.randint(partition.begin, partition.end)
                self.cluster.compact(partition.where, min(position, self._read_by_all(partition)))

    def _retain(self, chance: Random) -> None:
        for name in sorted(self.scenario.readers):
            for partition in self.cluster.topics[name].partitions:
                self.cluster.retain(partition.where, chance.randint(0, self._read_by_all(partition)))

    def _read_by_all(self, partition: Partition) -> int:
        """How far the slowest reader has come; the end where nobody is known to read."""
        positions = (
            self.cluster.positions.get(group, {}).get(partition.where, 0)
            for group in self.scenario.readers.get(partition.where.topic, ())
        )
        return min(positions, default=partition.end)

    def _noise(self, chance: Random, leaves_open: bool) -> None:
        where = chance.choice(self.cluster.partitions()).where
        writer = SimulatedLog(self.cluster).writer(f"noise-{chance.randrange(2**32)}")
        writer.begin()
        for _ in range(chance.randint(1, 3)):
            writer.append(where.topic, where.partition, b"noise", b"must not be seen")
        if leaves_open:
            self.coverage.note("somebody left a transaction open")
            return
        self.coverage.note("somebody aborted")
        writer.abort()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Whatever was on its way arrives, and every slot has a process."""
        while self.cluster.held:
            self.cluster.arrive(self.cluster.held[0])
            self.check()

    def _settle(self) -> None:
        """Feed the rest, and step until nobody finds anything to do any more.

        Raises:
            LawBroken: it never comes to rest, or a slot keeps two processes.
        """
        quiet = 0
        for _ in range(ROUNDS):
            busy = False
            for source in self._sources:
                busy |= self._feed(source)
            for slot in self._slots:
                if slot.current is None:
                    slot.current = self._start(slot)
                for live in (*(slot.older or ()), slot.current):
                    if live.process.alive:
                        busy |= self._step(slot, live, None)
            self.check()
            quiet = 0 if busy else quiet + 1
            if not busy:
                self.cluster.pass_ms(QUIET_TICK_MS)
            if quiet == QUIET_ROUNDS:
                break
        else:
            raise LawBroken("comes to rest", f"still busy after {ROUNDS} rounds without a fault")
        if waiting := [number for number, source in enumerate(self._sources) if not source.done]:
            raise LawBroken("comes to rest", f"sources {waiting} wait for something that never comes")
        if crowded := [slot.name for slot in self._slots if slot.older]:
            raise LawBroken("one owner", f"{crowded} have more than one process")

    def _compare(self) -> None:
        expected = self.trace.expected
        if expected is None:
            return
        for what in self.trace.differences(expected):
            raise LawBroken("same as without faults", what)

    def _restart(self) -> None:
        """Everybody leaves, and comes back without stores: nothing new comes out, and the stores are as they were."""
        lived = self._leave()
        self.cluster.pass_ms(QUIET_TICK_MS * 2)
        before = {partition.where: len(partition.history) for partition in self.cluster.partitions()}
        for slot in self._slots:
            slot.disk = self._machine()
        self._settle()
        for partition in self.cluster.partitions():
            if len(partition.history) != before[partition.where]:
                raise LawBroken("a restart adds nothing", f"{partition.where} has grown")
        rebuilt = self._leave()
        for name in sorted({*lived, *rebuilt}):
            if lived.get(name, []) != rebuilt.get(name, []):
                raise LawBroken(
                    "rebuilt as it lived", f"{name}: {lived.get(name)} became {rebuilt.get(name)}"
                )

    def _leave(self) -> dict[str, list[tuple[str, bytes, bytes]]]:
        """Close every worker; returns the newest rows of each task's store that its last owner has written."""
        out: dict[str, list[tuple[str, bytes, bytes]]] = {}
        tables = [name for name, topic in sorted(self.cluster.topics.items()) if topic.compacted]
        for slot in self._slots:
            live = slot.current
            if live is None:
                continue
            for number, task in sorted(live.worker.tasks.items()):
                out[f"{live.worker.name}-{number}"] = [
                    (table, key, versions[-1].data)
                    for table in tables
                    for key, row in task.store.scan(table)
                    if (versions := unframe(row)) and versions[-1].data is not None
                ]
            self._stop(slot)
        return out

    def close(self) -> None:
        """Let go of every store."""
        for live in list(self._busy.values()):
            live.process.alive = False
            live.worker.close()
        self._busy.clear()
