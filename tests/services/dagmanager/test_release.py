"""A release: whatever comes in whatever order, its version gets a tenth, half and all, a day apart; what somebody does ends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.errors import RepeatedBacktest, ReusedId
from qmtl.foundation.contracts.context import ClearContextHits
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    CreateTopic,
    DagCommandOutcome,
    DagSubmission,
    RedoDiff,
    ReportTopicCreated,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
)
from qmtl.foundation.contracts.release import (
    AbandonRelease,
    Release,
    ReleaseMessage,
    ReleaseStage,
    ReportBacktest,
    StartRelease,
)
from qmtl.foundation.wire.topics import DAY_MS, HOUR_MS
from qmtl.services.dagmanager import submission
from qmtl.services.dagmanager.backtests import counted
from qmtl.services.dagmanager.raw import MAX_BYTES
from qmtl.services.dagmanager.release import BACKTESTS
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_context import hits, set_to
from tests.services.dagmanager.test_diffing import a_desk
from tests.services.graphs import T0, crossing, sma, strategy, tag_query, text

STABLE, NEW, OTHER = (text(strategy(crossing(3, slow), version=f"v{slow}")) for slow in (8, 21, 5))
AGAIN = text(strategy(crossing(3, 8), version="v8b"))
"""What the stable version is, under another name: no topic of it is missing."""

DIGEST = blake3_hex(NEW)
RESULT = blake3_hex(b"what a backtest gave")
SHARES = (0, 1_000, 5_000, FULL_WEIGHT)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(T0)
    set_to(made, "context")
    yield made
    made.close()


def publish(desk: Desk, data: bytes = STABLE, weight: int = FULL_WEIGHT, made: bool = True) -> str:
    """Publish a version; its topics are made unless told otherwise."""
    name = f"p{len(desk.rows('dag.diffs'))}"
    desk.send(DagSubmission(name, "w1", data, T0, weight, execution_domain="live"))
    if made:
        desk.report_all()
    found: str = desk.table("dag.diffs").get(name).sentinel_id
    return found


def said(desk: Desk, message: Any) -> DagCommandOutcome:
    desk.send(message)
    found: DagCommandOutcome = desk.table("dag.outcomes").get(message.command_id)
    return found


def start(desk: Desk, data: bytes = NEW, name: str = "r", world: str = "w1") -> DagCommandOutcome:
    return said(desk, StartRelease(name, world, data, T0))


def passing(wish: str, name: str, run: str, digest: str = DIGEST, **more: Any) -> ReportBacktest:
    """A backtest that passed, over data of its own unless told otherwise."""
    told = ReportBacktest(wish, name, run, digest, True, T0, "", f"data of {run}", T0, T0 + DAY_MS, RESULT)
    return replace(told, **more)


def ran(desk: Desk, run: str, digest: str = DIGEST, *, name: str = "r", **more: Any) -> DagCommandOutcome:
    count = len(desk.rows("dag.outcomes"))
    return said(desk, passing(f"b{count}", name, run, digest, **more))


def row(desk: Desk, name: str = "r") -> Release:
    found: Release = desk.table("dag.releases").get(name)
    return found


def shares(desk: Desk) -> dict[str, int]:
    """The traffic of each version that has some."""
    found = desk.rows("dag.sentinels")
    return {one.version: one.traffic_weight for one in found if one.status is SentinelStatus.ACTIVE}


def pass_all(desk: Desk) -> None:
    for number in range(BACKTESTS):
        assert ran(desk, f"run{number}").accepted


def reach(desk: Desk, stage: ReleaseStage) -> int:
    """A release of v21 beside v8 in this stage; returns the tick that it is at."""
    publish(desk)
    start(desk)
    if stage is ReleaseStage.BACKTESTS:
        return T0
    pass_all(desk)
    desk.report_all()
    days = (ReleaseStage.CANARY, ReleaseStage.HALF, ReleaseStage.DEPLOYED).index(stage)
    for day in range(days + 1):
        desk.tick(T0 + day * DAY_MS + 1)
    assert row(desk).stage is stage
    return T0 + days * DAY_MS + 1


# ---- whatever comes ------------------------------------------------------------------------------------------------------


def picture(desk: Desk) -> set[tuple[object, ...]]:
    """Which versions have, or wait for, which part."""
    return {
        (one.sentinel_id, one.status, one.traffic_weight, one.submission_id)
        for one in desk.rows("dag.sentinels")
        if one.status in (SentinelStatus.PENDING, SentinelStatus.ACTIVE)
    }


class Watched:
    """A desk whose release is watched by somebody who knows the law alone."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.sent: list[Any] = []
        self.now_ms = T0
        self.since_ms: dict[tuple[str, ReleaseStage], int] = {}
        self.history: dict[str, list[int]] = {}
        self.count = 0

    def open(self) -> Release | None:
        found = [one for one in self.desk.rows("dag.releases") if not one.stage.is_over]
        assert len(found) <= 1
        return found[0] if found else None

    def send(self, message: Any) -> None:
        self.sent.append(message)
        self.desk.send(message)

    def do(self, what: str, number: int) -> None:
        before, open_before = picture(self.desk), self.open()
        name = open_before.release_id if open_before is not None else "none"
        self.count += 1
        wish = f"life{self.count}"
        ids = sorted(one.sentinel_id for one in self.desk.rows("dag.sentinels")) or ["nobody"]
        one = ids[number % len(ids)]
        match what:
            case "start":
                self.send(StartRelease(wish, "w1", NEW, T0))
            case "pass":
                self.send(passing(wish, name, f"run{number}"))
            case "twin":
                twin = passing(wish, name, f"run{number % 3}")
                self.send(replace(twin, run_id=f"twin{number}"))
            case "other":
                self.send(passing(wish, name, f"run{number}", "0" * 64, passed=number > 3))
            case "pass all":
                for run in range(BACKTESTS):
                    self.send(passing(f"{wish}-{run}", name, f"run{run}"))
            case "fail":
                self.send(ReportBacktest(wish, name, f"run{number}", DIGEST, False, T0))
            case "abandon":
                self.send(AbandonRelease(wish, name, "enough", T0))
            case "tick":
                self.tick((1, 12, 23, 24, 30)[number % 5] * HOUR_MS)
                return
            case "made" | "lost":
                for task in self.desk.rows("dag.tasks"):
                    if isinstance(task, CreateTopic):
                        self.send(ReportTopicCreated(task.topic, what == "made", "", ""))
            case "again":
                self.desk.again()
            case "hits":
                self.send(hits(0, self.count))
            case "clear":
                self.send(ClearContextHits(wish, "seen", T0))
            case "weight":
                self.send(SetTrafficWeight(wish, one, (0, 500, 1_000, 5_000, FULL_WEIGHT)[number % 5], T0))
            case "rollback":
                self.send(RollBack(wish, one, T0))
            case "redo":
                self.send(RedoDiff(wish, one, ("v8", "v9")[number % 2], T0))
            case "retire":
                self.send(RetireStrategy(wish, "w1", "s1", T0))
            case _:
                data, weight = (STABLE, NEW, OTHER)[number % 3], (1_000, FULL_WEIGHT)[number % 2]
                self.send(DagSubmission(wish, "w1", data, T0, weight, execution_domain="live"))
        if what in ("weight", "rollback", "redo", "retire", "publish", "lost") and open_before is not None:
            now = row(self.desk, name)
            crossed = picture(self.desk) != before
            assert now == open_before if not crossed else now.stage is ReleaseStage.ABANDONED
            assert bool(now.detail) or not crossed
        if what in ("fail", "abandon"):
            assert picture(self.desk) == before
        if what in ("other", "again", "hits", "clear", "made") and open_before is not None:
            assert row(self.desk, name) == open_before
        self.look()

    def tick(self, by_ms: int) -> None:
        release, before = self.open(), picture(self.desk)
        held = any(one.uncleared for one in self.desk.rows("dag.context"))
        self.now_ms += by_ms
        self.sent.append(self.now_ms)
        self.desk.tick(self.now_ms)
        after = picture(self.desk)
        if release is None:
            assert after == before
            return
        now, since_ms = row(self.desk, release.release_id), None
        is_active = (release.sentinel_id, SentinelStatus.ACTIVE) in {one[:2] for one in before}
        if is_active or not release.sentinel_id:
            since_ms = self.since_ms.setdefault((release.release_id, release.stage), self.now_ms)
        is_first = release.share == FULL_WEIGHT
        is_due = since_ms is not None and is_active and self.now_ms - since_ms >= DAY_MS and not held
        assert (now.stage is not release.stage) is (is_due or (is_active and is_first))
        assert (after != before) is (is_due and not is_first)
        if now.stage is release.stage:
            assert now == replace(release, since_ms=since_ms, detail=now.detail)
        else:
            self.since_ms[now.release_id, now.stage] = self.now_ms
        self.look()

    def look(self) -> None:
        """What a release has is what it was given, and that only grows, by its steps."""
        for one in self.desk.rows("dag.releases"):
            steps = self.history.setdefault(one.release_id, [0])
            if one.share != steps[-1]:
                steps.append(one.share)
            wanted = SHARES if one.beside_id else (0, FULL_WEIGHT)
            assert tuple(steps) == wanted[: len(steps)]
            assert len(one.runs) == len({run.run_id for run in one.runs}) <= BACKTESTS
            assert len(one.runs) == len(
                {(run.dataset_fingerprint, run.from_ms, run.to_ms) for run in one.runs}
            )
            assert (len(one.runs) == BACKTESTS) or not one.sentinel_id
            version = self.desk.table("dag.sentinels").get(one.sentinel_id) if one.sentinel_id else None
            if not one.stage.is_over and version is not None:
                assert (version.traffic_weight, version.submission_id) == (one.share, one.release_id)
        waiting = {one.release_id for one in self.desk.rows("dag.release.messages")}
        stages = {one.release_id: one.stage for one in self.desk.rows("dag.releases")}
        assert waiting == {name for name, stage in stages.items() if stage is ReleaseStage.BACKTESTS}


