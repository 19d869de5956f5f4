"""Commands to the DAG Manager: each is decided once, and its outcome is the answer to whoever sent it."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.errors import CommandRefused, InvalidDag, InvalidName, PromotionHeld, ReusedId
from qmtl.foundation.common.ids import fault_of
from qmtl.foundation.contracts.context import ClearContextHits, SetComputeContext
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    CollectGarbage,
    DagCommand,
    DagCommandOutcome,
    DagSubmission,
    RedoDiff,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
    VersionSentinel,
)
from qmtl.foundation.contracts.release import AbandonRelease, ReportBacktest, StartRelease
from qmtl.foundation.contracts.retention import SetRetention
from qmtl.foundation.wire.registry import codec
from qmtl.services.dagmanager import context, expiry, garbage, release, repeats
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.catalogue import HOLDING, OVER, Catalogue
from qmtl.services.dagmanager.faults import Faults
from qmtl.services.dagmanager.queues import ask_for, lacking
from qmtl.services.dagmanager.rewritten import message_of
from qmtl.services.dagmanager.submission import submit
from qmtl.services.dagmanager.versions import (
    active,
    begin,
    pending,
    require_may_have,
    restate,
    retire,
    retire_all,
    weigh,
)


def command(act: Act, message: DagCommand, record: bytes | None = None) -> None:
    """Decide on a command; one that comes again decides nothing more, and other content under its id is refused."""
    digest = blake3_hex(codec.encode(message) if record is None else record)
    known: DagCommandOutcome | None = act.step.table("dag.outcomes").get(message.command_id)
    if known is not None:
        try:
            repeats.require_same(known.request_digest, message)
        except ReusedId as error:
            repeats.note(act, message, error, digest)
        return
    decided_ms, content = expiry.decided_ms(act, message.issued_at_ms), repeats.content_digest(message)
    try:
        expiry.require_in_time(act, message.issued_at_ms)
        told = _decide(act, message, _ids(message))
        outcome = DagCommandOutcome(message.command_id, True, "", told, decided_ms, content)
    except (CommandRefused, InvalidDag) as error:
        outcome = DagCommandOutcome(message.command_id, False, error.code, str(error), decided_ms, content)
    act.catalogue.outcomes.put(outcome)
    act.note(AdminAct.COMMANDED, message.command_id, detail=outcome.detail, digest=digest)


def _ids(message: DagCommand) -> Faults:
    """What is wrong with the ids of a command."""
    faults = Faults()
    ids = {"command_id": message.command_id}
    if isinstance(message, StartRelease) or (
        isinstance(message, SetComputeContext) and not message.shared_worlds  # which is of no world
    ):
        ids["world_id"] = message.world_id
    for field, text in ids.items():
        if (fault := fault_of(field, text)) is not None:
            faults.add_told(InvalidName, fault.path, fault.was, fault.rule, fault.remedy)
    return faults


def _decide(act: Act, message: DagCommand, faults: Faults) -> str:
    """Do what is commanded, and say what was done.

    Args:
        faults: of its ids; those of a message in it are told with them.

    Raises:
        CommandRefused, InvalidDag: it can't be; nothing was done.
    """
    if not isinstance(message, StartRelease):
        faults.refuse_any()
    match message:
        case SetTrafficWeight():
            return _weigh(act, message)
        case RollBack():
            return _roll_back(act, message)
        case RedoDiff():
            return _redo(act, message)
        case RetireStrategy():
            return _retire(act, message)
        case CollectGarbage():
            return _collect(act, message)
        case SetComputeContext():
            return context.say(act, message)
        case ClearContextHits():
            return context.clear(act, message)
        case StartRelease():
            return release.start(act, message, faults)
        case ReportBacktest():
            return release.report(act, message)
        case AbandonRelease():
            return release.abandon(act, message)
        case SetRetention():
            return expiry.say(act, message)
        case _:
            assert_never(message)


def _weigh(act: Act, message: SetTrafficWeight) -> str:
    weight = message.traffic_weight
    if not 0 <= weight <= FULL_WEIGHT:
        raise CommandRefused(
            f"traffic_weight was the number {weight}; basis points from 0 to {FULL_WEIGHT} are required.",
            "Send 1000 for a tenth of the traffic.",
        )
    version = _known(act, message.sentinel_id)
    if version.status in HOLDING:
        require_may_have(act, version, weight)
    if version.status is SentinelStatus.PENDING:
        if not weight:
            retire(act, version)
            return f"version {version.sentinel_id} was given up before it was active"
        restate(act, version, weight)
        return f"version {version.sentinel_id} gets {_percent(weight)} once its topics are there"
    if version.status is not SentinelStatus.ACTIVE:
        raise CommandRefused(
            f"version {version.sentinel_id} is {version.status.value}; only a version that has traffic can have more or less.",
            "Roll back to it with `qmtl service dagmanager redo-diff --rollback`, or publish it again.",
        )
    is_alone = len(active(act.catalogue, version.world_id, version.strategy_id)) == 1
    if weight == FULL_WEIGHT:
        restate(act, version, weight)
        already = " already" if is_alone else ""
        return f"version {version.sentinel_id} has all of the traffic{already}"
    if is_alone:
        raise CommandRefused(
            f"version {version.sentinel_id} is the only one of its strategy; nobody would get the rest of the traffic.",
            "Publish another version as a canary, or retire the strategy.",
        )
    weigh(act, version, weight)
    return f"version {version.sentinel_id} has {_percent(weight)}"


def _roll_back(act: Act, message: RollBack) -> str:
    version = _known(act, message.sentinel_id)
    if not version.was_stable and version.status is not SentinelStatus.FAILED:
        require_may_have(act, version, FULL_WEIGHT)
    if version.status is SentinelStatus.ACTIVE:
        is_alone = len(active(act.catalogue, version.world_id, version.strategy_id)) == 1
        restate(act, version, FULL_WEIGHT)
        again = "" if is_alone else " again"
        return f"version {version.sentinel_id} is the active one{again}"
    if version.status is SentinelStatus.FAILED:
        raise CommandRefused(
            f"version {version.sentinel_id} was never active: a topic of it could not be made.",
            "Publish it again.",
        )
    context.require_admitted(act, version.world_id)
    return _deploy(act, version)


def _redo(act: Act, message: RedoDiff) -> str:
    version = _known(act, message.sentinel_id)
    context.require_said(act, version.world_id)
    again = DagSubmission(
        message.command_id,
        version.world_id,
        message_of(act.catalogue, version, message.version),
        message.issued_at_ms,
    )
    outcome = submit(act, context.in_log(act.catalogue.context(), again))
    if outcome.code == PromotionHeld.code:
        context.require_cleared(act)
    if not outcome.accepted:
        raise CommandRefused(
            f"version {version.sentinel_id} can't be deployed anew: [{outcome.code}] {outcome.detail}"
        )
    return f"version {outcome.sentinel_id} takes over with {len(outcome.new_nodes)} new nodes"


def _deploy(act: Act, version: VersionSentinel) -> str:
    """Make a version the only one of its strategy, as soon as all its topics are there; those that were removed are made anew."""
    for node in map(act.catalogue.node, dict.fromkeys(version.node_ids)):
        queue = None if node is None else lacking(act.catalogue, node, version.version)
        if queue is not None:
            ask_for(act, queue)
    again = replace(version, status=SentinelStatus.PENDING, traffic_weight=FULL_WEIGHT, retired_at_ms=None)
    if begin(act, again):
        return f"version {again.sentinel_id} is the active one again"
    return f"version {again.sentinel_id} is active again once its topics are there"


def _retire(act: Act, message: RetireStrategy) -> str:
    world_id, strategy_id = message.world_id, message.strategy_id
    if not active(act.catalogue, world_id, strategy_id) and not pending(act.catalogue, world_id, strategy_id):
        raise CommandRefused(
            f"strategy {strategy_id!a:.200} is not deployed in world {world_id!a:.200}.",
            "`qmtl dag list` shows what is.",
        )
    retire_all(act, world_id, strategy_id)
    return f"strategy {strategy_id} was taken out of world {world_id}"


def _collect(act: Act, message: CollectGarbage) -> str:
    among = None
    if message.sentinel:
        meant = frozenset(_named(act.catalogue, message.sentinel))
        chosen = [
            one.sentinel_id
            for one in act.catalogue.versions()
            if one.sentinel_id in meant and one.status in OVER
        ]
        if not chosen:
            raise CommandRefused(
                f"sentinel was the text {message.sentinel!a:.200}; no version that is retired or failed has it as its id, version or release tag.",
                "`qmtl state dag.sentinels` shows what there is.",
            )
        rows = (act.catalogue.sentinel(one) for one in chosen)
        among = frozenset(node_id for row in rows if row is not None for node_id in row.node_ids)
    if not act.step.closed_ms:
        return "nothing is removed before the clock's first tick"
    garbage.stamp(act)
    archived = garbage.archive(act, among=among, at_once=True)
    count = garbage.collect(act, among=among, at_once=True)
    gone = {} if message.sentinel else expiry.mind(act)
    told = "".join(f", {number} rows of {table} went" for table, number in gone.items())
    before = f", {archived} are being archived" if archived else ""
    return f"{count} queues are being removed{before}{told}"


def _known(act: Act, text: str) -> VersionSentinel:
    """The one version that a text means.

    Raises:
        CommandRefused: none, or several.
    """
    meant = _named(act.catalogue, text)
    found = act.catalogue.sentinel(meant[0]) if len(meant) == 1 else None
    if found is None:
        rule = _candidates(meant) if meant else "no version has that id, version or release tag"
        raise CommandRefused(
            f"sentinel_id was the text {text!a:.200}; {rule}.",
            "Give an id; `qmtl service dagmanager sentinels` shows what there is.",
        )
    return found


def _named(catalogue: Catalogue, text: str) -> list[str]:
    """The ids of the versions that a text means: the one that has it as its id, or all that have it as their version or release tag; of
    these the ones that failed only where there are no others.

    Raises:
        CommandRefused: it is the version of some and the release tag of others.
    """
    if catalogue.sentinel(text) is not None:
        return [text]
    meant = [one for one in catalogue.versions() if text in (one.label, one.release_tag or one.label)]
    meant = [one for one in meant if one.status is not SentinelStatus.FAILED] or meant
    labelled = [one.sentinel_id for one in meant if one.label == text]
    tagged = [one.sentinel_id for one in meant if one.release_tag == text] if text else []
    if labelled and tagged and labelled != tagged:
        raise CommandRefused(
            f"sentinel was the text {text!a:.200}; it is the version of some, and the release tag of others: "
            f"{_candidates(sorted({*labelled, *tagged}))}.",
            "Give an id.",
        )
    return labelled or tagged


def _candidates(ids: list[str]) -> str:
    shown = ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
    return f"it means {shown}"


def _percent(weight: int) -> str:
    return f"{weight / 100:g} %"
