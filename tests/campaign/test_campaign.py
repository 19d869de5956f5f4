"""A slice of the campaign: a trial of each family of faults finds nothing, and what is planted is found."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.engine.failpoint import POINTS
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import TopicPartition
from tests.campaign import trial as trial_module
from tests.campaign.__main__ import FOUND_BY, bed_for, campaign, hunt
from tests.campaign.completed import COMPLETED, POSITIONS, Missed, states, unfinished
from tests.campaign.crew import Crew, Slot
from tests.campaign.faults import FAULTS
from tests.campaign.report import Hunt, of_hunts, of_rows, surroundings
from tests.campaign.sabotage import SABOTAGES
from tests.campaign.trial import PROTOCOLS, Bed, Fault, Row, Scale, Trial, protocol_of, set_aside
from tests.campaign.verdict import ANYWHERE, Verdict
from tests.contract.driving import events, put, until

SLICE = (
    "point-commit_sent",
    "twins",
    "zombie",
    "held-txn_offset_commit",
)
"""A broker is not killed here: Kafka may lose positions by it (`completed`), of which the campaign says so and this can't."""

INCREMENTAL = ("kill-all",)
"""The faults that are tried in a group of the consumer protocol too."""
SMALL = Scale(items=150, buckets=15, seconds=1.5)
SEED = 20_261_121
AT_A_TIME = 3

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A broker of one's own: it is killed, and it has a proxy."""
    if os.environ.get("QMTL_TEST_BROKER") == "none":
        pytest.fail("asked for a broker in spite of QMTL_TEST_BROKER=none")
    with bed_for(SLICE, tmp_path_factory.mktemp("bed")) as one:
        yield one


def told(rows: list[Row]) -> list[str]:
    """What is wrong with which trial, and how to run it again."""
    return [f"{row.again}: {row.wrong or row.undone} {row.notes}" for row in rows if row.wrong or row.undone]


@pytest.mark.timeout(600)
def test_no_fault_of_the_slice_loses_doubles_or_tears_anything(bed: Bed, tmp_path: Path) -> None:
    asked = [(name, SEED, "classic") for name in SLICE] + [(name, SEED, "consumer") for name in INCREMENTAL]
    rows = campaign(bed, asked, tmp_path, "", SMALL, AT_A_TIME)
    assert told(rows) == []
    assert all(row.harm for row in rows)
    assert Counter(row.protocol for row in rows) == {"classic": len(SLICE), "consumer": len(INCREMENTAL)}


def test_the_protocol_of_a_trial_is_drawn_from_its_seed_unless_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("QMTL_GROUP_PROTOCOL", raising=False)
    drawn = Counter(protocol_of(name, seed) for name in FAULTS for seed in range(200))
    assert drawn.keys() == set(PROTOCOLS)
    assert min(drawn.values()) > 0.45 * drawn.total()
    assert protocol_of("zombie", 5) == protocol_of("zombie", 5)
    for one in PROTOCOLS:
        assert protocol_of("zombie", 5, one) == one
    monkeypatch.setenv("QMTL_GROUP_PROTOCOL", "consumer")
    assert {protocol_of("zombie", seed) for seed in range(20)} == {"consumer"}


@pytest.mark.parametrize("harmed", [True, False])
def test_a_trial_that_stands_still_is_judged_once_it_was_harmed_and_undone_before(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmed: bool
) -> None:
    monkeypatch.setattr(trial_module, "FLOWING_S", 2.0)
    monkeypatch.setattr(trial_module, "COMPLETE_S", 2.0)

    def harm(trial: Trial) -> None:
        for slot in trial.start_all():
            trial.crew.kill(slot, keep=False)  # and nobody starts it again
        if harmed:
            trial.did("killed all for good")
        trial.until_flowing()

    row = Trial(bed, Fault("standstill", harm), SEED, tmp_path, "", SMALL).run()
    assert bool(row.undone) is not harmed
    assert row.wrong.get("stalled", 0) == harmed


def test_a_worker_that_is_asked_where_it_stands_before_it_can_tell_lives_on(tmp_path: Path) -> None:
    crew = Crew(tmp_path, "", "", ())
    slot = crew.slots["0"] = Slot("0", "0", tmp_path / "state-0", "")
    (tmp_path / "0.err").touch()
    for begins, told in (("", "0 is starting"), ("faulthandler.register(signal.SIGUSR1);", "<string>")):
        code = f"import faulthandler, signal; {begins} print(1, flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "0.err").open("ab"),
        ) as slot.process:
            assert slot.process.stdout is not None
            slot.process.stdout.readline()
            assert told in crew.stacks()[0]
            slot.process.communicate(b"go on")
        assert slot.process.returncode == 0


def test_what_the_broker_owes_excuses_its_own_partitions_only() -> None:
    """Two partitions are wrong, of one the broker owes a marker: the other one counts."""
    found = Verdict()
    found.add("lost", 1, 3)
    found.add("lost", 2, 1)
    found.add("positions", ANYWHERE)
    said = [
        "0: StampMismatch: sums[1]: c.items[1]: other",
        "0: StampMismatch: sums[2]: c.items[1]: other",
        "0: Crash: x",
    ]
    one = Missed("n.c.sums", frozenset({1}), "")
    assert set_aside([one], found, said, {1}) == {"lost": 3, "unexplained": 1, "stalled": 1, "slow": 1}
    assert set_aside([one], found, said, {1, 2}) == {"lost": 3, "unexplained": 1}
    of_positions = Missed(POSITIONS, frozenset({2}), "")
    assert set_aside([of_positions], found, [], ()) == {"lost": 1, "positions": 1}


