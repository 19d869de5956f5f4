"""While somebody has yet to look at what another context had computed, traffic goes back to where it was, and to nobody new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.context import ClearContextHits, NodeContext, SaidContext, SetComputeContext
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    DagSubmission,
    RedoDiff,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
    VersionSentinel,
)
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_diffing import a_desk
from tests.services.graphs import T0, crossing, strategy, text

HELD = "QMTL-604"
SLOWS = (8, 13, 21)
LABELS = [f"v{slow}" for slow in SLOWS]
SHARES = (500, 1000, 5000, FULL_WEIGHT)

Message: TypeAlias = DagSubmission | SetTrafficWeight | RollBack | RedoDiff | RetireStrategy


@dataclass
class Trial:
    """One strategy on a desk, and what was seen of its traffic.

    Attributes:
        was_stable: the versions that have ever been the stable one.
        returns: those that have it, or are to get it, by a way back since the hits came.
        left: those that have lost it by one.
        granted: the shares that versions on their way may still get: as they were said before the hits came, or by a rollback since.
    """

    desk: Desk
    count: int = 0
    held: bool = False
    was_stable: set[str] = field(default_factory=set)
    returns: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    granted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.desk.tick(T0)
        self.desk.send(SetComputeContext("context", world_id="w1", execution_domain="live", issued_at_ms=T0))

    def name(self) -> str:
        self.count += 1
        return f"m{self.count}"

    def versions(self, *status: SentinelStatus) -> list[VersionSentinel]:
        return [one for one in self.desk.rows("dag.sentinels") if not status or one.status in status]

    def shares(self) -> dict[str, int]:
        """The share of each version that has traffic, the stable one first."""
        row = self.desk.table("dag.strategies").get("w1", "s1")
        if row is None or not row.nodes:
            return {}
        canary = {} if row.canary is None else {row.canary.sentinel_id: row.canary.traffic_weight}
        return {row.sentinel_id: FULL_WEIGHT - sum(canary.values())} | canary

    def say(self, message: Message) -> str:
        """Send a message, hold what comes of it to the law, and return the code of its refusal."""
        before, rows = self.shares(), self.desk.all_rows()
        self.desk.send(message)
        if isinstance(message, DagSubmission):
            code = self.desk.table("dag.diffs").get(message.submission_id).code
        else:
            code = self.desk.table("dag.outcomes").get(message.command_id).code
        if code:
            answers = ("dag.diffs", "dag.outcomes")
            kept = {name: one for name, one in self.desk.all_rows().items() if name not in answers}
            assert kept == {name: one for name, one in rows.items() if name not in answers}
        if isinstance(message, RollBack) and not code and message.sentinel_id in self.was_stable - self.left:
            self.granted[message.sentinel_id] = FULL_WEIGHT
            self.returns.add(message.sentinel_id)
        self.look(before)
        return str(code)

    def report(self) -> None:
        """Topics come."""
        before = self.shares()
        self.desk.report_all()
        self.look(before)

    def look(self, before: dict[str, int]) -> None:
        after = self.shares()
        first = next(iter(before), "")
        if self.held and before:
            for one in after:
                if after[one] > before.get(one, 0) and one != first:
                    assert after[one] <= self.granted.get(one, 0)
        if first and next(iter(after), first) in self.returns - {first}:
            self.left.add(first)
        self.was_stable.update([*after][:1])

    def hit(self) -> None:
        known = SaidContext("w1", ExecutionDomain.LIVE, "", "", "", False)
        self.desk.send(NodeContext(0, known, self.count + 1, ("blake3:" + "1" * 64,)))
        waiting = self.versions(SentinelStatus.PENDING)
        self.held, self.returns, self.left = True, set(), set()
        self.granted = {one.sentinel_id: one.traffic_weight for one in waiting}


def published(label: str, name: str, weight: int = FULL_WEIGHT) -> DagSubmission:
    message = strategy(crossing(3, int(label.removeprefix("v"))), version=label)
    return DagSubmission(name, "w1", text(message), T0, weight, execution_domain="live")


def message_of(trial: Trial, kind: str, label: str, weight: int) -> Message:
    name = trial.name()
    known = [one.sentinel_id for one in trial.versions() if one.version == label]
    sentinel_id = known[0] if known else label
    match kind:
        case "publish":
            return published(label, name, weight)
        case "weigh":
            return SetTrafficWeight(name, sentinel_id, weight, T0)
        case "back":
            return RollBack(name, sentinel_id, T0)
        case "redo":
            return RedoDiff(name, sentinel_id, f"{label}-b", T0)
        case _:
            return RetireStrategy(name, "w1", "s1", T0)


KINDS = ["publish", "publish", "weigh", "weigh", "back", "back", "redo", "retire", "report", "report"]
STEP = st.tuples(st.sampled_from(KINDS), st.sampled_from(LABELS), st.sampled_from((0, *SHARES)))
ROLLOUT = [
    (kind, label, weight)
    for label, weight in zip(LABELS, (FULL_WEIGHT, FULL_WEIGHT, 1000), strict=True)
    for kind in ("publish", "report")
]
"""One version after the other, the last one as a canary."""


def go(trial: Trial, steps: list[tuple[str, str, int]]) -> None:
    for kind, label, weight in steps:
        if kind == "report":
            trial.report()
        else:
            trial.say(message_of(trial, kind, label, weight))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(ROLLOUT)), st.lists(STEP, max_size=3), st.lists(STEP, max_size=7))
def test_while_hits_are_uncleared_no_share_grows_but_back(
    begun: int, before: list[tuple[str, str, int]], held: list[tuple[str, str, int]]
) -> None:
    """Whatever is said: only the stable version's at its canary's cost, that of one which was stable before, and what was decided."""
    with a_desk() as desk:
        trial = Trial(desk)
        go(trial, ROLLOUT[:begun] + before)
        trial.hit()
        go(trial, held)
        if len(shares := trial.shares()) == 2:  # a canary can always be taken away
            stable, canary = shares
            assert trial.say(SetTrafficWeight("away", canary, 0, T0)) == ""
            assert trial.shares() == {stable: FULL_WEIGHT}


# ---- by example ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """Two versions, one after the other, and a third one with a tenth; then hits."""
    desk = Desk(tmp_path)
    made = Trial(desk)
    for label, weight in zip(LABELS, (FULL_WEIGHT, FULL_WEIGHT, 1000), strict=True):
        assert made.say(published(label, label, weight)) == ""
        made.report()
    made.hit()
    yield made
    desk.close()


def sentinel(trial: Trial, label: str) -> str:
    (found,) = [one.sentinel_id for one in trial.versions() if one.version == label]
    return found


@pytest.mark.parametrize(
    ("kind", "label", "weight", "code"),
    [
        ("weigh", "v21", 5000, HELD),
        ("weigh", "v21", FULL_WEIGHT, HELD),
        ("weigh", "v13", 0, HELD),  # the other one's
        ("weigh", "v13", 8000, HELD),
        ("back", "v21", 0, HELD),
        ("publish", "v21", 2000, HELD),
        ("publish", "v21", FULL_WEIGHT, HELD),
        ("publish", "v8", FULL_WEIGHT, HELD),  # as a release: to go back is another word
        ("redo", "v21", 0, HELD),
        ("redo", "v13", 0, HELD),
        ("weigh", "v21", 1000, ""),
        ("weigh", "v21", 500, ""),
        ("weigh", "v21", 0, ""),
        ("weigh", "v13", 9500, ""),
        ("weigh", "v13", FULL_WEIGHT, ""),
        ("back", "v13", 0, ""),
        ("back", "v8", 0, ""),
        ("publish", "v13", FULL_WEIGHT, ""),
        ("publish", "v21", 500, ""),
        ("retire", "", 0, ""),
    ],
)
def test_a_promotion_is_held_and_a_way_back_is_not(
    trial: Trial, kind: str, label: str, weight: int, code: str
) -> None:
    before = trial.shares()
    message = message_of(trial, kind, label, weight)
    assert trial.say(message) == code
    if code:
        assert trial.shares() == before
        answer = trial.desk.rows("dag.outcomes") + trial.desk.rows("dag.diffs")
        assert any("context clear --reason" in one.detail for one in answer)
        assert trial.desk.told("dag.admin.log")[-1].act.value in ("crossed", "commanded", "diffed")
        trial.desk.send(ClearContextHits("clear", "looked at", T0))
        trial.held = False
        assert trial.say(message_of(trial, kind, label, weight)) == ""


def test_one_way_back_is_no_way_forth_again(trial: Trial) -> None:
    assert trial.say(RollBack("back", sentinel(trial, "v8"), T0)) == ""
    for label in ("v13", "v21"):
        assert trial.say(RollBack(f"to-{label}", sentinel(trial, label), T0)) == HELD
    assert trial.shares() == {sentinel(trial, "v8"): FULL_WEIGHT}


def test_what_waits_for_its_topics_when_hits_come_gets_what_it_was_to_get_and_no_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    trial = Trial(desk)
    trial.say(published("v8", "first"))
    trial.report()
    trial.say(published("v13", "second", 1000))
    trial.hit()
    waiting = sentinel(trial, "v13")
    assert trial.say(SetTrafficWeight("more", waiting, 2000, T0)) == HELD
    assert trial.say(published("v13", "more-too", 2000)) == HELD
    assert trial.say(RollBack("all", waiting, T0)) == HELD
    trial.report()
    assert trial.shares() == {sentinel(trial, "v8"): 9000, waiting: 1000}
    desk.close()


def test_a_strategy_of_which_nobody_has_traffic_can_be_published(trial: Trial) -> None:
    desk = trial.desk
    message = strategy(crossing(3, 30), "s2", version="v30")
    desk.send(DagSubmission("other", "w1", text(message), T0, execution_domain="live"))
    assert desk.table("dag.diffs").get("other").accepted
    trial.say(RetireStrategy("out", "w1", "s1", T0))
    assert trial.say(published("v21", "anew")) == ""
    trial.report()
    assert trial.shares() == {sentinel(trial, "v21"): FULL_WEIGHT}


def test_memory_and_rows_know_the_same_of_the_way_back(trial: Trial) -> None:
    trial.desk.again()
    assert trial.say(RollBack("back", sentinel(trial, "v8"), T0)) == ""
