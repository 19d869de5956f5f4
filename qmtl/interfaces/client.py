"""What a person asks of the system: commands go onto the log once, answers are read from the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final, NamedTuple

from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import TableView, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.compute_context import Downgrade
from qmtl.foundation.common.errors import (
    CommandRefused,
    LogUnreachable,
    NoAnswer,
    OtherMessage,
    OutcomeUnknown,
    PromotionHeld,
    ReleaseActive,
    RepeatedBacktest,
    ReusedId,
    TooLate,
    TransactionAborted,
    UnknownWorld,
)
from qmtl.foundation.contracts.context import THE_CONTEXT
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    CollectGarbage,
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
from qmtl.foundation.contracts.world import CommandOutcome, WorldCommand
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import has_read, is_settled, needed_by
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.diffs import DiffMap, DiffReader
from qmtl.interfaces.standing import taken
from qmtl.interfaces.tail import Tail
from qmtl.services.dagmanager import repeats
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.context import SHUT_OUT, Request, in_log
from qmtl.topology import PROTOTYPES

IDLE_S: Final = 0.02

ATTEMPTS: Final = 2
"""A command to the DAG Manager is sent so often before it is given up: once, and once more."""

GC_ATTEMPTS: Final = 3
"""One that collects garbage, to which the seed gives two retries."""

_REMEDIES: Final = {
    Downgrade.DECISION_UNAVAILABLE.value: "Say a domain (--domain live, or another one with --as-of): the first one that is said is the log's.",
    Downgrade.MISSING_AS_OF.value: "Say the state of the data, too (--as-of).",
    Downgrade.OTHER_CONTEXT.value: "Say the log's domain and state of the data (`qmtl service dagmanager context show`), or no context. "
    f"Is it another world's? {SHUT_OUT}",
}

_REFUSALS: Final = {
    one.code: one
    for one in (
        CommandRefused,
        PromotionHeld,
        ReleaseActive,
        OtherMessage,
        TooLate,
        ReusedId,
        RepeatedBacktest,
    )
}


class Placed(NamedTuple):
    """Where a message lies.

    Attributes:
        is_new: it was appended now; else it was found there, and nobody had taken it yet.
    """

    where: TopicPartition
    offset: int
    is_new: bool


class Client:
    """Publishes and waits. Not thread-safe.

    What it costs to send a message does not grow with how many were sent before: it is looked for among those that wait to be taken, and in
    the table of the answers, which is read once and followed from then on.

    Args:
        workers: run by this process while it waits; empty where other processes run them.
        timeout_s: how long an answer may take without any progress of the workers.
    """

    def __init__(self, log: Log, workers: list[Worker], timeout_s: float = 60.0) -> None:
        self.log = log
        self.workers = workers
        self._timeout_s = timeout_s
        self._views: dict[str, TableView] = {}
        self._tails: dict[str, Tail] = {}

    def close(self) -> None:
        """End what stays open between two questions; the log and the workers are the caller's."""
        for tail in self._tails.values():
            tail.close()

    def view(self, name: str) -> TableView:
        """An up-to-date view of a table."""
        found = self._views.get(name)
        if found is None:
            found = self._views[name] = TableView(self.log, name, codec)
        return found.refresh()

    def tail(self, name: str) -> Tail:
        """The one reader of a topic, for all questions."""
        found = self._tails.get(name)
        if found is None:
            found = self._tails[name] = Tail(self.log, name)
        return found

    def has_taken(self, placed: Placed) -> bool:
        """Whether the service has taken a message, and answered it therefore."""
        return taken(self.log, PROTOTYPES, placed.where, codec) > placed.offset

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
        """Append a message unless one that is `same` waits there to be taken; returns whether it was appended. One that was taken already may
        so come a second time, which whoever takes it knows by its id.

        Args:
            writer_id: the last part of the transactional id, by which a later attempt shuts out this one; by default the topic.
        """
        return self.place(name, message, same, writer_id).is_new

    def place(self, name: str, message: Any, same: Callable[[Any], bool], writer_id: str = "") -> Placed:
        """As `publish_once`, and tells where the message lies."""
        found = self.ask_once(name, message, same, writer_id)
        assert found is not None
        return found

    def ask_once(
        self,
        name: str,
        message: Any,
        same: Callable[[Any], bool],
        writer_id: str = "",
        answered: Callable[[], Any] = lambda: None,
    ) -> Placed | None:
        """As `place`; None, and nothing is appended, where the message is answered."""
        writer = self.log.writer(
            f"qmtl.client.{writer_id or name}"
        )  # from here on no earlier attempt can still come through
        try:
            spec = topic(name)
            where = TopicPartition(name, spec.partition_of(message))
            start = {where: taken(self.log, PROTOTYPES, where, codec)}
            for record in read_all(self.log, [where], start):
                if record.value is not None and same(codec.decode(record.value)):
                    return Placed(where, record.offset, is_new=False)
            if answered() is not None:  # what was taken before that is answered by now
                return None
            writer.begin()
            key, value = encode_key(spec.key_of(message)), codec.encode(message)
            writer.append(name, where.partition, key, value, track=True)
            offsets = writer.commit({}, "qmtl.client", None)
            return Placed(where, offsets[where], is_new=True)
        finally:
            writer.close()

    def in_log(self, request: Request) -> Request:
        """A request in the context that it says, of which whatever it leaves out is missing; one that says none, in the log's, if anybody
        has said it."""
        if any((request.execution_domain, request.as_of, request.partition, request.dataset_fingerprint)):
            return request
        return in_log(self.view("dag.context").get(THE_CONTEXT), request)

    def command(self, command: WorldCommand) -> CommandOutcome:
        """Send a command to the world service and wait for what became of it.

        Raises:
            UnknownWorld, CommandRefused: it was refused; the outcome is on the log. PromotionHeld, as one of these.
            NoAnswer: the world service does not run.
        """
        same = command.command_id
        answer = _Answer(self, "world.outcomes", command.world_id, same)
        answer.ask("world.commands", command, lambda other: other.command_id == same)
        outcome: CommandOutcome = self.wait(f"command {same!r} to world {command.world_id!r}", answer.find)
        if not outcome.accepted:
            kinds = {one.code: one for one in (UnknownWorld, PromotionHeld)}
            raise kinds.get(outcome.code, CommandRefused)(f"the world service refused: {outcome.detail}")
        return outcome

    def dag_command(self, command: DagCommand) -> DagCommandOutcome:
        """Send a command to the DAG Manager and wait for what became of it. Where the log fails, or its part of the time brings no answer, it
        is sent again, up to `attempts_of` times in all, which adds nothing where one came through.

        Raises:
            CommandRefused: it was refused; the outcome is on the log. PromotionHeld, ReleaseActive, OtherMessage, TooLate and
                RepeatedBacktest, as some of these.
            ReusedId: its id is another command's.
            NoAnswer: the DAG Manager does not run.
            LogUnreachable, TransactionAborted, OutcomeUnknown: the last attempt ended so.
        """
        same, attempts = command.command_id, attempts_of(command)
        answer = _Answer(self, "dag.outcomes", same)
        outcome: DagCommandOutcome | None = None
        for attempt in range(attempts):
            try:
                answer.ask("dag.commands", command, repeats.same_as(command))
                outcome = self.within(self._timeout_s / attempts, answer.find)
            except (LogUnreachable, TransactionAborted, OutcomeUnknown):
                if attempt == attempts - 1:
                    raise
            if outcome is not None:
                break
        if outcome is None:
            raise self._silence(f"command {same!r}")
        repeats.require_same(outcome.request_digest, command)
        require_accepted(outcome)
        return outcome

    def dag_commands(self, commands: Sequence[DagCommand]) -> list[DagCommandOutcome]:
        """Send commands to the DAG Manager, all before any is waited for; what became of each, refused ones too, in their order.

        Raises:
            ReusedId: the id of one is another command's.
            NoAnswer: the DAG Manager does not run.
        """
        for one in commands:
            self.send_dag_command(one)

        def ready() -> list[DagCommandOutcome] | None:
            view = self.view("dag.outcomes")
            found = [view.get(one.command_id) for one in commands]
            return None if None in found else found

        outcomes: list[DagCommandOutcome] = self.wait(f"{len(commands)} commands", ready) if commands else []
        for one, outcome in zip(commands, outcomes, strict=True):
            repeats.require_same(outcome.request_digest, one)
        return outcomes

    def send_dag_command(self, command: DagCommand) -> None:
        """Lay a command to the DAG Manager on the log, unless it lies there and nobody has taken it yet.

        Raises:
            ReusedId: something else lies there under its id.
        """
        self.place("dag.commands", command, repeats.same_as(command))

    def next_command_id(self, *parts: str | int) -> str:
        """The id for giving the DAG Manager a command by hand: while it is not answered, saying it again is the same command;
        once it is, saying it again is another one."""
        return self.next_command_ids([parts])[0]

    def next_command_ids(self, wishes: Sequence[Sequence[str | int]]) -> list[str]:
        """As `next_command_id`, for several commands at once."""
        answered = self.view("dag.outcomes")
        return [
            next(one for turn in count() if answered.get(one := command_id(*parts, turn)) is None)
            for parts in wishes
        ]

    def world_meant(self, world_id: str) -> str:
        """The world that is said, else the one in whose context the log computes; empty where there is none, or more than one."""
        worlds = {row.context.world_id for row in self.view("dag.context").rows()}
        return world_id or (worlds.pop() if len(worlds) == 1 else "")

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
            CommandRefused: it was refused; the outcome is on the log. PromotionHeld and TooLate, as some of these.
            ReusedId: its id is another submission's.
            NoAnswer: the DAG Manager does not run.
        """
        admit(submission.dag_json, submission.submitted_at_ms)
        self.require_world(submission.world_id)
        same = submission.submission_id
        answer = _Answer(self, "dag.diffs", same)
        answer.ask("dag.submissions", submission, repeats.same_as(submission))
        outcome: DagOutcome = self.wait(f"submission {same!r}", answer.find)
        repeats.require_same(outcome.request_digest, submission)
        if outcome.code in (PromotionHeld.code, TooLate.code):
            raise _REFUSALS[outcome.code](
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
            ReusedId: its id is another request's.
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

    def named(self, submission: DagSubmission, strategy_id: str) -> DagSubmission:
        """A submission under the id for publishing it by hand, see `next_submission_id`."""
        one = submission
        context = (one.execution_domain, one.as_of, one.partition, one.dataset_fingerprint)
        name = self.next_submission_id(one.world_id, strategy_id, one.dag_json, one.weight_bp, context)
        return replace(one, submission_id=name)

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
            raise safe_mode_refusal(outcome)
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
            there = [view.get(shard, world_id, strategy_id) for shard in sorted(needed_by(found))]
            return found if is_settled(found) and all(has_read(one, found) for one in there) else None

        strategy: StrategyVersion = self.wait(f"deployment of {mine!r}", ready)
        return strategy


def require_accepted(outcome: DagCommandOutcome) -> None:
    """Raises: CommandRefused, or the kind of it that the outcome's code names, where a command was refused."""
    if not outcome.accepted:
        refusal = _REFUSALS.get(outcome.code, CommandRefused)
        raise refusal(f"the DAG Manager refused: {outcome.detail.removeprefix(f'[{refusal.code}] ')}")


def safe_mode_refusal(outcome: DagOutcome) -> CommandRefused:
    """Why a submission that was taken in safe mode is not deployed, and what to do."""
    return CommandRefused(
        f"strategy {outcome.strategy_id!r} is not deployed: its context was in safe mode ({outcome.safe_mode}).",
        _REMEDIES.get(outcome.safe_mode, ""),
    )


def attempts_of(command: DagCommand) -> int:
    """How often a command is sent before it is given up."""
    return GC_ATTEMPTS if isinstance(command, CollectGarbage) else ATTEMPTS


class _Answer:
    """The row that answers a message."""

    def __init__(self, client: Client, table: str, *key: str) -> None:
        self._client = client
        self._table = table
        self._parts = key

    def ask(self, name: str, message: Any, same: Callable[[Any], bool]) -> None:
        """Send the message, unless it is answered or lies there to be taken."""
        self._client.ask_once(name, message, same, answered=self.find)

    def find(self) -> Any:
        """The row; None as long as there is none. The first look takes as long as there are rows, each later one no longer than what
        came since."""
        return self._client.view(self._table).get(*self._parts)


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
