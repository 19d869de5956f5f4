"""A release: a DAG message that has passed its backtests gets a part of its strategy's traffic, then half, then all, each a day after.

Time is that of the clock's ticks, counted from the first one that found the version active with the share that it has. The versions of
the strategy stay as the release has left them, or it is over: what a person does is never undone, and no version gets anything by a
release that somebody has crossed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.errors import CommandRefused, OtherMessage, ReleaseActive
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    DagSubmission,
    SentinelStatus,
)
from qmtl.foundation.contracts.release import (
    AbandonRelease,
    Release,
    ReleaseMessage,
    ReleaseStage,
    ReportBacktest,
    StartRelease,
)
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager import context, lint
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.backtests import counted, require_text, require_told
from qmtl.services.dagmanager.catalogue import HOLDING, Catalogue
from qmtl.services.dagmanager.faults import Faults
from qmtl.services.dagmanager.garbage import KEEPING, QueueTag
from qmtl.services.dagmanager.submission import drafted, submit
from qmtl.services.dagmanager.versions import active, weigh

BACKTESTS: Final = 20
"""Runs of the message, no two over the same data and range, that have to pass before it is deployed anywhere."""

STAGE_MS: Final = DAY_MS
"""How long a version has a share before it gets the next one."""

CANARY_SHARE: Final = FULL_WEIGHT // 10
HALF_SHARE: Final = FULL_WEIGHT // 2

KEPT_MS: Final = KEEPING[QueueTag.SENTINEL].stays_ms
"""A release that is over is remembered for as long as a version to which one can go back."""

_MESSAGES: Final = "dag.release.messages"
_FIRST: Final = "there was no version beside which it could have had a part"


# ---- what is commanded ---------------------------------------------------------------------------------------------------


def start(act: Act, message: StartRelease, faults: Faults) -> str:
    """Begin a release: its message is judged as a submission of it would be, and nothing of it is created.

    Args:
        faults: what is known to be wrong with the command already, which is told with the rest.

    Raises:
        InvalidDag: a submission would be refused, or there are faults; with every reason.
        ReleaseActive: another one of the strategy is under way.
        CommandRefused: the version has traffic already, or another one waits for its topics, or nobody has said a context, or another world
            has it for its own.
    """
    asked = DagSubmission(message.command_id, message.world_id, message.dag_json, act.at_ms, CANARY_SHARE)
    graph, draft = drafted(act.catalogue, asked, faults, prescan=act.prescan)
    context.require_said(act, message.world_id)
    world_id, strategy_id = message.world_id, graph.strategy_id
    if (other := act.catalogue.release_of(world_id, strategy_id)) is not None:
        raise ReleaseActive(
            f"release {other.release_id} of version {other.version} of the strategy is under way ({other.stage.value}).",
            "Let it end, or abandon it with `qmtl service dagmanager release abandon`.",
        )
    if waiting := act.catalogue.pending_of(world_id, strategy_id):
        raise CommandRefused(
            f"version {waiting[0]} of the strategy waits for its topics.", "Begin once it is active."
        )
    now = [one.sentinel_id for one in active(act.catalogue, world_id, strategy_id)]
    if draft.sentinel.sentinel_id in now:
        raise CommandRefused(f"version {draft.sentinel.sentinel_id} has traffic already.")
    digest = blake3_hex(message.dag_json)
    unread = lint.unread(graph)
    release = Release(
        message.command_id,
        world_id,
        strategy_id,
        graph.version,
        digest,
        ReleaseStage.BACKTESTS,
        act.at_ms,
        now[0] if now else "",
        unread=tuple(unread[: lint.SHOWN]),
    )
    act.step.table(_MESSAGES).put(ReleaseMessage(release.release_id, message.dag_json))
    act.catalogue.put_release(release)
    told = f"version {graph.version} of {world_id}/{strategy_id} is deployed after {BACKTESTS} backtests"
    told += f"; {warning}" if (warning := lint.warning(unread)) else ""
    act.note(AdminAct.RELEASED, release.release_id, detail=told, digest=digest)
    return f"release {release.release_id}: {told}"


def report(act: Act, message: ReportBacktest) -> str:
    """Take the outcome of a backtest: with the last one that is needed the version is deployed, one that failed ends the release.

    One that passed counts once by its id and once by what it ran over. Said again it changes nothing.

    Raises:
        OtherMessage: it ran another message.
        ReusedId: another backtest has its id.
        RepeatedBacktest: another backtest ran over the same data and range.
        CommandRefused: there is no such release, or it is over; or the report does not say what was run.
    """
    release = _under_way(act, message.release_id)
    require_told(message)
    if message.digest != release.digest:
        raise OtherMessage(
            f"digest was the text {message.digest[:80]!a}; release {release.release_id} is of the message with {release.digest}.",
            "Run the message that was released, or release the one that was run.",
        )
    run = message.run_id
    if not message.passed:
        why = f"backtest {run!a} failed" + (f": {message.detail}" if message.detail else "")
        return _abandon(act, release, why)
    fresh = counted(release, message)
    if fresh is None:
        return f"backtest {run!a} has passed already"
    if len(release.runs) >= BACKTESTS:
        return f"release {release.release_id} has all its backtests already"
    release = replace(release, runs=(*release.runs, fresh))
    act.catalogue.put_release(release)
    if len(release.runs) < BACKTESTS:
        return f"{len(release.runs)} of {BACKTESTS} backtests have passed"
    return _deploy(act, release)


def abandon(act: Act, message: AbandonRelease) -> str:
    """Go no further with a release.

    Raises:
        CommandRefused: there is no such release, it is over, or no reason is given.
    """
    release = _under_way(act, message.release_id)
    require_text("reason", message.reason)
    return _abandon(act, release, message.reason)


# ---- what time and others do ---------------------------------------------------------------------------------------------


def mind(act: Act) -> None:
    """A tick: give the versions that have had their share for long enough the next one, and forget what was over long ago."""
    for release in act.catalogue.open_releases():
        if release.stage is not ReleaseStage.BACKTESTS:
            _advance(act, release)
        elif len(release.runs) >= BACKTESTS:
            _deploy(act, release)
        elif release.since_ms is None:
            act.catalogue.put_release(replace(release, since_ms=act.at_ms))
    for release_id, since_ms in act.catalogue.past_releases():
        row = act.catalogue.release(release_id) if since_ms is None else None
        if row is not None:
            act.catalogue.put_release(replace(row, since_ms=act.at_ms))
        elif since_ms is not None and act.at_ms - since_ms >= KEPT_MS:
            act.catalogue.drop_release(release_id)


def heed(act: Act) -> None:
    """Abandon the releases that somebody has crossed since this was asked last."""
    for release in act.catalogue.touched_releases():
        if why := _crossed(act.catalogue, release):
            _abandon(act, release, why)


def _crossed(catalogue: Catalogue, release: Release) -> str:
    """What has come in between; empty where the strategy's versions are as the release has left them."""
    world_id, strategy_id, mine = release.world_id, release.strategy_id, release.sentinel_id
    others = [one for one in catalogue.pending_of(world_id, strategy_id) if one != mine]
    if others:
        return f"version {others[0]} was deployed meanwhile"
    if not mine:
        now = [one.sentinel_id for one in active(catalogue, world_id, strategy_id)]
        if now == ([release.beside_id] if release.beside_id else []):
            return ""
        return f"the strategy's traffic had {release.beside_id or 'no version'}, and now has {', '.join(now) or 'none'}"
    version = catalogue.sentinel(mine)
    if version is None or version.status not in HOLDING:
        return f"version {mine} is {'gone' if version is None else version.status.value}"
    if version.traffic_weight != release.share:
        return (
            f"version {mine} has {_percent(version.traffic_weight)} and was given {_percent(release.share)}"
        )
    return ""