PEOPLE = ("weight", "rollback", "redo", "retire", "publish", "fail", "abandon", "lost")
CALM = ("tick",) * 8 + ("pass", "twin", "other", "again", "hits", "clear")
BEGUN = [("start", 0), ("pass all", 0), ("made", 0), ("tick", 0)]


def lives(names: Sequence[str], most: int) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 24)), max_size=most)


STEPS = [*CALM, *CALM, *("start", "pass all", "made") * 2, *PEOPLE]
LIVES = st.one_of(
    lives(STEPS, 14),
    lives(CALM, 10).map(lambda more: [*BEGUN, *more]),
    lives(STEPS, 6).map(lambda more: [*BEGUN, *more, ("tick", 3), *more, ("tick", 3)]),
    lives(STEPS, 6).map(lambda more: [*BEGUN[:2], *more, *BEGUN[2:], ("tick", 2), ("tick", 0)]),
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([True, True, False]), LIVES)
def test_shares_only_grow_a_day_apart_and_a_second_run_has_the_same_rows(
    has_stable: bool, steps: list[tuple[str, int]]
) -> None:
    with a_desk() as desk, a_desk() as second:
        for one in (desk, second):
            one.tick(T0)
            set_to(one)
            if has_stable:
                publish(one)
        watched = Watched(desk)
        for what, number in steps:
            watched.do(what, number)
        for message in watched.sent:
            if isinstance(message, int):
                second.tick(message)
            else:
                second.send(message)
        assert second.all_rows() == desk.all_rows()
        assert second.emitted == desk.emitted
        etags = [one.etag for one in desk.told("sentinel_weight")]
        assert len(set(etags)) == len(etags)


