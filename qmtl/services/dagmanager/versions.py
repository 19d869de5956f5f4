"""Which versions of a strategy have its traffic: deployed when their topics are there, split, swapped, taken back.

A strategy has one version, or two of which one is the canary. What changes does so in one row of `dag.strategies`, so that whoever
computes sees one state or the other; from which bucket on, `handover` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    Canary,
    PlannedNode,
    SentinelStatus,
    SentinelWeightUpdated,
    StrategyStatus,
    StrategyVersion,
    VersionSentinel,
)
from qmtl.services.dagmanager import context, handover
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.answers import answered, planned
from qmtl.services.dagmanager.catalogue import HOLDING, Catalogue


def plan_of(catalogue: Catalogue, *versions: VersionSentinel) -> tuple[PlannedNode, ...]:
    """What has to be computed for these versions: of each its nodes in its order, but those of the versions before.

    Raises:
        InvariantBroken: a node has no topic.
    """
    before: set[str] = set()
    plan: list[PlannedNode] = []
    for version in versions:
        plan += [
            _planned(catalogue, version, node_id, name)
            for node_id, name in zip(version.node_ids, version.names, strict=True)
            if node_id not in before
        ]
        before.update(version.node_ids)
    return tuple(plan)


def _planned(catalogue: Catalogue, version: VersionSentinel, node_id: str, name: str) -> PlannedNode:
    node = catalogue.node(node_id)
    if node is None:
        raise InvariantBroken(f"node {node_id} of version {version.sentinel_id} is not known.")
    return planned(node, catalogue.queue_of(node_id), name, node.owner != version.sentinel_id)


def deployment(
    catalogue: Catalogue, stable: VersionSentinel, canary: VersionSentinel | None = None
) -> StrategyVersion:
    """The row of a strategy that has these versions, which are active."""
    row = StrategyVersion(
        stable.world_id,
        stable.strategy_id,
        stable.version,
        stable.sentinel_id,
        stable.submission_id,
        StrategyStatus.READY,
        plan_of(catalogue, stable, *((canary,) if canary is not None else ())),
        stable.signals,
        None
        if canary is None
        else Canary(
            canary.version, canary.sentinel_id, canary.submission_id, canary.traffic_weight, canary.signals
        ),
    )
    return answered(catalogue, row)


def active(catalogue: Catalogue, world_id: str, strategy_id: str) -> Sequence[VersionSentinel]:
    """The versions that have a strategy's traffic: none, the one, or the one and its canary."""
    row = catalogue.strategy(world_id, strategy_id)
    if row is None:
        return ()
    ids = (row.sentinel_id,) if row.canary is None else (row.sentinel_id, row.canary.sentinel_id)
    return [_known(catalogue, one) for one in ids]


def require_may_have(act: Act, version: VersionSentinel, weight: int) -> None:
    """While something was found that another context had computed, and nobody has cleared it, hold every promotion.

    A promotion is what gives a version more of its strategy's traffic than it has, or was to get before. None is: what the stable version
    gets back from its canary, however it is said; and what a version gets of a strategy nobody has traffic of. (A return to a version
    that `was_stable` is none either; only a rollback says so.)

    Raises:
        PromotionHeld: that is to be done by giving the version this share.
    """
    now = active(act.catalogue, version.world_id, version.strategy_id)
    if not now:
        return
    stable, *canaries = now
    if version.sentinel_id == stable.sentinel_id:
        is_promoted = bool(canaries) and weight < stable.traffic_weight  # the canary gets the rest
    else:
        known = act.catalogue.sentinel(version.sentinel_id)
        has = known.traffic_weight if known is not None and known.status in HOLDING else 0
        is_promoted = weight > has
    if is_promoted:
        context.require_cleared(act)


def begin(act: Act, version: VersionSentinel) -> bool:
    """Let a version that is pending take its share, at once or as soon as all its topics are there; says whether it was at once.
    Versions of its strategy that wait for theirs wait no more."""
    late = pending(act.catalogue, version.world_id, version.strategy_id)
    at_once = all(map(act.catalogue.is_ready, version.node_ids))
    if at_once:
        activate(act, version)
    else:
        act.catalogue.put_sentinel(version, act.at_ms)
    for one in late:
        if one.sentinel_id != version.sentinel_id:
            retire(act, one)
    return at_once


def restate(act: Act, version: VersionSentinel, weight: int) -> None:
    """Let a version that is active or pending have this share, as if it came now: of two that are active the other one has the rest,
    and one that is alone keeps all. Versions of its strategy that wait for their topics wait no more."""
    supersede(act, version)
    if version.status is SentinelStatus.PENDING:
        if weight != version.traffic_weight:
            act.catalogue.put_sentinel(replace(version, traffic_weight=weight), act.at_ms)
    elif weight != version.traffic_weight:
        weigh(act, version, weight)


def activate(act: Act, version: VersionSentinel) -> None:
    """Give a version whose topics are all there its share: all of it where it is the first, or no canary."""
    now = active(act.catalogue, version.world_id, version.strategy_id)
    if not now or version.traffic_weight == FULL_WEIGHT:
        _settle(act, version, None, [one for one in now if one.sentinel_id != version.sentinel_id])
    else:
        _settle(act, now[0], version, now[1:])