# ---- its stages ----------------------------------------------------------------------------------------------------------


def _deploy(act: Act, release: Release) -> str:
    """Submit the message as a canary; the first version of a strategy gets all, as there is nobody to have the rest."""
    submission_id, share = release.release_id, CANARY_SHARE if release.beside_id else FULL_WEIGHT
    rules = (context.require_cleared,) if release.beside_id else ()
    said = partial(context.require_said, world_id=release.world_id)
    if why := _held(act, (said, *rules)):
        return _wait(act, release, why)
    kept: ReleaseMessage | None = act.step.table(_MESSAGES).get(submission_id)
    if kept is None or act.step.table("dag.diffs").get(submission_id) is not None:
        return _abandon(act, release, f"a submission had its id, {submission_id}")
    submission = DagSubmission(submission_id, release.world_id, kept.dag_json, act.at_ms, share)
    outcome = submit(act, context.in_log(act.catalogue.context(), submission))
    if not outcome.accepted:
        return _abandon(act, release, f"its submission was refused: [{outcome.code}] {outcome.detail}")
    act.step.table(_MESSAGES).delete(submission_id)
    release = replace(release, sentinel_id=outcome.sentinel_id)
    detail = "" if release.beside_id else _FIRST
    return _enter(act, release, ReleaseStage.CANARY, share, None, detail)