# ---- the way that it goes ------------------------------------------------------------------------------------------------


def test_a_release_goes_from_its_backtests_to_all_of_the_traffic(desk: Desk) -> None:
    publish(desk)
    assert start(desk).accepted
    rows = desk.all_rows()
    assert [one.version for one in rows["dag.sentinels"]] == ["v8"]
    assert row(desk).digest == DIGEST
    for number in range(BACKTESTS - 1):
        assert ran(desk, f"run{number}").detail == f"{number + 1} of 20 backtests have passed"
    assert "already" in ran(desk, "run0").detail
    assert shares(desk) == {"v8": FULL_WEIGHT}
    assert "gets 10 %" in ran(desk, "last").detail
    counting = [*(f"run{number}" for number in range(BACKTESTS - 1)), "last"]
    assert [one.run_id for one in row(desk).runs] == counting
    desk.tick(T0 + 5 * DAY_MS)
    assert (shares(desk), row(desk).since_ms) == ({"v8": FULL_WEIGHT}, None)  # no topic is there yet
    desk.report_all()
    now_ms = T0 + 6 * DAY_MS
    desk.tick(now_ms)
    for later, stage, wanted in [
        (DAY_MS - 1, ReleaseStage.CANARY, {"v8": 9_000, "v21": 1_000}),
        (DAY_MS, ReleaseStage.HALF, {"v8": 5_000, "v21": 5_000}),
        (2 * DAY_MS - 1, ReleaseStage.HALF, {"v8": 5_000, "v21": 5_000}),
        (2 * DAY_MS, ReleaseStage.DEPLOYED, {"v21": FULL_WEIGHT}),
    ]:
        desk.tick(now_ms + later)
        assert (row(desk).stage, shares(desk)) == (stage, wanted)
    notes = [one.detail for one in desk.told("dag.admin.log") if one.act is AdminAct.RELEASED]
    assert [one.split(":")[0] for one in notes[1:]] == ["canary", "half", "deployed"]
    assert ran(desk, "late").code == "QMTL-602"
    assert start(desk, OTHER, "next").accepted


