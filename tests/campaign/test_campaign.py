"""A slice of the campaign: a trial of each family of faults finds nothing, and what is planted is found."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.engine.failpoint import POINTS
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import TopicPartition
from tests.campaign.__main__ import FOUND_BY, bed_for, campaign, hunt
from tests.campaign.completed import markers, unfinished
from tests.campaign.faults import FAULTS
from tests.campaign.sabotage import SABOTAGES
from tests.campaign.trial import Bed, Row, Scale
from tests.contract.driving import events, put, until

SLICE = (
    "kill-all",
    "point-commit_sent",
    "point-inside_restore",
    "twins",
    "zombie",
    "held-end_txn",
    "held-txn_offset_commit",
    "broker-kill",
)
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
    return [
        f"--fault {row.fault} --seed {row.seed}: {row.wrong or row.undone} {row.notes}"
        for row in rows
        if row.wrong or row.undone
    ]


@pytest.mark.timeout(600)
def test_no_fault_of_the_slice_loses_doubles_or_tears_anything(bed: Bed, tmp_path: Path) -> None:
    rows = campaign(bed, [(name, SEED) for name in SLICE], tmp_path, "", SMALL, AT_A_TIME)
    assert told(rows) == []
    assert all(row.harm for row in rows)


@pytest.mark.parametrize("sabotage", ["latest-for-cut"])
def test_a_planted_bug_is_found(bed: Bed, tmp_path: Path, sabotage: str) -> None:
    _, fault, wrong = hunt(bed, sabotage, SEED, tmp_path, SMALL)
    assert fault
    assert wrong


def test_every_point_has_its_fault_and_every_planted_bug_its_hunters() -> None:
    assert {f"point-{name}" for name in POINTS} <= FAULTS.keys()
    assert FOUND_BY.keys() == SABOTAGES.keys()
    assert {fault for faults in FOUND_BY.values() for fault in faults} <= FAULTS.keys()


def test_a_marker_that_the_broker_owes_is_missed_and_one_that_it_wrote_is_not(
    bed: Bed, tmp_path: Path
) -> None:
    log = KafkaLog(bed.bootstrap, f"{tmp_path.name}.")
    log.ensure_topics([events("a", 2)])
    put(log, [(TopicPartition("a", 0), b"k", b"v"), (TopicPartition("a", 1), b"k", b"v")])
    log.close()
    assert bed.broker is not None
    data, copied = bed.broker.data_dir, tmp_path / "data"
    until(lambda: len(markers(data / f"{log.namespace}a-1")) == 1)
    for name in ("__transaction_state-0", f"{log.namespace}a-0", f"{log.namespace}a-1"):
        shutil.copytree(data / name, copied / name)
    assert unfinished(copied, log.namespace) == []
    (segment,) = (copied / f"{log.namespace}a-1").glob("*.log")
    whole = segment.read_bytes()
    _, length = struct.unpack_from(">qi", whole)
    segment.write_bytes(whole[: 12 + length])
    (missed,) = unfinished(copied, log.namespace)
    assert missed.startswith(f"{log.namespace}a-1: no commit of {log.namespace}writer between ")
