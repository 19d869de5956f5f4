"""One trial: a namespace of its own, a feed, a crew of workers, a fault, rest, and the verdict as one row."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from qmtl.engine.log.kafka import KafkaLog
from qmtl.testing.broker import Broker
from qmtl.testing.cluster import Cluster
from qmtl.testing.proxy import KafkaProxy
from tests.campaign import plain
from tests.campaign.completed import POSITIONS, Missed, unfinished
from tests.campaign.crew import Crew, Slot
from tests.campaign.feed import Feed
from tests.campaign.pipeline import ALL_SPECS, PARTITIONS
from tests.campaign.verdict import ANYWHERE, Verdict, Watcher, end_of_commits, judge

TEND_S: Final = 0.02
FLOWING_S: Final = 40.0
COMPLETE_S: Final = 60.0
SABOTAGED_S: Final = 40.0
"""With a bug planted, who comes to no end has been found."""

SETTLE_S: Final = 0.3
HURRIED_S: Final = 30.0
"""The longest silence with work to do that a fault may cause unless it says another; below the time-out of a transaction."""


@dataclass(frozen=True, slots=True)
class Bed:
    """What trials run on; what is None is not there.

    Attributes:
        broker: one's own, that may be killed.
        transaction_version: the level of `transaction.version` that the broker was formatted with; None, its newest.
    """

    bootstrap: str
    broker: Broker | None = None
    proxy: KafkaProxy | None = None
    cluster: Cluster | None = None
    transaction_version: int | None = None


class Undone(Exception):
    """The trial could not do its harm, or its input failed: it says nothing about the engine."""


class Enough(Exception):
    """Some harm was done and nothing comes out that could be harmed once more: what there is has to be judged."""


@dataclass(slots=True)
class Scale:
    """How much goes through a trial."""

    items: int = 400
    buckets: int = 40
    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of harm.

    Attributes:
        needs: of the bed: `broker`, `proxy`, `cluster`, or nothing more than an address.
        workers: fewest and most.
        ends: the errors by which workers may end under it; any other is a finding.
        call_s, transaction_ms, session_ms, slow_ms: settings of the workers.
        silence_s: the longest silence with work to do that it may cause.
    """

    name: str
    harm: Callable[[Trial], None]
    needs: str = ""
    workers: tuple[int, int] = (1, 4)
    ends: frozenset[str] = frozenset()
    call_s: float = 10.0
    transaction_ms: int = 40_000
    session_ms: int = 2000
    slow_ms: int = 0
    silence_s: float = HURRIED_S


@dataclass(slots=True)
class Row:
    """The result of a trial; `wrong` empty and `harm` not is what is wanted.

    Attributes:
        broker: what the broker itself did wrong (`completed.unfinished`), where anything was; what was found in those partitions
            says nothing about the engine: it is told in the notes, and `wrong` has only the rest.
        again: the command that runs this trial again.
    """

    fault: str
    seed: int
    protocol: str
    sabotage: str
    workers: int = 0
    harm: list[str] = field(default_factory=list)
    kills: int = 0
    endings: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    undone: str = ""
    broker: str = ""
    silence_s: float = 0.0
    seconds: float = 0.0
    again: str = ""


PROTOCOLS: Final = ("classic", "consumer")


def protocol_of(fault: str, seed: int, asked: str = "") -> str:
    """The group protocol of a trial: as asked for, or as QMTL_GROUP_PROTOCOL says, or drawn from fault and seed, half of them each."""
    drawn = random.Random(f"protocol-{fault}-{seed}").choice(PROTOCOLS)
    return asked or os.environ.get("QMTL_GROUP_PROTOCOL") or drawn