def test_a_version_that_is_released_again_is_told_of_as_something_new(desk: Desk) -> None:
    now_ms = reach(desk, ReleaseStage.DEPLOYED)
    old = row(desk).beside_id
    assert said(desk, RollBack("back", old, T0)).accepted
    assert start(desk, name="r2").accepted
    for number in range(BACKTESTS):
        assert ran(desk, f"run{number}", name="r2").accepted
    for day in (1, 2, 3):
        desk.tick(now_ms + day * DAY_MS)
    assert row(desk, "r2").stage is ReleaseStage.DEPLOYED
    told = desk.told("sentinel_weight")
    assert sum((one.version, one.traffic_weight) == ("v21", 5_000) for one in told) == 2
    assert len({one.etag for one in told}) == len(told)


def test_the_first_version_of_a_strategy_has_all_once_its_topics_are_there(desk: Desk) -> None:
    start(desk)
    pass_all(desk)
    desk.tick(T0 + DAY_MS)
    assert row(desk).stage is ReleaseStage.CANARY
    desk.report_all()
    assert shares(desk) == {"v21": FULL_WEIGHT}
    desk.tick(T0 + DAY_MS + 1)
    assert (row(desk).stage, row(desk).share) == (ReleaseStage.DEPLOYED, FULL_WEIGHT)
    assert "no version beside" in row(desk).detail


def test_no_promotion_while_something_crossed_a_context(desk: Desk) -> None:
    set_to(desk)
    now_ms = reach(desk, ReleaseStage.CANARY)
    desk.send(hits(0, 3))
    for later in (1, 2):
        desk.tick(now_ms + later * DAY_MS)
        assert (shares(desk)["v21"], row(desk).stage) == (1_000, ReleaseStage.CANARY)
    assert row(desk).detail.startswith("waits: 3 times")
    assert sum("waits" in one.detail for one in desk.told("dag.admin.log")) == 1
    said(desk, ClearContextHits("clear", "seen", T0))
    desk.tick(now_ms + 2 * DAY_MS + 1)
    assert (shares(desk)["v21"], row(desk).detail) == (5_000, "")


