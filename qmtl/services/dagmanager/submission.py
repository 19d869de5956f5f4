"""A submission: refused with its reasons, or written down whole, and deployed as soon as all its topics are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, assert_never

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.compute_context import Downgrade, SafeContext
from qmtl.foundation.common.errors import (
    DagTooLarge,
    InvalidDag,
    InvalidName,
    PromotionHeld,
    ReusedId,
    RolloutActive,
    TagsTooCommon,
    TooLarge,
    TooLate,
)
from qmtl.foundation.common.ids import fault_of
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    Canary,
    ComputeNode,
    DagOutcome,
    DagSubmission,
    Edge,
    Queue,
    Relation,
    SentinelStatus,
    StrategyStatus,
    StrategyVersion,
    VersionSentinel,
)
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.foundation.wire.registry import codec
from qmtl.services.dagmanager import artifacts, context, expiry, repeats
from qmtl.services.dagmanager.act import LAST_MS, Act
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.answers import Answers, answers_in, planned, with_answers
from qmtl.services.dagmanager.buffering import change_schema, is_buffering
from qmtl.services.dagmanager.catalogue import HOLDING, Catalogue, is_usable
from qmtl.services.dagmanager.faults import Faults, lines, spelled
from qmtl.services.dagmanager.feedback import check_world
from qmtl.services.dagmanager.graph import Graph
from qmtl.services.dagmanager.naming import asset_of
from qmtl.services.dagmanager.prescan import Prescan
from qmtl.services.dagmanager.queues import ask_for, lacking
from qmtl.services.dagmanager.tag_queries import MAX_ANSWERS
from qmtl.services.dagmanager.versions import begin, require_may_have, restate

MAX_TAGGED: Final = 4_000
"""Queues with the same tags at the same interval: so that an event that names them all is a record, however long they are named."""

LONGEST_ID: Final = 140
"""Bytes of a node id at most: one that had to be hashed again is twice as long as others."""

_REST: Final = 400
"""Bytes at most of what else there is of a node in a plan: its topic, its type, numbers."""

_LATER: Final = "_v99999"
"""What may stand behind the name of a topic one day: a plan has room for it from the beginning."""

_SURELY_SHORT: Final = MAX_VALUE_BYTES // 2
"""Bytes at most of the long parts of a row whose other parts have room in any case."""

_WIDEST: Final = 4
"""Bytes of a character at most."""


def submit(act: Act, submission: DagSubmission, record: bytes | None = None) -> DagOutcome:
    """Decide on a submission; one that comes again decides nothing more. Returns what was decided.

    Args:
        record: the submission as it lies on the log; None where the DAG Manager has made it itself.
    """
    digest = blake3_hex(codec.encode(submission) if record is None else record)
    known: DagOutcome | None = act.step.table("dag.diffs").get(submission.submission_id)
    if known is not None:
        try:
            repeats.require_same(known.request_digest, submission)
        except ReusedId as error:
            repeats.note(act, submission, error, digest)
            return _refused(submission, error.code, str(error))
        return known
    try:
        expiry.require_in_time(act, submission.submitted_at_ms)
        faults = Faults()
        if (fault := fault_of("submission_id", submission.submission_id)) is not None:
            faults.add_told(InvalidName, fault.path, fault.was, fault.rule, fault.remedy)
        safe = context.evaluated(act.catalogue.context(), submission, faults)
        graph, draft = drafted(act.catalogue, submission, faults, prescan=act.prescan)
        if not (safe.may_mark_versions and safe.may_reuse):
            return _leave_alone(act, submission, graph, safe, digest)
        require_may_have(act, draft.sentinel, submission.weight_bp)
        told = context.begin(act, safe)
        return _write_down(act, submission, graph, draft, told, digest)
    except InvalidDag as error:
        refused = _refused(submission, error.code, lines(error.reasons, error.more))
    except (PromotionHeld, TooLate) as error:
        refused = _refused(submission, error.code, str(error))
    return _note(act, submission, refused, f"refused: {refused.code}", digest)


def _note(act: Act, submission: DagSubmission, outcome: DagOutcome, told: str, digest: str) -> DagOutcome:
    """Write down what becomes of a submission.

    Args:
        digest: of the whole submission.
    """
    outcome = replace(
        outcome,
        decided_ms=expiry.decided_ms(act, submission.submitted_at_ms),
        request_digest=repeats.content_digest(submission),
    )
    act.catalogue.outcomes.put(outcome)
    subject = outcome.sentinel_id or submission.submission_id
    act.note(AdminAct.DIFFED, subject, detail="request", digest=digest)
    act.note(AdminAct.DIFFED, subject, detail=f"response: {told}", digest=blake3_hex(codec.encode(outcome)))
    return outcome


def _leave_alone(
    act: Act, submission: DagSubmission, graph: Graph, safe: SafeContext, digest: str
) -> DagOutcome:
    """Take a submission in safe mode: the nodes of the log compute in no context but its own, so nothing is deployed for it."""
    why = "" if safe.downgrade is None else safe.downgrade.value
    told = f"safe mode ({why}): no version is marked, and nothing is deployed"
    if safe.downgrade is Downgrade.OTHER_CONTEXT and (
        shut_out := context.shut_out(act.catalogue.context(), submission.world_id)
    ):
        told += f"; {shut_out}. {context.SHUT_OUT}"
    outcome = DagOutcome(
        submission.submission_id,
        submission.world_id,
        graph.strategy_id,
        True,
        "",
        told,
        safe_mode=why,
    )
    return _note(act, submission, outcome, told, digest)


def drafted(
    catalogue: Catalogue,
    submission: DagSubmission,
    faults: Faults,
    strategy_id: str | None = None,
    prescan: Prescan | None = None,
) -> tuple[Graph, Draft]:
    """What a submission would write down, with the graph of its message; nothing is written.

    Args:
        faults: what is known to be wrong with it already.
        strategy_id: the strategy whose message it has to be; None for any.
        prescan: remembers what nodes say; None, nobody does.

    Raises:
        InvalidDag: it would be refused, or there are faults.
    """
    data, at_ms = submission.dag_json, submission.submitted_at_ms
    _check_weight(submission, faults)
    graph = None if prescan is None or faults.count else prescan.plain(data, at_ms, catalogue.node)
    if graph is None or strategy_id not in (None, graph.strategy_id):
        graph = admit(data, at_ms, catalogue.node, faults, strategy_id)
    _check_one_canary(catalogue, submission, graph, faults)
    artifacts.check_same(catalogue, graph.artifacts, faults)
    check_world(catalogue.context(), (one.node for one in graph.nodes), faults)
    draft = _draft(catalogue, submission, graph)
    _check_distinct(catalogue, draft, faults)
    answers = answers_in(catalogue, [one.node for one in graph.nodes])
    if _check_few_answers(graph, answers, faults):
        _check_room(catalogue, graph, draft, answers, faults)
    faults.refuse_any()
    return graph, draft


def _check_weight(submission: DagSubmission, faults: Faults) -> None:
    if not 1 <= submission.weight_bp <= FULL_WEIGHT:
        rule = f"a whole number of basis points from 1 to {FULL_WEIGHT} is required"
        remedy = "Send 1000 for a tenth of the traffic."
        faults.add(InvalidDag, "weight_bp", submission.weight_bp, rule, remedy)


def _check_one_canary(catalogue: Catalogue, submission: DagSubmission, graph: Graph, faults: Faults) -> None:
    """Two versions share a strategy's traffic, not three: no canary comes while another one is out."""
    row = catalogue.strategy(submission.world_id, graph.strategy_id)
    if submission.weight_bp == FULL_WEIGHT or row is None or row.canary is None:
        return
    mine = sentinel_id_of(submission.world_id, graph.strategy_id, graph.version, graph.commit_hash)
    if row.canary.sentinel_id != mine:
        faults.add_told(
            RolloutActive,
            "weight_bp",
            str(submission.weight_bp),
            f"version {row.canary.sentinel_id} is out as a canary, and a strategy has one at a time",
            "Give it all of the traffic, or none, and publish again.",
        )