class Trial:
    """A trial while it runs; a fault's harm gets it."""

    def __init__(
        self,
        bed: Bed,
        fault: Fault,
        seed: int,
        directory: Path,
        sabotage: str,
        scale: Scale,
        protocol: str = "",
    ) -> None:
        self.bed, self.fault, self.scale = bed, fault, scale
        self.rng = random.Random(f"{fault.name}-{seed}")
        self.protocol = protocol_of(fault.name, seed, protocol)
        self.row = Row(fault.name, seed, self.protocol, sabotage, again=self._command(seed, sabotage))
        self.stalled: set[int] = set()
        self.namespace = f"c-{fault.name}-{seed}-{uuid.uuid4().hex[:6]}."
        self.directory = directory / self.namespace
        self.directory.mkdir(parents=True)
        self.bootstrap = bed.cluster.bootstrap if fault.needs == "cluster" and bed.cluster else bed.bootstrap
        self.door = bed.proxy.bootstrap if fault.needs == "proxy" and bed.proxy else self.bootstrap
        self.workers = self.rng.randint(*fault.workers)
        settings = ["--protocol", self.protocol]
        settings += ["--call-s", str(fault.call_s), "--session-ms", str(fault.session_ms)]
        settings += ["--slow-ms", str(fault.slow_ms), "--transaction-ms", str(fault.transaction_ms)]
        settings += ["--poll-records", str(self.rng.choice((5, 20, 100)))]
        settings += ["--sabotage", sabotage] if sabotage else []
        self.crew = Crew(self.directory, self.door, self.namespace, settings)
        self.extra: list[str] = []

    def _command(self, seed: int, sabotage: str) -> str:
        scale, version = self.scale, self.bed.transaction_version
        words = [
            "python -m tests.campaign",
            f"--fault {self.fault.name} --seed {seed} --protocol {self.protocol}",
        ]
        words += [f"--items {scale.items} --buckets {scale.buckets} --seconds {scale.seconds:g}"]
        words += [f"--sabotage {sabotage}"] if sabotage else []
        words += [] if version is None else [f"--transaction-version {version}"]
        return " ".join(words)

    # ---- what a fault does with it -----------------------------------------------------------------------------

    def did(self, what: str) -> None:
        self.row.harm.append(what)

    def wrong(self, kind: str, note: str) -> None:
        self.row.wrong[kind] = self.row.wrong.get(kind, 0) + 1
        self.row.notes.append(note)

    def start_all(self, failpoint: Callable[[int], str] = lambda number: "") -> list[Slot]:
        return [self.crew.start(str(number), failpoint=failpoint(number)) for number in range(self.workers)]

    def tend(self, seconds: float) -> None:
        """Let time pass with the supervisor at work."""
        end = time.monotonic() + seconds
        self.tend_until(lambda: time.monotonic() >= end, seconds + 1.0)

    def tend_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let the supervisor work until a condition holds; says whether it did in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.crew.tend()
            time.sleep(TEND_S)
        return True

    def until_flowing(self, more: int = 1) -> None:
        """Wait until outputs are seen, so that the fault meets work."""
        goal = self.watcher.count("c.echo") + more
        if not self.tend_until(lambda: self.watcher.count("c.echo") >= goal or self.complete(), FLOWING_S):
            raise Enough if self.row.harm else Undone("nothing came out before the fault")
        self.watcher.pending.set()

    def some_slot(self) -> Slot:
        return self.rng.choice(sorted(self.crew.slots.values(), key=lambda slot: slot.name))

    # ---- its course --------------------------------------------------------------------------------------------

    def run(self) -> Row:
        begun = time.monotonic()
        log = KafkaLog(self.bootstrap, self.namespace)
        log.ensure_topics(ALL_SPECS)
        log.close()
        self.since = end_of_commits(self.bootstrap)
        scale = self.scale
        feed_rng = random.Random(f"feed-{self.row.fault}-{self.row.seed}")
        self.feed = Feed(
            self.bootstrap, self.namespace, feed_rng, scale.items, scale.buckets, scale.seconds, PARTITIONS
        )
        self.watcher = Watcher(self.bootstrap, self.namespace, PARTITIONS)
        self.watcher.start()
        self.feed.start()
        self.row.workers = self.workers
        try:
            with suppress(Enough):
                self.fault.harm(self)
            self._rest()
        except Undone as undone:
            self.row.undone = str(undone)
        finally:
            self.crew.stop()
            self.watcher.stop()
        self._judge()
        self.row.kills = self.crew.kills
        self.row.seconds = round(time.monotonic() - begun, 1)
        self._clear()
        return self.row

    def _rest(self) -> None:
        """Everything is healed: the workers have so long to come to the end of the input."""
        self.watcher.pending.set()
        if not self.tend_until(lambda: not self.feed.is_alive(), 90.0) or self.feed.failure:
            raise Undone(f"the feed failed: {self.feed.failure or 'it did not end'}")
        limit_s = SABOTAGED_S if self.row.sabotage else COMPLETE_S
        if not self.tend_until(self.complete, limit_s):
            self.stalled = self.short()
            self.wrong("stalled", f"not complete after {limit_s:g} s: {self._where_it_stands()}")
            self.row.notes += self.crew.stacks()
        self.watcher.pending.clear()
        self.tend(SETTLE_S)

    def complete(self) -> bool:
        """Whether every output was seen."""
        return not self.feed.is_alive() and not self.short()

    def short(self) -> set[int]:
        """The partitions in which outputs are missing; once the feed has ended."""
        lines, last = self.watcher.lines, self.feed.loop.last
        wanted: Counter[tuple[str, int]] = Counter()
        for topic, answers in (("c.echo", self.feed.sums.answers), ("c.late", self.feed.loop.answers)):
            for name, rows in answers.items():
                wanted[topic, plain.partition_of(name, PARTITIONS)] += len(rows)
        out = {
            lane
            for (topic, lane), count in wanted.items()
            if len({one.key for one in list(lines[topic, lane])}) < count
        }
        for number in range(PARTITIONS):
            marker = plain.marker_key("after", number, last)
            if not any(one.key == marker for one in reversed(lines["c.after", number])):
                out.add(number)
        return out

    def _wanted(self) -> dict[str, int]:
        """How many answers there must be."""
        return {
            "c.echo": sum(map(len, self.feed.sums.answers.values())),
            "c.late": sum(map(len, self.feed.loop.answers.values())),
        }

    def _where_it_stands(self) -> str:
        counts = {name: self.watcher.count(name) for name in self._wanted()}
        alive = [slot.name for slot in self.crew.alive()]
        return f"{counts} of {self._wanted()}, alive {alive}"

    def _judge(self) -> None:
        row = self.row
        endings = Counter(one for slot in self.crew.slots.values() for one in slot.endings)
        row.endings = dict(sorted(endings.items()))
        usual = {"exit 0", "SIGKILL", "SIGTERM", *self.fault.ends}
        for kind in sorted(endings.keys() - usual):
            row.wrong["unexplained"] = row.wrong.get("unexplained", 0) + endings[kind]
        said = [one for slot in self.crew.slots.values() for one in slot.said]
        row.notes += [one for one in said if one.split(": ")[1] not in usual][:6]
        row.silence_s = round(self.watcher.longest_gap_s, 1)
        if row.undone:
            return
        if row.silence_s > self.fault.silence_s:
            self.wrong(
                "slow", f"{row.silence_s} s without an output, at most {self.fault.silence_s:g} are allowed"
            )
        found: Verdict = judge(
            self.bootstrap, self.namespace, self.feed, self.watcher.lines, PARTITIONS, self.since
        )
        row.wrong.update(found.wrong())
        row.notes += found.notes
        self._hold_the_broker_to_its_word(found, said)

    def _hold_the_broker_to_its_word(self, found: Verdict, said: Sequence[str]) -> None:
        row, broker = self.row, self.bed.broker
        if row.wrong and self.fault.needs == "broker" and broker is not None:
            broken = unfinished(broker.data_dir, self.namespace)
            if broken:
                row.broker = f"{len(broken)} markers missing, as {broken[0].what}"
                aside = set_aside(broken, found, said, self.stalled)
                row.notes.append(f"set aside: {dict(aside)}")
                row.wrong = dict(Counter(row.wrong) - aside)

    def _clear(self) -> None:
        if self.row.wrong:
            return  # what was found lies in its topics and in its directory
        shutil.rmtree(self.directory, ignore_errors=True)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(self.namespace)]
        for done in admin.delete_topics(names).values() if names else ():
            done.result()