def test_what_has_all_its_backtests_waits_too_where_a_context_was_crossed(desk: Desk) -> None:
    set_to(desk)
    publish(desk)
    start(desk)
    desk.send(hits(0, 3))
    pass_all(desk)
    desk.tick(T0 + DAY_MS)
    assert "all its backtests already" in ran(desk, "one more").detail
    desk.again()
    desk.tick(T0 + 2 * DAY_MS)
    assert (row(desk).stage, len(row(desk).runs)) == (ReleaseStage.BACKTESTS, BACKTESTS)
    assert row(desk).detail.startswith("waits: 3 times")
    said(desk, ClearContextHits("clear", "seen", T0))
    desk.tick(T0 + 3 * DAY_MS)
    desk.report_all()
    assert (shares(desk), row(desk).stage) == ({"v8": 9_000, "v21": 1_000}, ReleaseStage.CANARY)


def test_what_is_over_is_kept_as_long_as_a_version_one_can_go_back_to(desk: Desk) -> None:
    start(desk)
    said(desk, AbandonRelease("no", "r", "enough", T0))
    assert start(desk, name="a").accepted
    desk.again()
    assert start(desk, name="r3").code == "QMTL-605"
    desk.tick(T0 + 1)
    for later, left in [(210 * DAY_MS, ["a", "r"]), (210 * DAY_MS + 1, ["a"])]:
        desk.tick(T0 + later)
        assert [one.release_id for one in desk.rows("dag.releases")] == left


def test_a_message_of_the_greatest_length_is_kept_until_it_is_deployed(desk: Desk) -> None:
    data = NEW + b" " * (MAX_BYTES - len(NEW))
    start(desk, data)
    assert desk.rows("dag.release.messages") == [ReleaseMessage("r", data)]
    for number in range(BACKTESTS):
        assert ran(desk, f"run{number}", blake3_hex(data)).accepted
    assert desk.rows("dag.release.messages") == []
    assert desk.table("dag.sentinels").get(row(desk).sentinel_id).version == "v21"


# ---- what ends it --------------------------------------------------------------------------------------------------------

Deed = Callable[[Desk, str, str], Any]
"""On a desk with these two versions: the one before, and the release's."""


