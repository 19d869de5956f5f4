"""A process that dies at any instant: what comes out over all its lives is what one long life would have given."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmtl.engine.failpoint import POINTS
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log
from qmtl.foundation.wire.keys import encode_key, partition_for
from tests.engine.driving import closed, messages, table
from tests.engine.models import counted, late_model, loop_model, minute, totals
from tests.engine.program import address_of, open_log
from tests.engine.toys import (
    A_OUT,
    B_STATE,
    CODEC,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    LATE_OUT,
    LATE_STATE,
    RELAYED,
    Feed,
    Item,
    Seen,
    X,
    make_topics,
)

ROOT = Path(__file__).resolve().parents[2]
TOYS = ("counter", "relay", "a", "b", "late2")
PER_LIFE = 3
"""Items that come in between two lives, on both partitions together; and buckets."""


class Lives:
    """One run after the other of the same program on the same log, fed in between."""

    def __init__(self, log: Log, place: Path) -> None:
        self.address = address_of(log)
        self.log = log
        self.state = place / "state"
        self.items: list[Item] = []
        self.buckets: list[list[tuple[str, int]]] = []

    def feed(self) -> None:
        items, x = Feed(self.log, ITEMS, "crowd"), Feed(self.log, X)
        for _ in range(PER_LIFE):
            seq = len(self.items)
            item = Item(f"n{seq % 4}", seq, seq * 7 % 10)
            items.put({self.partition(item): [item]})
            self.items.append(item)
            number = len(self.buckets)
            bucket = [(f"k{number % 3}", number % 4), (f"k{number % 2}", 1)]
            feeds = [Item(name, number * 100 + index, amount) for index, (name, amount) in enumerate(bucket)]
            x.bucket(minute(number), {0: feeds})
            self.buckets.append(bucket)
        items.close()
        x.close()

    @staticmethod
    def partition(item: Item) -> int:
        return partition_for(encode_key((item.name,)), ITEMS.partitions)

    def live(self, failpoint: str = "", poll: int = 4000) -> int:
        """Runs the program to its goal or its death; returns how it ended."""
        goal = {
            ECHO.name: len(self.items),
            RELAYED.name: len(self.items),
            A_OUT.name: 2 * len(self.buckets),
            LATE_OUT.name: 2 * len(self.buckets),
        }
        held = isinstance(self.log, EmbeddedLog)
        if held:
            self.log.close()
        command = [
            sys.executable,
            "-m",
            "tests.engine.program",
            self.address,
            str(self.state),
            str(poll),
            json.dumps(goal),
        ]
        ended = subprocess.run(
            [*command, *TOYS],
            cwd=ROOT,
            env={**os.environ, "QMTL_FAILPOINT": failpoint},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if held:
            self.log = open_log(self.address)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        return ended.returncode

    def check(self) -> None:
        """What is there is what the model says, each thing once, and no record is blamed for a death."""
        assert messages(self.log, DEAD.name) == []
        for partition in range(ITEMS.partitions):
            mine = [item for item in self.items if self.partition(item) == partition]
            found = [one for one in messages(self.log, ECHO.name) if self.partition_of(one) == partition]
            assert found == counted(mine)
            given_on = [
                one for one in messages(self.log, RELAYED.name) if self.partition_of(one) == partition
            ]
            assert given_on == [Seen(0, item.name, item.seq, item.amount) for item in mine]
        assert table(self.log, COUNTS.name) == {
            encode_key((total.name,)): CODEC.encode(total) for total in totals(self.items)
        }
        assert messages(self.log, A_OUT.name) == loop_model(self.buckets, 1)
        assert messages(self.log, LATE_OUT.name) == late_model(self.buckets, 2)
        every = [0, *(minute(number) for number in range(len(self.buckets)))]
        for topic in (A_OUT.name, LATE_OUT.name, LATE_STATE.name):
            assert closed(self.log, topic) == every
        behind = closed(self.log, B_STATE.name)
        assert behind == every[: len(behind)]

    @staticmethod
    def partition_of(seen: Seen) -> int:
        return partition_for(encode_key((seen.name,)), ECHO.partitions)


STEPS = tuple(name for name in POINTS if not name.endswith("_restore"))
RESTORES = tuple(name for name in POINTS if name.endswith("_restore"))


def test_death_at_every_point_of_a_cycle_and_of_a_recovery_changes_nothing(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    lives = Lives(log, tmp_path)
    chance = random.Random(11)
    for point in STEPS:
        lives.feed()
        passage = (
            1 if point == "inside_commit" else chance.randrange(1, 6)
        )  # the first is the counter's where tasks come at once
        ended = lives.live(f"{point}:{passage}", poll=chance.choice([1, 3, 4000]))
        assert ended == -signal.SIGKILL, point
    for point in RESTORES:
        for keep in (False, True) if isinstance(log, EmbeddedLog) else (False,):
            lives.feed()
            if not keep:
                shutil.rmtree(lives.state)
            elif point == "inside_restore":
                assert (
                    lives.live("after_commit:4") == -signal.SIGKILL
                )  # so that the log is ahead of the store
            ended = lives.live(f"{point}:{chance.randrange(1, 3)}")
            assert ended == -signal.SIGKILL or keep, point
    lives.feed()
    assert lives.live() == 0
    lives.check()
    if isinstance(lives.log, EmbeddedLog):
        lives.log.close()


@pytest.mark.parametrize("point", STEPS)
def test_death_in_the_very_first_transactions_changes_nothing(tmp_path: Path, point: str) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    lives = Lives(log, tmp_path)
    lives.feed()
    assert lives.live(f"{point}:1") == -signal.SIGKILL
    assert lives.live() == 0
    lives.check()
    lives.log.close()