def sentinel_id_of(world_id: str, strategy_id: str, version: str, commit_hash: str) -> str:
    """The id of a version of a strategy."""
    return f"{world_id}:{strategy_id}:{version}:{commit_hash[:16]}"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a submission would write down.

    Attributes:
        nodes: the ones that are new.
        queues: the ones to be asked for, in graph order.
        changed: nodes that are there and whose schema is another one from now on, or where their function is.
        there: by its place in the graph, what queue a node has already, whatever becomes of it.
    """

    sentinel: VersionSentinel
    outcome: DagOutcome
    nodes: tuple[ComputeNode, ...]
    queues: tuple[Queue, ...]
    changed: tuple[ComputeNode, ...] = ()
    there: Sequence[Queue | None] = ()


def _write_down(
    act: Act, submission: DagSubmission, graph: Graph, draft: Draft, began: str, digest: str
) -> DagOutcome:
    made, again = len(draft.outcome.new_nodes), len(draft.outcome.reused_nodes)
    told = f"{made} new, {again} reused" + (f"; {began}" if began else "")
    outcome = _note(act, submission, draft.outcome, told, digest)
    for collision in graph.collisions:
        act.note(AdminAct.COLLIDED, collision.node_id, collision.node_id, " ".join(collision.held))
    for node in draft.changed:
        change_schema(act, node)
    artifacts.write(act, graph.artifacts, draft.nodes)
    known = act.catalogue.sentinel(draft.sentinel.sentinel_id)
    tag = draft.sentinel.release_tag or (known.release_tag if known is not None else "")
    if known is not None and known.status in HOLDING:
        said = replace(known, release_tag=tag)
        if known.status is SentinelStatus.PENDING:
            said = replace(said, submission_id=submission.submission_id)
        if said != known:
            act.catalogue.put_sentinel(said, act.at_ms)
        restate(act, said, submission.weight_bp)
        return outcome
    for node in draft.nodes:
        act.catalogue.put_node(node)
    for queue in draft.queues:
        ask_for(act, queue)
    sentinel = draft.sentinel
    if known is not None:
        sentinel = replace(sentinel, created_at_ms=known.created_at_ms, release_tag=tag)
    if known is None:
        for node_id in dict.fromkeys(one.node_id for one in draft.nodes):
            act.step.table("dag.edges").put(Edge(Relation.HAS, sentinel.sentinel_id, node_id))
    begin(act, sentinel)
    return outcome


def _draft(catalogue: Catalogue, submission: DagSubmission, graph: Graph) -> Draft:
    node_ids = tuple(map(_NODE_ID, graph.nodes))
    sentinel = VersionSentinel(
        sentinel_id_of(submission.world_id, graph.strategy_id, graph.version, graph.commit_hash),
        graph.version,
        graph.commit_hash,
        submission.submitted_at_ms,
        submission.world_id,
        graph.strategy_id,
        node_ids,
        tuple(map(_NAME, graph.nodes)),
        graph.signals,
        submission.submission_id,
        SentinelStatus.PENDING,
        submission.weight_bp,
        release_tag=graph.release_tag,
    )
    new: dict[str, ComputeNode] = {}
    reused: dict[str, None] = {}
    changed: list[ComputeNode] = []
    buffering: list[str] = []
    queues: dict[str, Queue] = {}
    names: set[str] = set()
    rows: dict[str, ComputeNode] = {}
    assets: dict[str, str] = {}
    every = catalogue.queues_of(node_ids)
    for one, node_id, known, there in zip(
        graph.nodes, node_ids, catalogue.nodes_of(node_ids), every, strict=True
    ):
        if node_id in new or node_id in reused:
            continue
        if known is None:
            generation = catalogue.needs.first_generation(node_id)
            known = new[node_id] = replace(one.node, owner=sentinel.sentinel_id, generation=generation)
        else:
            reused[node_id] = None
            is_changed = one.schema_hash != known.schema_hash
            if is_changed or one.code != known.code:
                changed.append(replace(known, schema_hash=one.schema_hash, code=one.code))
            if (is_changed or known.buffering_since_ms is not None) and is_buffering(
                catalogue, known, one.schema_hash
            ):
                buffering.append(node_id)
        if there is None or not is_usable(there):
            rows = rows or {one.node.node_id: one.node for one in graph.nodes}
            asset = asset_of(known, rows.get, assets)
            queue = lacking(catalogue, known, graph.version, names, asset)
            if queue is not None:
                names.add(queue.topic)
                queues[node_id] = queue
    outcome = DagOutcome(
        submission.submission_id,
        submission.world_id,
        graph.strategy_id,
        True,
        "",
        "",
        sentinel.sentinel_id,
        tuple(new),
        tuple(reused),
        tuple(buffering),
        decided_ms=LAST_MS,  # there is room for any instant
        request_digest=repeats.ANY_DIGEST,
    )
    return Draft(sentinel, outcome, tuple(new.values()), tuple(queues.values()), tuple(changed), every)


def _check_distinct(catalogue: Catalogue, draft: Draft, faults: Faults) -> None:
    """An event names all queues with the same tags at the same interval: there may not be too many."""
    more = Counter((queue.tags, queue.interval) for queue in draft.queues)
    for key, count in more.items():
        if key[0] and count + catalogue.count_tagged(key) > MAX_TAGGED:
            faults.add_told(
                TagsTooCommon,
                "nodes",
                f"{count} more with the tags {', '.join(key[0])} at {key[1]} s",
                f"at most {MAX_TAGGED} queues have the same tags at the same interval",
                "Add a tag that tells them apart.",
            )


def _check_few_answers(graph: Graph, answers: Answers, faults: Faults) -> bool:
    """A plan names all nodes that answer a tag query; says whether it can."""
    if not answers:
        return True
    crowded = [one for one in graph.nodes if len(answers.get(one.node.node_id, ())) > MAX_ANSWERS]
    for one in crowded:
        faults.add_told(
            TagsTooCommon,
            "nodes",
            f"{spelled(one.name)}, to which {len(answers[one.node.node_id])} nodes answer",
            f"at most {MAX_ANSWERS} nodes answer a tag query",
            "Ask for a tag that fewer have.",
        )
    return not crowded


def _check_room(catalogue: Catalogue, graph: Graph, draft: Draft, answers: Answers, faults: Faults) -> None:
    """Nothing is begun that can't be ended: every row can be written, the plan among them."""
    rows: tuple[ComputeNode | VersionSentinel | DagOutcome, ...]
    rows = (*draft.nodes, draft.sentinel, draft.outcome)
    try:
        for row in filter(_is_long, rows):
            codec.encode(replace(row, unneeded_since_ms=LAST_MS) if isinstance(row, ComputeNode) else row)
        _require_plan(catalogue, graph, draft, answers)
    except TooLarge as error:
        was, rule = f"a list of {len(graph.nodes)}", f"its {error.what.removeprefix('a ').rstrip('.')}"
        faults.add_told(DagTooLarge, "nodes", was, rule, "Split the strategy.")