@pytest.mark.parametrize(
    ("stage", "deed", "why"),
    [
        ("backtests", lambda desk, old, new: publish(desk, AGAIN), "had w1:s1:v8:.* now has w1:s1:v8b"),
        (
            "backtests",
            lambda desk, old, new: publish(desk, OTHER, made=False),
            "v5:.* was deployed meanwhile",
        ),
        ("backtests", lambda desk, old, new: publish(desk, AGAIN, 1_000), "now has w1:s1:v8:.*, w1:s1:v8b"),
        ("backtests", lambda desk, old, new: publish(desk, NEW, 1_000), "v21:.* was deployed meanwhile"),
        ("backtests", lambda desk, old, new: said(desk, RetireStrategy("x", "w1", "s1", T0)), "now has none"),
        ("backtests", lambda desk, old, new: ran(desk, "bad", passed=False), "backtest 'bad' failed"),
        ("canary", lambda desk, old, new: ran(desk, "run3", passed=False), "backtest 'run3' failed"),
        ("canary", lambda desk, old, new: said(desk, SetTrafficWeight("x", new, 900, T0)), "has 9 % and"),
        ("canary", lambda desk, old, new: said(desk, SetTrafficWeight("x", old, 500, T0)), "has 95 % and"),
        ("canary", lambda desk, old, new: said(desk, SetTrafficWeight("x", new, 0, T0)), "is retired"),
        ("half", lambda desk, old, new: said(desk, SetTrafficWeight("x", new, FULL_WEIGHT, T0)), "has 100 %"),
        ("half", lambda desk, old, new: said(desk, RollBack("x", old, T0)), "is retired"),
        ("half", lambda desk, old, new: said(desk, RollBack("x", new, T0)), "has 100 %"),
        ("half", lambda desk, old, new: said(desk, RetireStrategy("x", "w1", "s1", T0)), "is retired"),
        ("half", lambda desk, old, new: said(desk, RedoDiff("x", old, "hot", T0)), "is retired"),
        ("half", lambda desk, old, new: publish(desk, OTHER), "v5:.* was deployed meanwhile"),
        ("half", lambda desk, old, new: said(desk, AbandonRelease("x", "r", "too slow", T0)), "^too slow$"),
    ],
)
def test_what_somebody_does_ends_a_release_and_stays_as_it_is(
    desk: Desk, stage: str, deed: Deed, why: str
) -> None:
    now_ms = reach(desk, ReleaseStage(stage))
    (old,) = [one.sentinel_id for one in desk.rows("dag.sentinels") if one.version == "v8"]
    deed(desk, old, row(desk).sentinel_id)
    over = row(desk)
    assert over.stage is ReleaseStage.ABANDONED
    assert re.search(why, over.detail), over.detail
    assert desk.rows("dag.release.messages") == []
    had = picture(desk)
    for day in (1, 2, 3):
        desk.tick(now_ms + day * DAY_MS)
    assert picture(desk) == had
    assert row(desk) == replace(over, since_ms=now_ms + DAY_MS)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_release_that_is_abandoned_leaves_the_traffic_where_it_is(desk: Desk, by_hand: bool) -> None:
    reach(desk, ReleaseStage.HALF)
    before = picture(desk)
    outcome = said(desk, AbandonRelease("x", "r", "no", T0)) if by_hand else ran(desk, "bad", passed=False)
    assert outcome.detail.endswith("keeps what it has")
    assert (picture(desk), row(desk).stage) == (before, ReleaseStage.ABANDONED)


def test_a_release_of_a_log_of_old_waits_until_somebody_has_said_a_context(desk: Desk) -> None:
    publish(desk)
    start(desk)
    desk.table("dag.context").delete("compute")
    desk.again()
    pass_all(desk)
    desk.tick(T0 + HOUR_MS)
    assert (row(desk).stage, shares(desk)) == (ReleaseStage.BACKTESTS, {"v8": FULL_WEIGHT})
    assert row(desk).detail.startswith("waits: no context was said on this log")
    set_to(desk, "now", execution_domain="dryrun", as_of="A")
    desk.tick(T0 + 2 * HOUR_MS)
    assert row(desk).stage is ReleaseStage.CANARY
    assert desk.table("dag.diffs").get("r").safe_mode == ""


def test_a_version_whose_topics_can_not_be_made_ends_its_release(desk: Desk) -> None:
    publish(desk)
    start(desk)
    pass_all(desk)
    topic = next(one.topic for one in desk.rows("dag.queues") if not one.ready)
    desk.send(ReportTopicCreated(topic, False, "QMTL-323", "refused"))
    assert (row(desk).stage, shares(desk)) == (ReleaseStage.ABANDONED, {"v8": FULL_WEIGHT})
    assert "is failed" in row(desk).detail


def test_a_message_that_is_refused_once_its_backtests_are_done_is_not_deployed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(desk)
    start(desk)
    monkeypatch.setattr(submission, "MAX_TAGGED", 0)  # the graph has filled up meanwhile
    pass_all(desk)
    assert (row(desk).stage, shares(desk)) == (ReleaseStage.ABANDONED, {"v8": FULL_WEIGHT})
    assert "[QMTL-511]" in row(desk).detail


# ---- what is refused -----------------------------------------------------------------------------------------------------