def _advance(act: Act, release: Release) -> None:
    version = act.catalogue.sentinel(release.sentinel_id)
    if version is None or version.status is not SentinelStatus.ACTIVE:
        return
    if release.share == FULL_WEIGHT:
        _enter(act, release, ReleaseStage.DEPLOYED, FULL_WEIGHT, act.at_ms, _FIRST)
    elif release.since_ms is None:
        act.catalogue.put_release(replace(release, since_ms=act.at_ms))
    elif act.at_ms - release.since_ms >= STAGE_MS:
        if why := _held(act, (context.require_cleared,)):
            _wait(act, release, why)
            return
        is_canary = release.stage is ReleaseStage.CANARY
        stage = ReleaseStage.HALF if is_canary else ReleaseStage.DEPLOYED
        share = HALF_SHARE if is_canary else FULL_WEIGHT
        weigh(replace(act, cause=release.release_id), version, share)
        _enter(act, release, stage, share, act.at_ms)


def _enter(
    act: Act, release: Release, stage: ReleaseStage, share: int, since_ms: int | None, detail: str = ""
) -> str:
    act.catalogue.put_release(replace(release, stage=stage, share=share, since_ms=since_ms, detail=detail))
    told = f"{stage.value}: version {release.sentinel_id} gets {_percent(share)}"
    told += f", as {detail}" if detail else ""
    act.note(AdminAct.RELEASED, release.release_id, detail=told)
    return f"release {release.release_id} is in stage {told}"


def _held(act: Act, rules: Iterable[Callable[[Act], None]]) -> str:
    """Why it does not go on now, by the first of these rules that it breaks; empty where it may."""
    try:
        for rule in rules:
            rule(act)
    except CommandRefused as held:
        return held.what
    return ""


def _wait(act: Act, release: Release, why: str) -> str:
    detail = f"waits: {why}"
    if release.detail != detail:
        act.catalogue.put_release(replace(release, detail=detail))
        act.note(AdminAct.RELEASED, release.release_id, detail=detail)
    return f"release {release.release_id} {detail}"


def _abandon(act: Act, release: Release, why: str) -> str:
    if release.stage is ReleaseStage.BACKTESTS:
        act.step.table(_MESSAGES).delete(release.release_id)
    act.catalogue.put_release(replace(release, stage=ReleaseStage.ABANDONED, since_ms=None, detail=why))
    act.note(AdminAct.RELEASED, release.release_id, detail=f"abandoned: {why}")
    version = act.catalogue.sentinel(release.sentinel_id) if release.sentinel_id else None
    kept = version is not None and version.status in HOLDING
    left = f"; version {release.sentinel_id} keeps what it has" if kept else ""
    return f"release {release.release_id} was abandoned: {why}{left}"


# ---- what is said --------------------------------------------------------------------------------------------------------


def _under_way(act: Act, release_id: str) -> Release:
    row = act.catalogue.release(release_id)
    if row is None or row.stage.is_over:
        rule = "no release has that id" if row is None else f"that release is over ({row.stage.value})"
        raise CommandRefused(
            f"release_id was the text {release_id!a:.200}; {rule}.",
            "`qmtl service dagmanager release show` shows what there is.",
        )
    return row


def _percent(share: int) -> str:
    return f"{share / 100:g} %"