def room_of(name: str, node: ComputeNode) -> int:
    """Bytes at most of a node in a plan."""
    texts = _WIDEST * (len(name) + len(node.params_canon))
    texts += len(node.code) + LONGEST_ID * bool(node.code)
    return texts + LONGEST_ID * (1 + len(node.dependencies)) + _REST


def surely_fits(room: int, names: Iterable[str], signals: int, world_id: str) -> bool:
    """Whether a version needs no further look, none of whose nodes is new: each of its rows can be written.

    Args:
        room: of all its nodes, see `room_of`.
    """
    lengths = list(map(len, names))
    version = LONGEST_ID * (len(lengths) + signals) + _WIDEST * (sum(lengths) + 2 * len(world_id))
    return room < MAX_VALUE_BYTES and version <= _SURELY_SHORT


def _is_long(row: ComputeNode | VersionSentinel | DagOutcome) -> bool:
    """Whether it is worth the while to find out how long a row is; most are far from any bound."""
    match row:
        case ComputeNode():
            size = _WIDEST * len(row.params_canon) + LONGEST_ID * len(row.dependencies)
        case VersionSentinel():
            size = LONGEST_ID * (len(row.node_ids) + len(row.signals)) + _WIDEST * sum(map(len, row.names))
            size += 2 * _WIDEST * len(row.world_id)
        case DagOutcome():
            count = len(row.new_nodes) + len(row.reused_nodes) + len(row.buffering_nodes)
            size = LONGEST_ID * count + 2 * _WIDEST * len(row.world_id)
        case _:
            assert_never(row)
    return size > _SURELY_SHORT