FAULTY = text(strategy([*crossing(3, 21)[:2], sma("slow", 3, "nobody"), *crossing()[3:]], "../s", version=""))


@pytest.mark.parametrize(
    ("before", "data", "world", "code", "says"),
    [
        ([], FAULTY, "w1", "QMTL-500", ["[QMTL-504]", "[QMTL-508]"]),
        ([], b"no json", "w1", "QMTL-500", ["[QMTL-500]"]),
        ([], NEW, " ", "QMTL-508", ["world_id"]),
        ([], NEW, "w" * 201, "QMTL-508", ["world_id", "201"]),
        ([(NEW, FULL_WEIGHT, True)], NEW, "w1", "QMTL-602", ["has traffic already"]),
        ([(STABLE, FULL_WEIGHT, True), (OTHER, 1_000, True)], NEW, "w1", "QMTL-510", ["w1:s1:v5"]),
        ([(STABLE, FULL_WEIGHT, True), (NEW, 1_000, True)], NEW, "w1", "QMTL-602", ["has traffic already"]),
        ([(STABLE, FULL_WEIGHT, False)], NEW, "w1", "QMTL-602", ["waits for its topics"]),
    ],
)
def test_a_release_that_can_not_be_is_refused_and_nothing_is_created(
    desk: Desk, before: list[tuple[bytes, int, bool]], data: bytes, world: str, code: str, says: list[str]
) -> None:
    for one, weight, made in before:
        publish(desk, one, weight, made)
    rows = desk.all_rows()
    outcome = start(desk, data, world=world)
    assert (outcome.accepted, outcome.code) == (False, code)
    assert all(one in outcome.detail for one in says), outcome.detail
    assert desk.all_rows() == rows | {"dag.outcomes": [*rows["dag.outcomes"], outcome]}


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (passing("x", "r", "run", "0" * 64), "QMTL-606", DIGEST),
        (passing("x", "r", "run", "0" * 64, passed=False), "QMTL-606", DIGEST),
        (passing("x", "nobody", "run"), "QMTL-602", "no release has that id"),
        (passing("x", "r", " "), "QMTL-602", "run_id"),
        (passing("x", "r", "r" * 201), "QMTL-602", "run_id"),
        (passing("x", "r", "run", dataset_fingerprint=""), "QMTL-602", "dataset_fingerprint"),
        (passing("x", "r", "run", dataset_fingerprint="d" * 201), "QMTL-602", "dataset_fingerprint"),
        (passing("x", "r", "run", from_ms=-1), "QMTL-602", "from_ms was the number -1"),
        (passing("x", "r", "run", to_ms=2**63 - 1), "QMTL-602", "to_ms was the number 9223372036854775807"),
        (passing("x", "r", "run", to_ms=T0), "QMTL-602", f"from_ms was the number {T0} and to_ms {T0}"),
        (passing("x", "r", "run", from_ms=0, to_ms=0), "QMTL-602", "from_ms"),
        (passing("x", "r", "run", result_digest=""), "QMTL-602", "result_digest"),
        (passing("x", "r", "run", result_digest="F" * 64), "QMTL-602", "result_digest"),
        (passing("x", "r", "run", passed=False, to_ms=1), "QMTL-602", "from_ms"),
        (passing("x", "r", "run", passed=False, result_digest="no"), "QMTL-602", "result_digest"),
        (ReportBacktest("x", "r", "run", DIGEST, True, T0), "QMTL-602", "dataset_fingerprint"),
        (ReportBacktest("x", "r", "run", DIGEST, False, T0, "d" * 201), "QMTL-602", "detail"),
        (AbandonRelease("x", "r", "", T0), "QMTL-602", "reason"),
        (AbandonRelease("x", "nobody", "why", T0), "QMTL-602", "no release has that id"),
        (StartRelease("x", "w1", OTHER, T0), "QMTL-605", "release r of version v21"),
    ],
)
def test_what_does_not_belong_to_a_release_changes_none(
    desk: Desk, message: Any, code: str, says: str
) -> None:
    start(desk)
    rows = desk.all_rows()
    outcome = said(desk, message)
    assert (outcome.accepted, outcome.code) == (False, code)
    assert says in outcome.detail
    assert desk.all_rows() == rows | {"dag.outcomes": desk.rows("dag.outcomes")}