def weigh(act: Act, version: VersionSentinel, weight: int) -> None:
    """Give an active version another share of what it shares with the other one, if there is one; with none or all of it, one of them
    is the only one left."""
    stable, *canaries = active(act.catalogue, version.world_id, version.strategy_id)
    if not canaries:
        return
    (canary,) = canaries
    share = weight if version.sentinel_id == canary.sentinel_id else FULL_WEIGHT - weight
    if share == FULL_WEIGHT:
        _settle(act, canary, None, [stable])
    elif share:
        _settle(act, stable, replace(canary, traffic_weight=share), [])
    else:
        _settle(act, stable, None, [canary])


def retire_all(act: Act, world_id: str, strategy_id: str) -> None:
    """Take a strategy out of its world: nothing is computed for it any more."""
    row = act.catalogue.strategy(world_id, strategy_id)
    stable, *canaries = active(act.catalogue, world_id, strategy_id) or (None,)
    if stable is not None:
        retire(act, replace(stable, was_stable=True))
    for one in canaries:
        retire(act, one)
    for known in pending(act.catalogue, world_id, strategy_id):
        retire(act, known)
    if row is not None:
        gone = replace(
            row, status=StrategyStatus.RETIRED, nodes=(), signals=(), canary=None, found=(), crowded=()
        )
        handover.put(act, gone)


def pending(catalogue: Catalogue, world_id: str, strategy_id: str) -> list[VersionSentinel]:
    """The versions of a strategy that wait for their topics."""
    return [
        _known(catalogue, one.sentinel_id)
        for one in catalogue.versions()
        if (one.world_id, one.strategy_id, one.status) == (world_id, strategy_id, SentinelStatus.PENDING)
    ]


def supersede(act: Act, version: VersionSentinel) -> None:
    """Let the other versions of its strategy that wait for their topics wait no more: what is said of this one is newer."""
    for one in pending(act.catalogue, version.world_id, version.strategy_id):
        if one.sentinel_id != version.sentinel_id:
            retire(act, one)


def fail(act: Act, version: VersionSentinel, detail: str) -> None:
    """Give up a version of which a topic can't be made."""
    act.catalogue.put_sentinel(replace(version, status=SentinelStatus.FAILED), act.at_ms)
    act.note(AdminAct.NOT_CREATED, version.sentinel_id, detail=detail)


def _settle(
    act: Act, stable: VersionSentinel, canary: VersionSentinel | None, gone: Sequence[VersionSentinel]
) -> None:
    """From now on a strategy has these versions, and no longer those that go; one of these that was stable is one to return to, unless
    this is a return."""
    is_return = stable.was_stable
    before = active(act.catalogue, stable.world_id, stable.strategy_id)
    left = before[0].sentinel_id if before else ""
    share = FULL_WEIGHT if canary is None else FULL_WEIGHT - canary.traffic_weight
    stable = _give(act, stable, share)
    canary = None if canary is None else _give(act, canary, canary.traffic_weight)
    for one in gone:
        retire(act, replace(one, was_stable=one.sentinel_id == left and not is_return))
    _deploy(act, deployment(act.catalogue, stable, canary))


def answer_anew(act: Act) -> None:
    """Write the rows of the strategies whose tag queries have other answers since this was asked last."""
    for world_id, strategy_id in act.catalogue.tag_queries.changed():
        row = deployment(act.catalogue, *active(act.catalogue, world_id, strategy_id))
        if not handover.is_as(act.catalogue.strategy(world_id, strategy_id), row):
            _deploy(act, row)


def _deploy(act: Act, row: StrategyVersion) -> None:
    before = act.catalogue.strategy(row.world_id, row.strategy_id)
    for query in row.crowded:
        if before is None or query not in before.crowded:
            detail = f"{row.world_id}/{row.strategy_id} has the answers that it had: a row can't name all that there are"
            act.note(AdminAct.CROWDED, query, query, detail)
    handover.put(act, row)


def _give(act: Act, version: VersionSentinel, weight: int) -> VersionSentinel:
    known = act.catalogue.sentinel(version.sentinel_id)
    is_active = known is not None and known.status is SentinelStatus.ACTIVE
    now = replace(
        version,
        status=SentinelStatus.ACTIVE,
        traffic_weight=weight,
        retired_at_ms=None,
        was_stable=False,
        active_since_ms=known.active_since_ms if known is not None and is_active else act.step.closed_ms,
    )
    if now == known:
        return now
    act.catalogue.put_sentinel(now, act.at_ms)
    act.note(AdminAct.WEIGHED if is_active else AdminAct.ACTIVATED, now.sentinel_id, detail=str(weight))
    _tell(act, now, weight)
    return now


def retire(act: Act, version: VersionSentinel) -> None:
    """Make a version one that is only to go back to."""
    had = version.status is SentinelStatus.ACTIVE
    act.catalogue.put_sentinel(replace(version, status=SentinelStatus.RETIRED), act.at_ms)
    act.note(AdminAct.RETIRED, version.sentinel_id)
    if had:
        _tell(act, version, 0)


def _tell(act: Act, version: VersionSentinel, weight: int) -> None:
    etag = f"sw:{version.sentinel_id}:{weight}:{act.cause}"
    act.step.emit(
        "sentinel_weight",
        SentinelWeightUpdated(
            "SentinelWeightUpdated",
            version.sentinel_id,
            version.world_id,
            version.strategy_id,
            version.version,
            weight,
            etag,
            act.ts,
        ),
    )


def _known(catalogue: Catalogue, sentinel_id: str) -> VersionSentinel:
    found = catalogue.sentinel(sentinel_id)
    if found is None:
        raise InvariantBroken(f"version {sentinel_id} is deployed and not known.")
    return found
