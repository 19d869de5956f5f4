"""The life of a graph on a real broker, whose workers are killed in the midst of every step: published, shared, taken back, collected,
published again.

`python -m tests.flow.graph_life [--nodes N] [--kills N] [--result FILE]`: one JSON line per step; the exit code is 1 if anything is not as it
has to be, and the result says what.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.dag.admission import PIPELINE, pipeline
from bench.dag.run import surroundings as machine_and_versions
from qmtl.bootstrap import open_log, open_store
from qmtl.engine.archive import reading
from qmtl.engine.archive.address import parse
from qmtl.engine.view import TableView, all_partitions
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.testing.broker import any_broker
from tests.campaign import report
from tests.campaign.trial import Scale
from tests.contract.driving import until
from tests.flow.driving import Place, begin, end, on_kafka, qmtl
from tests.replay.logs import commit, ticks

RUNNING: Final = ("dagmanager", "topicadmin", "worldservice", "nodes")
DYING: Final = ("topicadmin", "dagmanager")
"""Those that do the work of a step; they die in turn."""

KILLS: Final = 2
"""In each step, where nothing else is asked for."""

WAIT_S: Final = 600.0
LOOK_S: Final = 0.04
WORDS: Final = 1_500
"""Characters at most of what a worker has said that are shown where something is wrong."""

PASSED_MINUTES: Final = 24 * 60 * 215
"""After so long everything that nobody holds may go, also what a version could have gone back to."""

FIRST_GONE: Final = 20
"""Topics of the first batch of removals after which somebody dies."""

JSON: Final = ("--format", "json")
STRANGER: Final = "stranger_v1"
VALUES: Final = 3


def wait(condition: Callable[[], bool]) -> None:
    """Ask a condition again and again, not so often that the asking takes the processors from those who are asked about."""
    until(lambda: condition() or bool(select.select([], [], [], LOOK_S)[0]), WAIT_S)


class Life:
    """One namespace of a broker, the workers on it, and what is asked of them.

    Attributes:
        kills: how many a step has at least.
        killed: which workers, so far.
        late: how many of these kills came when the step's command had its answer already.
    """

    def __init__(self, place: Place, bootstrap: str, nodes: int, kills: int) -> None:
        self.place = place
        self.nodes = nodes
        self.kills = kills
        self.killed: Counter[str] = Counter()
        self.late = 0
        self.archive = place.state / "archive"
        self.archive.mkdir(parents=True)
        self._namespace = place.log.rpartition("/")[2]
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._own = {spec.name for spec in CATALOGUE}
        self._log = open_log(place.log)
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._minute = 0

    # ---- workers -----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        line = ["worker", "run", name, "--log", self.place.log, "--state-dir", str(self.place.state / name)]
        self._running[name] = begin(line, env={"QMTL_ARCHIVE": self.archive.as_uri()})

    def kill(
        self, name: str, *, when: Callable[[], bool], during: subprocess.Popen[str] | None = None
    ) -> None:
        """SIGKILL to a worker in the midst of something, and another one in its place.

        Args:
            during: the command that waits for what is done; if it was faster, the worker dies after it.
        """
        wait(lambda: when() or _is_over(during))
        self.late += _is_over(during)
        process = self._running[name]
        assert process.poll() is None, f"{name} ended by itself: {process.communicate()[1][-2000:]}"
        process.kill()
        process.communicate()
        self.killed[name] += 1
        self.start(name)

    def kill_while_topics_come(
        self, before: int, after: int, during: subprocess.Popen[str], kills: int | None = None
    ) -> None:
        """Kill the workers in turn, at even distances between two counts of topics."""
        for name, count in self.points(before, after, kills):
            self.kill(name, when=partial(self._has_topics, count), during=during)

    def points(self, before: int, after: int, kills: int | None = None) -> list[tuple[str, int]]:
        """Who is killed, and at which counts between these two."""
        many = self.kills if kills is None else kills
        counts = [before + max(1, (after - before) * one // (many + 1)) for one in range(1, many + 1)]
        return list(zip(cycle(DYING), counts, strict=False))

    def _has_topics(self, count: int) -> bool:
        return len(self.topics()) >= count

    def stop(self) -> dict[str, str]:
        """End all workers; what each of them said last."""
        said = {}
        while self._running:
            name, process = self._running.popitem()
            process.kill()
            said[name] = process.communicate()[1][-WORDS:]
        return said

    def close(self) -> None:
        self.stop()
        self._log.close()

    # ---- what people do ----------------------------------------------------------------------------------------------

    def publish(self, strategy_id: str, version: str, pipelines: range) -> subprocess.Popen[str]:
        """Begin to publish a strategy of these pipelines; the command ends when its nodes run."""
        file = self.place.state / f"{strategy_id}-{version}.json"
        told = {
            "schema_version": "v1",
            "strategy_id": strategy_id,
            "meta": {"version": version},
            "nodes": [node for number in pipelines for node in pipeline(number)],
            "signals": [f"t_{number}" for number in pipelines],
        }
        file.write_text(json.dumps(told), encoding="utf-8")
        return self.begin("dag", "publish", str(file), "--world", "w1", "--domain", "live", "--json")

    def begin(self, *line: str) -> subprocess.Popen[str]:
        return begin([*line, "--log", self.place.log, "--wait", str(WAIT_S)])

    def done(self, command: subprocess.Popen[str]) -> dict[str, Any]:
        said = end(command, WAIT_S)
        assert said.code == 0, said
        found: dict[str, Any] = json.loads(said.out)
        return found

    def tick(self, minutes: int) -> None:
        """Let so much time pass on the clock of the log."""
        self._minute += minutes
        commit(self._log, ticks(self._minute, self._minute), "clock")

    def write(self, topics: list[str]) -> None:
        """Put values into topics, as the workers do."""
        rows = [
            (name, 0, encode_key((name, number)), codec.encode(NodeValue(name, "S", number, 1.5)))
            for name in topics
            for number in range(VALUES)
        ]
        commit(self._log, rows)

    # ---- what is there -------------------------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """The topics of nodes, as the broker tells."""
        prefix = f"{self._namespace}."
        every = self._admin.list_topics(timeout=30).topics
        return {name.removeprefix(prefix) for name in every if name.startswith(prefix)} - self._own

    def rows(self, table: str) -> list[Any]:
        return TableView(self._log, table, codec).refresh().rows()

    def written(self, topic: str) -> int:
        """How far a topic of one partition is written."""
        return sum(self._log.stable_offsets(all_partitions(self._log, topic)).values())

    def strangers(self) -> None:
        """Make a topic beside the others that nobody's catalogue has."""
        name = f"{self._namespace}.{STRANGER}"
        self._admin.create_topics([NewTopic(name, 1, 1)])[name].result()
        self._own.add(STRANGER)

    def has_strangers(self) -> bool:
        return f"{self._namespace}.{STRANGER}" in self._admin.list_topics(timeout=30).topics

    def is_whole(self) -> dict[str, str]:
        """The topic of each node. Every topic on the broker is in the catalogue and the other way round; each is one node's."""
        queues = self.rows("dag.queues")
        found = {one.node_id: one.topic for one in queues}
        assert len(found) == len(queues), "a node has two topics"
        assert all(one.ready and not one.removing for one in queues)
        assert self.topics() == set(found.values())
        return found

    def archived(self) -> Mapping[str, list[int]]:
        """Of each topic how many records its archives have, each read back."""
        store = open_store(parse(self.archive.as_uri()))
        out: dict[str, list[int]] = {}
        for name in reading.manifests(store):
            manifest = reading.load(store, name)
            assert reading.verify(store, manifest) == manifest.records
            out.setdefault(manifest.topic, []).append(manifest.records)
        return out

    def archives(self) -> int:
        return sum(1 for _ in self.archive.rglob("manifest-*.json"))