def _require_plan(catalogue: Catalogue, graph: Graph, draft: Draft, answers: Answers) -> None:
    """Hold the plan of a version to what a row can have, before there is anything of it; with those that answer its tag queries now.

    Raises:
        TooLarge: it is longer.
    """
    sentinel, topics = draft.sentinel, {queue.node_id: queue for queue in draft.queues}
    beside = (
        None
        if sentinel.traffic_weight == FULL_WEIGHT
        else catalogue.strategy(sentinel.world_id, graph.strategy_id)
    )
    size = 0 if beside is None else len(codec.encode(beside))
    made = [one.node for one in graph.nodes]
    size += _WIDEST * (_lengths(graph.nodes, _NAME) + _lengths(made, _CANON))
    size += LONGEST_ID * _lengths(made, _INPUTS) + (LONGEST_ID + _REST) * len(made)
    size += _lengths(made, _CODE) + LONGEST_ID * sum(bool(one.code) for one in made)
    if size < MAX_VALUE_BYTES and not answers:
        return
    nodes = (() if beside is None else beside.nodes) + tuple(
        planned(
            one.node, topics.get(one.node.node_id) or catalogue.queue_of(one.node.node_id), one.name, True
        )
        for one in graph.nodes
    )
    nodes = tuple(replace(one, topic=one.topic + _LATER) for one in nodes)
    row = StrategyVersion(
        sentinel.world_id,
        sentinel.strategy_id,
        sentinel.version,
        sentinel.sentinel_id,
        sentinel.submission_id,
        StrategyStatus.PENDING,
        nodes,
        graph.signals,
        Canary(sentinel.version, sentinel.sentinel_id, sentinel.submission_id, 1, graph.signals),
    )
    codec.encode(with_answers(catalogue, row, answers, answers) if answers else row)


_NAME: Final = attrgetter("name")
_NODE_ID: Final = attrgetter("node.node_id")
_CANON: Final = attrgetter("params_canon")
_INPUTS: Final = attrgetter("dependencies")
_CODE: Final = attrgetter("code")


def _lengths(rows: Iterable[Any], part: Callable[[Any], Sized]) -> int:
    """Of one part of all these rows."""
    return sum(map(len, map(part, rows)))


def _refused(submission: DagSubmission, code: str, detail: str) -> DagOutcome:
    """The detail of a message's faults has a line for each reason, and one for how many more there are."""
    return DagOutcome(submission.submission_id, submission.world_id, "", False, code, detail)
