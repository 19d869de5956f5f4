"""What a person asks of the system: commands go onto the log once, answers are read from the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from qmtl.engine.log.port import Log
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import (
    CommandRefused,
    LogUnreachable,
    NoAnswer,
    OtherMessage,
    OutcomeUnknown,
    PromotionHeld,
    ReleaseActive,
    TransactionAborted,
    UnknownWorld,
)
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    DagCommand,
    DagCommandOutcome,
    DagOutcome,
    DagSubmission,
    SentinelStatus,
    StrategyStatus,
    StrategyVersion,
    VersionSentinel,
)
from qmtl.foundation.contracts.diff import DiffRequest
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.contracts.world import CommandOutcome, WorldCommand
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import SHARDS, topic
from qmtl.interfaces.diffs import DiffMap, DiffReader
from qmtl.services.dagmanager.admission import admit
from qmtl.services.nodes.plan import shards_of

IDLE_S: Final = 0.02

ATTEMPTS: Final = 2
"""A command to the DAG Manager is sent so often before it is given up: once, and once more."""

_REFUSALS: Final = {one.code: one for one in (CommandRefused, PromotionHeld, ReleaseActive, OtherMessage)}


class Client:
    """Publishes and waits.

    Args:
        workers: run by this process while it waits; empty where other processes run them.
        timeout_s: how long an answer may take without any progress of the workers.
    """

    def __init__(self, log: Log, workers: list[Worker], timeout_s: float = 60.0) -> None:
        self.log = log
        self.workers = workers
        self._timeout_s = timeout_s
        self._views: dict[str, TableView] = {}

    def view(self, name: str) -> TableView:
        """An up-to-date view of a table."""
        found = self._views.get(name)
        if found is None:
            found = self._views[name] = TableView(self.log, name, codec)
        return found.refresh()

    def pump(self) -> bool:
        """Let the workers do one round; waits a little where there is nothing to do."""
        busy = False
        for worker in self.workers:
            busy |= worker.step()
        if not busy:
            time.sleep(IDLE_S)
        return busy

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        """Run until `ready` gives something.

        Raises:
            NoAnswer: nothing for the time-out.
        """
        found = self.within(self._timeout_s, ready)
        if not found:
            raise self._silence(what)
        return found

    def _silence(self, what: str) -> NoAnswer:
        return NoAnswer(
            f"no service answered within {self._timeout_s:g} s: {what}.",
            "Start the workers with `qmtl worker run NAME`, then repeat the command; it is not done twice.",
        )

    def within(self, seconds: float, ready: Callable[[], Any]) -> Any:
        """Run until `ready` gives something, or for so long; returns what it gave last."""
        deadline = time.monotonic() + seconds
        while not (found := ready()) and time.monotonic() <= deadline:
            self.pump()
        return found

    def publish_once(self, name: str, message: Any, same: Callable[[Any], bool], writer_id: str = "") -> bool:
        """Append a message unless one that is `same` lies in the topic already; returns whether it was appended.

        Args:
            writer_id: the last part of the transactional id, by which a later attempt shuts out this one; by default the topic.
        """
        writer = self.log.writer(
            f"qmtl.client.{writer_id or name}"
        )  # from here on no earlier attempt can still come through
        try:
            for record in read_all(self.log, all_partitions(self.log, name)):
                if record.value is not None and same(codec.decode(record.value)):
                    return False
            spec = topic(name)
            writer.begin()
            writer.append(
                name, spec.partition_of(message), encode_key(spec.key_of(message)), codec.encode(message)
            )
            writer.commit({}, "qmtl.client", None)
            return True
        finally:
            writer.close()

    def command(self, command: WorldCommand) -> CommandOutcome:
        """Send a command to the world service and wait for what became of it.

        Raises:
            UnknownWorld, CommandRefused: it was refused; the outcome is on the log.
            NoAnswer: the world service does not run.
        """
        self.publish_once("world.commands", command, lambda other: other.command_id == command.command_id)
        outcome: CommandOutcome = self.wait(
            f"command {command.command_id!r} to world {command.world_id!r}",
            lambda: self.view("world.outcomes").get(command.world_id, command.command_id),
        )
        if not outcome.accepted:
            kind = UnknownWorld if outcome.code == UnknownWorld.code else CommandRefused
            raise kind(f"the world service refused: {outcome.detail}")
        return outcome

    def dag_command(self, command: DagCommand) -> DagCommandOutcome:
        """Send a command to the DAG Manager and wait for what became of it. Where the log fails, or half of the time brings no answer, it
        is sent a second time, which adds nothing where the first one came through.

        Raises:
            CommandRefused: it was refused; the outcome is on the log. PromotionHeld, ReleaseActive and OtherMessage, as some of these.
            NoAnswer: the DAG Manager does not run.
            LogUnreachable, TransactionAborted, OutcomeUnknown: the second attempt ended so.
        """
        same = command.command_id
        outcome: DagCommandOutcome | None = None
        for attempt in range(ATTEMPTS):
            try:
                self.publish_once("dag.commands", command, lambda other: other.command_id == same)
                outcome = self.within(self._timeout_s / ATTEMPTS, lambda: self.view("dag.outcomes").get(same))
            except (LogUnreachable, TransactionAborted, OutcomeUnknown):
                if attempt == ATTEMPTS - 1:
                    raise
            if outcome is not None:
                break
        if outcome is None:
            raise self._silence(f"command {same!r}")
        if not outcome.accepted:
            refusal = _REFUSALS.get(outcome.code, CommandRefused)
            raise refusal(f"the DAG Manager refused: {outcome.detail.removeprefix(f'[{refusal.code}] ')}")
        return outcome

    def next_command_id(self, *parts: str | int) -> str:
        """The id for giving the DAG Manager a command by hand: while it is not answered, saying it again is the same command;
        once it is, saying it again is another one."""
        answered = self.view("dag.outcomes")
        ids = (command_id(*parts, turn) for turn in count())
        return next(one for one in ids if answered.get(one) is None)

    def require_world(self, world_id: str) -> None:
        """Raises: UnknownWorld, where the world was never created."""
        if self.view("world.state").get(world_id) is None:
            raise UnknownWorld(
                f"world {world_id!r} does not exist.", f"Create it with `qmtl world create {world_id}`."
            )

    def submit(self, submission: DagSubmission) -> DagOutcome:
        """Publish a DAG message and wait for the DAG Manager's answer.

        Raises:
            InvalidDag: the DAG Manager would refuse the message, for these reasons; nothing is published.
            UnknownWorld: the world was never created; nothing is published.
            CommandRefused: it was refused; the outcome is on the log. PromotionHeld, as one of these.
            NoAnswer: the DAG Manager does not run.
        """
        admit(submission.dag_json, submission.submitted_at_ms)
        self.require_world(submission.world_id)
        same = submission.submission_id
        self.publish_once("dag.submissions", submission, lambda other: other.submission_id == same)
        outcome: DagOutcome = self.wait(f"submission {same!r}", lambda: self.view("dag.diffs").get(same))
        if outcome.code == PromotionHeld.code:
            raise PromotionHeld(
                f"the DAG Manager refused: {outcome.detail.removeprefix(f'[{outcome.code}] ')}"
            )
        if not outcome.accepted:
            raise CommandRefused(f"the DAG Manager refused [{outcome.code}]: {outcome.detail}")
        return outcome

    def diff(self, request: DiffRequest) -> DiffMap:
        """Ask what a DAG message would do to the graph, which stays as it is; a repeated request goes on where it was left.

        Raises:
            UnknownWorld: the world that is meant was never created; nothing is asked.
            CommandRefused: it was refused, with the reasons for which a submission would be.
            NoAnswer: the DAG Manager does not run.
        """
        if request.world_id:
            self.require_world(request.world_id)
        return DiffReader(self, request).run()

    def next_submission_id(
        self,
        world_id: str,
        strategy_id: str,
        dag_json: bytes,
        weight_bp: int = FULL_WEIGHT,
        context: Sequence[str] = (),
    ) -> str:
        """The id for publishing a message by hand: while it is not answered, or where it is what was said last of the strategy, saying
        it again is the same submission; else it is another one."""
        answered = self.view("dag.diffs")
        last = self._last_submission(world_id, strategy_id)
        ids = (submission_id(world_id, dag_json, weight_bp, turn, context) for turn in count())
        return next(one for one in ids if one == last or answered.get(one) is None)

    def _last_submission(self, world_id: str, strategy_id: str) -> str:
        """That of the version that is on its way, or the only one; empty where there is none, or two share the traffic."""
        for one in self.view("dag.sentinels").rows():
            mine = (one.world_id, one.strategy_id) == (world_id, strategy_id)
            if mine and one.status is SentinelStatus.PENDING:
                return str(one.submission_id)
        row: StrategyVersion | None = self.view("dag.strategies").get(world_id, strategy_id)
        is_alone = row is not None and row.status is not StrategyStatus.RETIRED and row.canary is None
        return row.submission_id if row is not None and is_alone else ""

    def deployed(self, outcome: DagOutcome) -> StrategyVersion:
        """Wait until the topics of a version exist and its nodes are known to the node workers.

        Raises:
            CommandRefused: a topic could not be made, or a newer version has come meanwhile, or it was taken in safe mode.
            NoAnswer: the DAG Manager, the topic admin or the node workers do not run.
        """
        if outcome.safe_mode:
            raise CommandRefused(
                f"strategy {outcome.strategy_id!r} is not deployed: its context was in safe mode ({outcome.safe_mode}).",
                "Say the log's domain and state of the data (`qmtl service dagmanager context show`), or no context.",
            )
        world_id, strategy_id, mine = outcome.world_id, outcome.strategy_id, outcome.sentinel_id

        def ready() -> StrategyVersion | None:
            version: VersionSentinel | None = self.view("dag.sentinels").get(mine)
            if version is None or version.status is SentinelStatus.PENDING:
                return None
            if version.status is not SentinelStatus.ACTIVE:
                raise CommandRefused(
                    f"version {mine!r} of strategy {strategy_id!r} is {version.status.value}.",
                    "`qmtl topic read dag.admin.log` says why.",
                )
            found: StrategyVersion | None = self.view("dag.strategies").get(world_id, strategy_id)
            if found is None or mine not in (found.sentinel_id, found.canary and found.canary.sentinel_id):
                return None
            view = self.view("node.deployments")
            homes = sorted(set(shards_of(found.nodes, SHARDS).values()))
            there = [view.get(shard, world_id, strategy_id) for shard in homes]
            return found if there == [NodeDeployment(shard, found) for shard in homes] else None

        strategy: StrategyVersion = self.wait(f"deployment of {mine!r}", ready)
        return strategy


def submission_id(
    world_id: str,
    dag_json: bytes,
    weight_bp: int = FULL_WEIGHT,
    turn: int = 0,
    context: Sequence[str] = (),
) -> str:
    """The id of a submission: the same message for the same share to the same world is the same one, in the context that it says, if any,
    but in another turn."""
    more = () if (weight_bp, turn) == (FULL_WEIGHT, 0) else (weight_bp, turn)
    said = tuple(context) if any(context) else ()
    return blake3_hex(canonical_bytes(("qmtl.submission", world_id, dag_json, *more, *said)), 16)


def command_id(*parts: str | int) -> str:
    """The id of a command by what it says."""
    return blake3_hex(canonical_bytes(("qmtl.command", *parts)), 16)