BEHIND: Final = ("lost", "tables", "markers", "positions")
"""What is found of a partition that nobody works on: the rest of its answers is missing, its tables and positions stand still."""


def set_aside(
    broken: Sequence[Missed], found: Verdict, said: Sequence[str], stalled: Collection[int]
) -> Counter[str]:
    """What of a trial's findings lies in partitions whose markers the broker owes, by kind; all others count.

    Where positions are missing, a worker is right to refuse the task, and ends: whatever else it has stands still with it. So where
    each worker that failed has failed for that, what is missing of a partition that was not complete says nothing either; what is
    there twice, or is torn, does.

    Args:
        said: with what words workers have ended; those that name such partitions only, as `sums[1]`, lie in them.
        stalled: the partitions that were not complete at the end.
    """
    lanes = {lane for one in broken for lane in one.lanes}
    out: Counter[str] = Counter()
    for lane in lanes:
        out += found.by_lane.get(lane, Counter())
    if any(one.topic == POSITIONS for one in broken):
        out["positions"] += found.by_lane.get(ANYWHERE, Counter())["positions"]
    named = [{int(number) for number in re.findall(r"\[(\d+)\]", one)} for one in said]
    refused = bool(named) and all(lanes_of and lanes_of <= lanes for lanes_of in named)
    if stalled and (refused or lanes.issuperset(stalled)):
        out.update(("stalled", "slow"))
    for lane in (set(stalled) - lanes) if refused else ():
        found_there = found.by_lane.get(lane, Counter[str]())
        out += Counter({kind: found_there[kind] for kind in BEHIND})
    out["unexplained"] += sum(bool(lanes_of) and lanes_of <= lanes for lanes_of in named)
    return +out


def parts(rows: Sequence[Row]) -> dict[str, Any]:
    """Of many rows: trials, kills, undone ones, and everything that was wrong, by fault."""
    out: dict[str, Any] = {}
    for row in rows:
        one = out.setdefault(
            row.fault, {"trials": 0, "kills": 0, "undone": 0, "broker": 0, "wrong": 0, "silence_s": 0.0}
        )
        protocols = one.setdefault("protocols", dict.fromkeys(PROTOCOLS, 0))
        protocols[row.protocol] = protocols.get(row.protocol, 0) + 1
        one["trials"] += 1
        one["kills"] += row.kills
        one["undone"] += bool(row.undone)
        one["broker"] += bool(row.broker)
        one["wrong"] += bool(row.wrong)
        one["silence_s"] = max(one["silence_s"], row.silence_s)
    return out