def _is_over(command: subprocess.Popen[str] | None) -> bool:
    return command is not None and command.poll() is not None


# ---- the steps ---------------------------------------------------------------------------------------------------------


def publish(life: Life) -> None:
    """A strategy is published; both workers that make its topics die while they do."""
    command = life.publish("a", "v1", range(life.nodes // PIPELINE))
    life.kill_while_topics_come(0, life.nodes, command)
    told = life.done(command)
    topics = life.is_whole()
    assert len(topics) == life.nodes
    assert {row["node_id"]: row["topic"] for row in told["nodes"]} == topics


def share(life: Life) -> None:
    """A second strategy has nine tenths of the first: it gets a tenth of the topics."""
    before, tenth = life.is_whole(), life.nodes // PIPELINE // 10
    command = life.publish("b", "v1", range(tenth, life.nodes // PIPELINE + tenth))
    life.kill_while_topics_come(life.nodes, life.nodes + tenth * PIPELINE, command)
    told = life.done(command)
    after = life.is_whole()
    assert sum(row["origin"] == "new" for row in told["nodes"]) == tenth * PIPELINE
    assert len(after) == life.nodes + tenth * PIPELINE
    assert before.items() <= after.items()


def roll_back(life: Life) -> None:
    """The first strategy gets a new version, and goes back to the one before: nothing is made for it. The last death meets the going back."""
    first, before = _deployed(life, "a"), len(life.is_whole())
    new = life.nodes  # a number that no other pipeline has
    command = life.publish("a", "v2", range(new, new + 1))
    life.kill_while_topics_come(before, before + PIPELINE, command, life.kills - 1)
    life.done(command)
    second, topics = _deployed(life, "a"), life.is_whole()
    assert second.sentinel_id != first.sentinel_id
    sent = life.written("dag.commands")
    command = life.begin(
        "service", "dagmanager", "redo-diff", "--sentinel", first.sentinel_id, "--rollback", *JSON
    )
    life.kill("dagmanager", when=lambda: life.written("dag.commands") > sent, during=command)
    life.done(command)
    third = _deployed(life, "a")
    assert (third.sentinel_id, third.signals) == (first.sentinel_id, first.signals)
    assert [(one.node_id, one.topic) for one in third.nodes] == [
        (one.node_id, one.topic) for one in first.nodes
    ]
    assert life.is_whole() == topics


def collect(life: Life) -> None:
    """Both are retired: every topic is archived at once, and goes when time has passed, but the one that is nobody's."""
    topics, version = life.is_whole(), _deployed(life, "b").sentinel_id
    filled = sorted(name for name in topics.values() if "_sma_" in name)[:5]
    life.write(filled)
    life.strangers()
    life.done(life.begin(*_retiring("a")))
    sent = life.written("dag.commands")
    command = life.begin(*_retiring("b"))
    life.kill("dagmanager", when=lambda: life.written("dag.commands") > sent, during=command)
    life.done(command)
    wait(lambda: not any(one.sentinels or one.found for one in life.rows("dag.readers")))
    deaths = life.points(0, len(topics))
    wait(partial(_are_archived, life, deaths))
    assert not deaths
    assert life.topics() == set(topics.values())
    life.tick(PASSED_MINUTES)
    wait(partial(_are_left, life, len(topics) - 1))  # a command may come before a tick that was written first
    command = life.begin("service", "dagmanager", "gc", "--sentinel", version, *JSON)
    life.kill(DYING[0], when=partial(_are_left, life, len(topics) - FIRST_GONE))
    assert "queues are being removed" in life.done(command)["detail"]
    while left := len(life.topics()):
        life.tick(1)
        wait(partial(_are_left, life, left - 1))
    wait(lambda: not life.rows("dag.queues"))
    archived = life.archived()
    assert set(archived) == set(topics.values())
    assert {name for name, records in archived.items() if records != [0]} == set(filled)
    assert all(archived[name] == [VALUES] for name in filled)
    assert life.has_strangers()


def _are_left(life: Life, count: int) -> bool:
    """Whether no more topics than so many are left."""
    return len(life.topics()) <= count


def _are_archived(life: Life, deaths: list[tuple[str, int]]) -> bool:
    """Whether every queue is; meanwhile a minute passes whenever nothing is asked for, and a worker dies as soon as so many are archived as
    the next of the deaths says."""
    while deaths and life.archives() >= deaths[0][1]:
        life.kill(deaths.pop(0)[0], when=lambda: True)
    queues = life.rows("dag.queues")
    if not any(one.archiving for one in queues):
        life.tick(1)
    return all(one.archive is not None for one in queues)


def _retiring(strategy_id: str) -> list[str]:
    return ["service", "dagmanager", "retire", "--world", "w1", "--strategy", strategy_id, *JSON]


def come_back(life: Life) -> None:
    """The first strategy is published again: the same nodes, in the next life of their topics."""
    nodes = {one.node_id for one in life.rows("dag.nodes")}
    command = life.publish("a", "v1", range(life.nodes // PIPELINE))
    life.kill_while_topics_come(0, life.nodes, command)
    life.done(command)
    topics = life.is_whole()
    assert set(topics) <= nodes
    assert len(topics) == life.nodes
    assert all(name.endswith("_v2") for name in topics.values())


def _deployed(life: Life, strategy_id: str) -> Any:
    (row,) = (one for one in life.rows("dag.strategies") if one.strategy_id == strategy_id)
    return row


STEPS: Final = (publish, share, roll_back, collect, come_back)


def run(bootstrap: str, directory: Path, nodes: int, kills: int = KILLS) -> Iterator[dict[str, Any]]:
    """All steps, one after the other; of each how many seconds it took, who died how often (`late`: after its command had its answer), and
    how many topics and archives there are in the end.

    Raises:
        AssertionError: something is not as it has to be.
    """
    with on_kafka(bootstrap, directory / "state", {}) as place:
        life = Life(place, bootstrap, nodes, kills)
        try:
            for name in RUNNING:
                life.start(name)
            created = qmtl("world", "create", "w1", "--log", place.log, timeout_s=WAIT_S)
            assert created.code == 0, created
            for step in STEPS:
                began, killed, late = time.monotonic(), life.killed.copy(), life.late
                step(life)
                yield {
                    "step": step.__name__,
                    "seconds": round(time.monotonic() - began, 1),
                    "kills": dict(life.killed - killed),
                    "late": life.late - late,
                    "topics": len(life.topics()),
                    "archives": life.archives(),
                }
        except Exception as wrong:
            wrong.add_note(f"killed so far: {dict(life.killed)}")
            for name, words in life.stop().items():
                wrong.add_note(f"{name}: {words}")
            raise
        finally:
            life.close()


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.flow.graph_life", description=__doc__)
    asked.add_argument("--nodes", type=int, default=1_000, help="of the first strategy, a multiple of 50")
    asked.add_argument("--kills", type=int, default=KILLS, help="in each step")
    asked.add_argument("--result", type=Path, default=None, help="where the figures are kept as JSON")
    options = asked.parse_args()
    if options.nodes < 50 or options.nodes % 50 or options.kills < 1:
        asked.error("--nodes is a multiple of 50, and --kills at least 1")
    steps, wrong = [], ""
    about = surroundings()
    with any_broker() as bootstrap, tempfile.TemporaryDirectory() as directory:
        try:
            for one in run(bootstrap, Path(directory), options.nodes, options.kills):
                steps.append(one)
                print(json.dumps(one), flush=True)
        except Exception:  # whatever ends a life is what was looked for
            wrong = traceback.format_exc()
            print(wrong, file=sys.stderr)
    figures = {
        **about,
        "nodes": options.nodes,
        "seconds": round(sum(one["seconds"] for one in steps), 1),
        "kills": sum(sum(one["kills"].values()) for one in steps),
        "late": sum(one["late"] for one in steps),
        "steps": steps,
        "wrong": wrong,
    }
    report.keep(options.result, figures)
    return 1 if wrong else 0


def surroundings() -> dict[str, Any]:
    """When, of which code, on what and with which versions."""
    about, here = report.surroundings(Scale(), None), machine_and_versions()
    versions = {**about["versions"], **{name: here["versions"][name] for name in ("rocksdict", "msgspec")}}
    kept = {name: about[name] for name in ("date", "commit", "changed_files")}
    return {**kept, "machine": here["machine"], "versions": versions}


if __name__ == "__main__":
    sys.exit(main())
