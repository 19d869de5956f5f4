"""In which context the log computes, as it was said; and what the node workers found that another context had computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from qmtl.foundation.common.compute_context import (
    DOMAIN_OF_MODE,
    ComputeContext,
    Downgrade,
    ExecutionDomain,
    SafeContext,
    domain_of,
)
from qmtl.foundation.common.errors import CommandRefused, InvalidName, InvalidParameter, PromotionHeld
from qmtl.foundation.common.ids import fault_of, require_id
from qmtl.foundation.contracts.context import (
    ALL_WORLDS,
    THE_CONTEXT,
    ClearContextHits,
    LogContext,
    NodeContext,
    SaidContext,
    SetComputeContext,
)
from qmtl.foundation.contracts.dag import AdminAct, DagSubmission
from qmtl.foundation.contracts.diff import DiffRequest
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.catalogue import HOLDING
from qmtl.services.dagmanager.faults import Faults

MAX_TEXT: Final = 400
"""Characters of a part of a context, and of a reason."""

SHUT_OUT: Final = (
    "Give the world a namespace of its own (`kafka://HOST:PORT/WORLD.DOMAIN`), or let all worlds share what is computed"
    " (`qmtl service dagmanager context set --shared-worlds`)."
)
"""What to do for a world that has no part in what is computed on a log."""

Request = TypeVar("Request", DagSubmission, DiffRequest)

_PARTS: Final = ("as_of", "partition", "dataset_fingerprint")


def say(act: Act, message: SetComputeContext) -> str:
    """Let everything be computed in this context from now on.

    Raises:
        CommandRefused: it names no domain, or could be granted in safe mode only: nothing of it might be kept. Or it shuts out a world of
            which something is deployed, or names a world and shares all.
        InvalidName: its world is no id.
    """
    if not message.shared_worlds:
        require_id("world_id", message.world_id)
    elif message.world_id:
        raise CommandRefused(
            f"world_id was the text {message.world_id[:80]!a} and shared_worlds was true; a context that all worlds share is no world's own.",
            "Say one of the two.",
        )
    for name in _PARTS:
        _require_short(name, getattr(message, name))
    domain = domain_of(message.execution_domain)
    if domain is None:
        raise CommandRefused(
            f"execution_domain was the text {message.execution_domain[:80]!a}; no domain has that name.",
            f"There are {', '.join(DOMAIN_OF_MODE)}.",
        )
    said = SaidContext(
        ALL_WORLDS if message.shared_worlds else message.world_id,
        domain,
        message.as_of,
        message.partition,
        message.dataset_fingerprint,
        message.shared_worlds,
    )
    downgrade = granted(None, said.read()).downgrade
    if downgrade is not None:
        raise CommandRefused(
            f"a context of {domain.value} without as_of is in safe mode ({downgrade.value}): nothing of it may be kept.",
            "Say as_of, the state of the dataset.",
        )
    known = act.catalogue.context()
    if known is not None and _is_as(known.context, said):
        return f"all is computed in {told(known.context)} already"
    _require_no_other(act, said)
    row = LogContext(THE_CONTEXT, said, act.at_ms)
    if known is not None:
        row = replace(known, context=said, since_ms=act.at_ms)
    act.catalogue.put_context(row)
    return f"all is computed in {told(said)} from now on"


def _is_as(known: SaidContext, said: SaidContext) -> bool:
    """Whether a context is what holds; one that worlds share is, whatever world a row of old names."""
    return known == (replace(said, world_id=known.world_id) if said.shared_worlds else said)


def _require_no_other(act: Act, said: SaidContext) -> None:
    """Whatever is deployed is computed in the context of the log, so a world's own one comes when nothing of another world is.

    Raises:
        CommandRefused: something is.
    """
    for one in act.catalogue.versions():
        if one.status in HOLDING and not said.admits(one.world_id):
            raise CommandRefused(
                f"version {one.sentinel_id} of another world than {said.world_id} is deployed, and would go on in a context that is not its own.",
                "Retire what other worlds have here (`qmtl service dagmanager retire`), or let them share (`--shared-worlds`).",
            )


def begin(act: Act, safe: SafeContext) -> str:
    """Let what is deployed first say the context of the log, its world's own, in the step that deploys it: no other one comes in between.

    Returns: what the audit is told of it; empty where a context was said before.
    """
    if act.catalogue.context() is not None:
        return ""
    one = safe.context
    said = SaidContext(
        one.world_id, safe.execution_domain, one.as_of, one.partition, one.dataset_fingerprint, False
    )
    act.catalogue.put_context(LogContext(THE_CONTEXT, said, act.at_ms))
    return f"all is computed in {told(said)} from now on"


def in_log(row: LogContext | None, request: Request) -> Request:
    """A request whose sender means the context of the log; as it is while nobody has said one.

    Whoever sends it says so: what comes without a context is of none.
    """
    if row is None:
        return request
    said = row.context
    return replace(
        request,
        execution_domain=said.execution_domain.value,
        as_of=said.as_of,
        partition=said.partition,
        dataset_fingerprint=said.dataset_fingerprint,
    )


def require_said(act: Act, world_id: str) -> None:
    """Nothing is deployed by the DAG Manager itself in no context, or for a world in another one's.

    Raises:
        CommandRefused: nobody has said one, or it is another world's own.
    """
    if act.catalogue.context() is None:
        raise CommandRefused(
            f"no context was said on this log; what is deployed would be in safe mode ({Downgrade.DECISION_UNAVAILABLE.value}).",
            "Say one with `qmtl service dagmanager context set`, or by publishing with --domain.",
        )
    require_admitted(act, world_id)


def require_admitted(act: Act, world_id: str) -> None:
    """Nothing is deployed for a world in the context of another one.

    Raises:
        CommandRefused: the context is another world's own.
    """
    if why := shut_out(act.catalogue.context(), world_id):
        raise CommandRefused(f"{why}.", SHUT_OUT)


def shut_out(row: LogContext | None, world_id: str) -> str:
    """Why a world has no part in what is computed here; empty where it has one."""
    if row is None or row.context.admits(world_id):
        return ""
    return f"what is computed on this log is world {row.context.world_id}'s own, not world {world_id[:80]}'s"


def clear(act: Act, message: ClearContextHits) -> str:
    """Let nothing be held up any more by what was found until now.

    Raises:
        CommandRefused: there is nothing, or no reason is given.
    """
    _require_short("reason", message.reason)
    if not message.reason.strip():
        raise CommandRefused("reason was empty; a word on the cause is required.", "Say what it was.")
    row = act.catalogue.context()
    if row is None or not row.uncleared:
        raise CommandRefused("there are no cross-context hits that nobody has cleared.")
    act.catalogue.put_context(replace(row, cleared=sum(row.hits)))
    return f"{row.uncleared} cross-context hits were cleared: {message.reason}"


def hear(act: Act, message: NodeContext) -> None:
    """Take what a shard has found; said again, or late, it changes nothing."""
    row = act.catalogue.context()
    if row is None or message.shard < 0:
        return
    known = row.hits + (0,) * (message.shard + 1 - len(row.hits))
    more = message.hits - known[message.shard]
    if more <= 0:
        return
    hits = (*known[: message.shard], message.hits, *known[message.shard + 1 :])
    act.catalogue.put_context(replace(row, hits=hits))
    some = ", ".join(message.last_hits)
    detail = f"shard {message.shard} met {more} times what another context had computed, of {some}"
    act.note(AdminAct.CROSSED, f"node.context/{message.shard}", detail=detail)


def require_cleared(act: Act) -> None:
    """Nothing is promoted while something was found that another context had computed.

    Raises:
        PromotionHeld: and nobody has cleared it.
    """
    row = act.catalogue.context()
    if row is not None and row.uncleared:
        raise PromotionHeld(
            f"{row.uncleared} times a node met what another context had computed, and nobody has cleared that.",
            "Find the cause (docs/runbooks/cross-context-hit.md), then `qmtl service dagmanager context clear --reason ...`.",
        )


def granted(row: LogContext | None, asked: ComputeContext) -> SafeContext:
    """What is granted to a context that somebody asks for, on a log that computes in this one: every decision on it is made here.

    The world is a part of it like every other one, but on a log whose worlds share what is computed.
    """
    safe = asked.evaluate_safe_mode()
    if safe.safe_mode or row is None:
        return safe
    said = row.context
    if said.admits(asked.world_id) and replace(said.read(), world_id=asked.world_id) == asked:
        return safe
    backtest = replace(asked, execution_domain=ExecutionDomain.BACKTEST)
    return SafeContext(backtest, ExecutionDomain.BACKTEST, Downgrade.OTHER_CONTEXT)


def evaluated(row: LogContext | None, message: DiffRequest | DagSubmission, faults: Faults) -> SafeContext:
    """What is granted to the context of a request or a submission: the one place where that is asked.

    Whatever is not said is missing, also on a log whose context is known: `ComputeContext.evaluate_safe_mode` says what comes of that.

    Args:
        faults: takes a domain that there is not, a world that is no id, and parts that are too long.
    """
    domain = None
    if message.execution_domain.strip():
        domain = domain_of(message.execution_domain)
        if domain is None:
            faults.add(
                InvalidParameter,
                "execution_domain",
                message.execution_domain,
                "no domain has that name",
                f"There are {', '.join(DOMAIN_OF_MODE)}.",
            )
    fault = fault_of("world_id", message.world_id) if message.world_id else None
    if fault is not None:
        faults.add_told(InvalidName, fault.path, fault.was, fault.rule, fault.remedy)
    for name in _PARTS:
        if len(getattr(message, name)) > MAX_TEXT:
            rule = f"at most {MAX_TEXT} characters are allowed"
            faults.add(InvalidParameter, name, getattr(message, name), rule, "Shorten it.")
    if not message.world_id.strip():  # nobody has decided anything for no world
        return granted(row, ComputeContext("nowhere", None))
    asked = ComputeContext(
        message.world_id, domain, message.as_of, message.partition, message.dataset_fingerprint
    )
    return granted(row, asked)


def told(said: SaidContext) -> str:
    """A context in words."""
    more = {
        "as_of": said.as_of,
        "partition": said.partition,
        "dataset_fingerprint": said.dataset_fingerprint,
    }
    parts = [f"{name} {value}" for name, value in more.items() if value]
    whose = f"{said.world_id}/{said.execution_domain.value}"
    shared = ["shared by all worlds"] if said.shared_worlds and said.world_id != ALL_WORLDS else []
    return ", ".join([whose, *parts, *shared])


def _require_short(name: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise CommandRefused(
            f"{name} was a text of {len(text)} characters; at most {MAX_TEXT} are allowed.", "Shorten it."
        )