# ---- which backtests count -------------------------------------------------------------------------------------------------

TOLD = st.builds(
    lambda run, data, begin, end, result: replace(
        passing("x", "r", f"run{run}"),
        dataset_fingerprint=f"d{data}",
        from_ms=begin,
        to_ms=end,
        result_digest=f"{result}" * 64,
    ),
    st.integers(0, 4),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(2, 3),
    st.integers(0, 1),
)
EMPTY = Release("r", "w1", "s1", "v1", DIGEST, ReleaseStage.BACKTESTS, T0)


@given(st.lists(TOLD, max_size=12))
def test_a_backtest_counts_once_by_its_id_and_once_by_what_it_ran_over(reports: list[ReportBacktest]) -> None:
    release, ids, places = EMPTY, dict[str, ReportBacktest](), dict[tuple[str, int, int], str]()
    for one in reports:
        place = one.dataset_fingerprint, one.from_ms, one.to_ms
        if one.run_id in ids:
            if ids[one.run_id] == one:
                assert counted(release, one) is None
            else:
                with pytest.raises((ReusedId, RepeatedBacktest)):
                    counted(release, one)
        elif place in places:
            with pytest.raises(RepeatedBacktest, match=places[place]):
                counted(release, one)
        else:
            ids[one.run_id], places[place] = one, one.run_id
            fresh = counted(release, one)
            assert fresh is not None
            release = replace(release, runs=(*release.runs, fresh))
    assert [one.run_id for one in release.runs] == list(ids)


def test_one_run_under_twenty_ids_is_one_run(desk: Desk) -> None:
    publish(desk)
    start(desk)
    assert ran(desk, "run", dataset_fingerprint="one").accepted
    for number in range(BACKTESTS):
        outcome = ran(desk, f"run{number}", dataset_fingerprint="one")
        assert (outcome.accepted, outcome.code) == (False, "QMTL-609")
        assert "those of backtest 'run', with the same result" in outcome.detail
    assert "another result" in ran(desk, "x", dataset_fingerprint="one", result_digest="0" * 64).detail
    assert ran(desk, "run", dataset_fingerprint="two").code == "QMTL-608"
    assert ran(desk, "run", dataset_fingerprint="one").detail == "backtest 'run' has passed already"
    assert (len(row(desk).runs), shares(desk)) == (1, {"v8": FULL_WEIGHT})


# ---- the lint --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ([], []),
        ([sma("idle", 5)], ["idle"]),
        ([sma("read", 5), sma("last", 6, "read")], ["last"]),
        ([sma("idle", 5), tag_query("ask", ["sma"])], ["ask"]),
        ([sma("idle", 5), tag_query("ask", ["other"])], ["idle", "ask"]),
    ],
)
def test_a_release_names_the_nodes_that_nobody_reads_and_takes_them(
    desk: Desk, more: list[dict[str, Any]], names: list[str]
) -> None:
    outcome = start(desk, text(strategy([*crossing(3, 21), *more], version="v21")))
    assert outcome.accepted
    assert row(desk).unread == tuple(names)
    assert ("warning" in outcome.detail) is bool(names)
    assert all(repr(one) in outcome.detail for one in names)


def test_of_many_nodes_that_nobody_reads_ten_are_named(desk: Desk) -> None:
    many = [sma(f"idle{number}", 30 + number) for number in range(13)]
    outcome = start(desk, text(strategy([*crossing(3, 21), *many], version="v21")))
    assert row(desk).unread == tuple(f"idle{number}" for number in range(10))
    assert "'idle9' and 3 more" in outcome.detail
