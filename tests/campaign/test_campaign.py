"""A slice of the campaign: a trial of each family of faults finds nothing, and what is planted is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmtl.engine.failpoint import POINTS
from tests.campaign.__main__ import FOUND_BY, bed_for, campaign, hunt
from tests.campaign.faults import FAULTS
from tests.campaign.sabotage import SABOTAGES
from tests.campaign.trial import Bed, Row, Scale

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