def test_a_worker_that_refuses_what_the_broker_owes_excuses_what_stands_still_with_it_and_no_more() -> None:
    found = Verdict()
    for kind, lane in (("lost", 1), ("lost", 2), ("doubled", 2), ("torn", 2), ("lost", 3)):
        found.add(kind, lane)
    one = Missed(POSITIONS, frozenset({1}), "")
    refuses = "0: StampMismatch: sums[1]: c.items[1]: the group has committed another position"
    excused = {"lost": 2, "stalled": 1, "slow": 1}
    assert set_aside([one], found, [refuses, refuses], {1, 2}) == {**excused, "unexplained": 2}
    assert set_aside([one], found, [refuses], {2}) == {**excused, "unexplained": 1}
    assert set_aside([one], found, [refuses, "1: Crash: x"], {1, 2}) == {"lost": 1, "unexplained": 1}
    assert set_aside([one], found, [refuses], ()) == {"lost": 1, "unexplained": 1}


def row(seed: int, **more: object) -> Row:
    return Row("zombie", seed, "classic", "", kills=1, again=f"again {seed}", **more)  # type: ignore[arg-type] # by name


def test_the_figures_count_what_was_judged_and_name_what_was_not() -> None:
    rows = [row(1), row(2, broker="owes"), row(3, broker="owes", wrong={"lost": 1}), row(4, undone="no harm")]
    figures = of_rows(rows)
    assert (figures["trials"], figures["kills"], figures["judged"], figures["undone"]) == (4, 4, 2, 1)
    assert [one["again"] for one in figures["set_aside"]] == ["again 2", "again 3"]
    assert figures["findings"] == [{"again": "again 3", "what": {"lost": 1}}]
    assert (figures["bound_percent_95"], figures["seeds"], figures["protocols"]) == (
        None,
        [1, 4],
        {"classic": 4},
    )
    assert of_rows([row(seed) for seed in range(600)])["bound_percent_95"] == 0.5
    hunts = of_hunts([Hunt("a", (row(1), row(2, wrong={"torn": 1}))), Hunt("b", (row(1),))])
    assert (hunts["planted"], hunts["found"], hunts["bugs"]["a"]["trials"]) == (2, 1, 2)


def test_the_figures_name_the_code_and_the_programs() -> None:
    about = surroundings(SMALL, 0)
    assert about["scale"] == {"items": 150, "buckets": 15, "seconds": 1.5}
    assert about["transaction_version"] == 0
    assert all(about["versions"][name] for name in ("python", "confluent-kafka", "librdkafka"))


@pytest.mark.parametrize("sabotage", ["latest-for-cut"])
def test_a_planted_bug_is_found(bed: Bed, tmp_path: Path, sabotage: str) -> None:
    assert hunt(bed, sabotage, SEED, tmp_path, SMALL).found


def test_every_planted_bug_fits_the_engine() -> None:
    """Each in a process of its own. What it does there is told by the type checker, and by the trials of `--sabotage all`."""
    code = """
import os
from tests.campaign.sabotage import SABOTAGES

for name, plant in SABOTAGES.items():
    if os.fork() == 0:
        plant()
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} 0" for name in SABOTAGES], done.stderr


def test_every_point_has_its_fault_and_every_planted_bug_its_hunters() -> None:
    assert {f"point-{name}" for name in POINTS} <= FAULTS.keys()
    assert FOUND_BY.keys() == SABOTAGES.keys()
    assert {fault for faults in FOUND_BY.values() for fault in faults} <= FAULTS.keys()


def completed(data: Path) -> set[str]:
    """The namespaces of transactions that their coordinator calls complete: it does so when their markers are there."""
    said = states(data / "__transaction_state-0")
    return {one.transactional_id.removesuffix("writer") for one in said if one.status in COMPLETED}


def test_a_marker_that_the_broker_owes_is_missed_and_one_that_it_wrote_is_not(
    bed: Bed, tmp_path: Path
) -> None:
    log = KafkaLog(bed.bootstrap, f"{tmp_path.name}.")
    log.ensure_topics([events("a", 2)])
    put(log, [(TopicPartition("a", 0), b"k", b"v"), (TopicPartition("a", 1), b"k", b"v")])
    log.close()
    assert bed.broker is not None
    data, copied = bed.broker.data_dir, tmp_path / "data"
    until(lambda: log.namespace in completed(data))
    for name in ("__transaction_state-0", f"{log.namespace}a-0", f"{log.namespace}a-1"):
        shutil.copytree(data / name, copied / name)
    assert unfinished(copied, log.namespace) == []
    (segment,) = (copied / f"{log.namespace}a-1").glob("*.log")
    whole = segment.read_bytes()
    _, length = struct.unpack_from(">qi", whole)
    segment.write_bytes(whole[: 12 + length])
    (missed,) = unfinished(copied, log.namespace)
    assert (missed.topic, missed.lanes) == (f"{log.namespace}a", frozenset({1}))
    assert missed.what.startswith(f"{log.namespace}a-1: no commit of {log.namespace}writer between ")
