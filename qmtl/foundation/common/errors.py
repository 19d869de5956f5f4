"""Every error that QMTL raises on purpose: one tree, one stable code each, with what was wrong and what to do.

All of it is in one file, long as that is: whoever adds a code sees those that are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class QmtlError(Exception):
    """Root of the tree.

    Args:
        what: one sentence that names the field, the kind of value that was found and the rule it broke.
        remedy: one sentence that says what to do next; may be empty where the sentence already says it.
    """

    code: ClassVar[str] = "QMTL-000"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"[{self.code}] {self.what}" + (f" {self.remedy}" if self.remedy else "")


# ---- values -----------------------------------------------------------------------------------------------


class InvalidValue(QmtlError):
    """A value that breaks a rule of its field."""

    code = "QMTL-101"


class NoCanonicalForm(InvalidValue):
    """A value that can't be hashed because it has no canonical bytes (NaN, infinity, an unknown type)."""

    code = "QMTL-102"


class InexactMoney(InvalidValue):
    """An operation on money that would have lost digits."""

    code = "QMTL-103"


# ---- wire -------------------------------------------------------------------------------------------------


class WireError(QmtlError):
    """Bytes that can't be trusted."""

    code = "QMTL-200"


class UnknownSchema(WireError):
    """The fingerprint of a value is not one of the schemas that its topic allows."""

    code = "QMTL-201"


class MalformedValue(WireError):
    """The bytes don't decode, are not fully consumed, or don't encode back to themselves."""

    code = "QMTL-202"


class TooLarge(WireError):
    """More bytes, items or levels than the published cap."""

    code = "QMTL-203"


class IncompatibleSchema(WireError):
    """A schema that can't read what other code, older or newer, has written."""

    code = "QMTL-204"


class MalformedKey(WireError):
    """Bytes that are not a key of ours."""

    code = "QMTL-205"


# ---- log --------------------------------------------------------------------------------------------------


class LogError(QmtlError):
    """The log refused or failed."""

    code = "QMTL-300"
    exit_code = 3


class LogUnreachable(LogError):
    """No broker answered, or the directory can't be opened."""

    code = "QMTL-301"
    cause = "silent_log"


class LogLocked(LogError):
    """Another process holds the embedded log."""

    code = "QMTL-302"


class TopicMismatch(LogError):
    """A topic exists with another configuration than the catalogue says."""

    code = "QMTL-303"


class UnknownTopic(LogError):
    """A topic that is neither in the catalogue nor on the log."""

    code = "QMTL-304"


class OffsetGone(LogError):
    """A position that the log no longer holds."""

    code = "QMTL-305"


class RecoveryStalled(LogError):
    """A restore that makes no progress towards its captured target.

    Attributes:
        cause: `open_transaction` or `silent_log`.
    """

    code = "QMTL-306"

    def __init__(self, what: str, remedy: str = "", cause: str = "silent_log") -> None:
        super().__init__(what, remedy)
        self.cause = cause


class LogRegressed(LogError):
    """The log is shorter than it was, or is another log: the task stays closed."""

    code = "QMTL-307"


class StampMismatch(LogError):
    """The restored state and the committed positions don't describe the same prefix."""

    code = "QMTL-308"


class StateMismatch(LogError):
    """What a task has recorded was written under another key or another number of partitions than the catalogue says."""

    code = "QMTL-309"


# ---- transactions (handled by the worker, seldom seen by a person) ------------------------------------------


class TransactionError(LogError):
    """A transaction that did not commit."""

    code = "QMTL-310"


class TransactionAborted(TransactionError):
    """Nothing became visible; the batch is read again."""

    code = "QMTL-311"
    cause = "failed_transactions"


class DiskFull(TransactionAborted):
    """A store or the embedded log could not be written for want of space: the task closes, and opens again when there is some."""

    code = "QMTL-315"


class TaskRevoked(TransactionAborted):
    """The group gave a task away while its tables were restored: it is given up."""

    code = "QMTL-316"


class OutcomeUnknown(TransactionError):
    """The producer can't say whether the commit happened: it is thrown away and a new one made."""

    code = "QMTL-312"


class Fenced(TransactionError):
    """A newer instance owns the transactional id: this one stops."""

    code = "QMTL-313"


class MembershipLost(LogError):
    """The group gave the place of a member to another of the same name, perhaps to its own repeated request."""

    code = "QMTL-314"


class BrokerTooOld(LogError):
    """A cluster of a version that is not supported."""

    code = "QMTL-317"


class MissingRight(LogError):
    """The cluster does not let this client do what it has to."""

    code = "QMTL-318"


class DeadLettersRefused(LogError):
    """The topic of dead letters, or of late records, takes none: the task stops, so that nothing is skipped."""

    code = "QMTL-319"


class UnstableOffsets(LogError):
    """Committed positions that can't be told: a transaction that holds new ones has not ended. Kafka's UNSTABLE_OFFSET_COMMIT."""

    code = "QMTL-320"
    cause = "open_transaction"


class StoreUnavailable(TransactionAborted):
    """A task's store can't be used now, and is not known to be damaged: it stays as it is, and the task opens again by itself.

    Attributes:
        cause: `store_held` by another process, or `store_error` where the system refuses to open or to read it.
    """

    code = "QMTL-321"

    def __init__(self, what: str, remedy: str = "", cause: str = "store_error") -> None:
        super().__init__(what, remedy)
        self.cause = cause


class TopicCollision(LogError):
    """A topic that is not made, because the cluster has another whose name differs from its own by case, or by `.`, `_` and `-`, alone."""

    code = "QMTL-322"


class TopicRefused(LogError):
    """The cluster does not make a topic, or does not delete it, whoever asks."""

    code = "QMTL-323"


class TopicUnsettled(LogError):
    """A topic that was asked for and is not ready, or was to go and is still there, after all attempts."""

    code = "QMTL-324"


class TopicProtected(LogError):
    """A topic that nobody deletes: one of the catalogue, or of the cluster itself."""

    code = "QMTL-325"


class NoArchive(LogError):
    """A topic that is to be archived before it goes, where no archive is configured."""

    code = "QMTL-326"


class NoCatalogue(LogError):
    """A log without the topics in which all state lies: nobody has begun there, or its address is another one."""

    code = "QMTL-328"


# ---- engine -----------------------------------------------------------------------------------------------


class InvariantBroken(QmtlError):
    """A bug or a damaged log: the task stops."""

    code = "QMTL-400"
    exit_code = 4


class CutMismatch(InvariantBroken):
    """The records before a close marker are not the ones that it counted."""

    code = "QMTL-401"


class InvalidTopology(QmtlError):
    """A topology that contradicts itself or the catalogue."""

    code = "QMTL-402"


class UnknownProcessor(QmtlError):
    """A processor name that the topology doesn't have."""

    code = "QMTL-403"
    exit_code = 2


class PoisonRecord(QmtlError):
    """A record that its processor can't use: it goes to the dead letters, and its bucket is computed without it.

    Args:
        arrival: the record, as the processor was given it.
        cause: what is wrong with it, in a sentence or as the error that told; the letter carries the code of a coded error.
    """

    code = "QMTL-404"

    def __init__(self, arrival: object, cause: str | Exception) -> None:
        super().__init__(f"a record could not be used: {cause}")
        self.arrival = arrival
        self.cause = cause


class HandlerFailed(QmtlError):
    """A handler raised an error without a code on a record, which went to the dead letters."""

    code = "QMTL-405"


class Quarantined(QmtlError):
    """A record at which the process died again and again, and which went to the dead letters unread."""

    code = "QMTL-406"


class HandlerBroken(InvariantBroken):
    """A handler that failed on so many records in a row that it, and not they, must be wrong: the task stops."""

    code = "QMTL-407"


class CrashLoop(InvariantBroken):
    """A bucket at which the process died again and again without any one record to blame: the task stays closed."""

    code = "QMTL-408"


class DuplicateRecord(QmtlError):
    """A node's value that came a second time, of the same bucket and input window: the first one is used, and this one no more."""

    code = "QMTL-409"


class ClockTaken(QmtlError):
    """A log whose clock somebody else ticks: feeds of recorded bars, or the clock of a deployed system; the two never share one."""

    code = "QMTL-410"


class CodeMissing(QmtlError):
    """A compute function that a worker was not told of, or can't load: its node is in state error until it can."""

    code = "QMTL-411"


class CodeDiffers(QmtlError):
    """A compute function that is found where a node says, and is another one than that which was published."""

    code = "QMTL-412"


class ComputeFailed(QmtlError):
    """A compute function that raised, or gave what is no output: its node is in state error and says no more.

    Args:
        where: the line of the author's code that raised, by its file and with its text; empty where nobody knows it. It is for people in this
            process: no log is told of it.
    """

    code = "QMTL-413"
    exit_code = 12

    def __init__(self, what: str, remedy: str = "", where: str = "") -> None:
        super().__init__(what, remedy)
        self.where = where


class ViewMisused(QmtlError, LookupError):
    """A view that was asked for what it has not, or was to be changed."""

    code = "QMTL-414"


class NodesInError(QmtlError):
    """A run over bars that have an end has come to it, with nodes of its strategy in state error: to run it again changes nothing of that."""

    code = "QMTL-415"
    exit_code = 12


# ---- DAG messages -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """One of the reasons for which something was refused.

    Attributes:
        code: of the error that it would be alone.
        path: of the field, such as `nodes[3].inputs[0]`; empty for the whole.
        was: the kind of value that was found.
        rule: what it broke.
        remedy: what to do.
    """

    code: str
    path: str
    was: str
    rule: str
    remedy: str

    @property
    def what(self) -> str:
        return f"{self.path or 'the DAG message'} was {self.was}; {self.rule}."


class InvalidDag(QmtlError):
    """A DAG message that can't be accepted.

    Attributes:
        reasons: the first of them in the order of the message, empty where there is but the one that the error says.
        more: how many there are besides.
    """

    code = "QMTL-500"
    exit_code = 5

    def __init__(self, what: str, remedy: str = "", reasons: tuple[Reason, ...] = (), more: int = 0) -> None:
        super().__init__(what, remedy)
        self.reasons = reasons
        self.more = more


class DagTooLarge(InvalidDag):
    """A DAG message over 1 MiB, too deep, with too many nodes, or whose plan no row can hold."""

    code = "QMTL-501"


class DagCycle(InvalidDag):
    """The nodes of a DAG message depend on themselves."""

    code = "QMTL-502"


class UnknownNodeType(InvalidDag):
    """A node type that is neither built in nor `python`."""

    code = "QMTL-503"


class MissingDependency(InvalidDag):
    """An input that names no node of the message."""

    code = "QMTL-504"


class NodeIdMismatch(InvalidDag):
    """A node id that is not the one its content gives, a hash or format that its type has not, or one without the `blake3:` prefix."""

    code = "QMTL-505"


class InvalidParameter(InvalidDag):
    """A node parameter that breaks its rule."""

    code = "QMTL-506"


class DuplicateName(InvalidDag):
    """A name that stands for two things in a DAG message."""

    code = "QMTL-507"


class InvalidName(InvalidDag):
    """A name or text in a DAG message, or an id from outside, with characters or a length that it may not have."""

    code = "QMTL-508"


class UnknownDagVersion(InvalidDag):
    """A DAG message in a form that this version doesn't know."""

    code = "QMTL-509"


class RolloutActive(InvalidDag):
    """A canary that comes while another version of the strategy is one."""

    code = "QMTL-510"


class TagsTooCommon(InvalidDag):
    """More queues with the same tags at the same interval than an event can name, or more answers to a tag query than a plan can."""

    code = "QMTL-511"


class InvalidStrategy(InvalidDag):
    """A strategy or a node that was written in a way in which it can't be published; the error names the node."""

    code = "QMTL-512"


class InvalidNodeSet(InvalidStrategy):
    """A node set that can't be put together: a step, port, mode, parameter or override that does not fit; the error names it."""

    code = "QMTL-580"


class UnknownRecipe(InvalidNodeSet):
    """A node set by a name under which no recipe is known; the error lists those that are."""

    code = "QMTL-581"


class RecipeTaken(InvalidNodeSet, ValueError):
    """A recipe under a name that is another one's."""

    code = "QMTL-582"


class ImpureFunction(InvalidStrategy):
    """A compute function whose result may hang on more than its view: on the clock, on chance, on what changes outside of it."""

    code = "QMTL-513"


class StrategyNotLoaded(InvalidStrategy):
    """A strategy that can't be taken from its file or package: it is not there, or its code fails while it is imported."""

    code = "QMTL-514"


class WorldNotNamed(InvalidDag):
    """A node that reads a world's portfolio, on a log whose context names no one world: all share it, or nobody has said one."""

    code = "QMTL-515"


# ---- worlds and commands ------------------------------------------------------------------------------------


class UnknownWorld(QmtlError):
    """A world that was never created."""

    code = "QMTL-601"
    exit_code = 6


class CommandRefused(QmtlError):
    """A command that the owning service refused; the refusal is on the log."""

    code = "QMTL-602"
    exit_code = 6


class PromotionHeld(CommandRefused):
    """A version that should get more traffic, or an order gate that should open, while something was found that another context had computed,
    and nobody has cleared it."""

    code = "QMTL-604"


class ReleaseActive(CommandRefused):
    """A release of a strategy while another one of it is under way."""

    code = "QMTL-605"


class OtherMessage(CommandRefused):
    """A backtest of another DAG message than the one that its release is of."""

    code = "QMTL-606"


class TooLate(CommandRefused):
    """A submission or command so old that what was decided on it may be forgotten: it may be one that comes again."""

    code = "QMTL-607"


class ReusedId(CommandRefused):
    """A request under an id under which something else was asked before; the answer that is there is not its."""

    code = "QMTL-608"


class RepeatedBacktest(CommandRefused):
    """A backtest over the data and the range of another one of its release, which counts once."""

    code = "QMTL-609"


class NotApproved(CommandRefused):
    """A release that has not passed its gate: backtests are missing, it waits, or it was abandoned."""

    code = "QMTL-610"


class NoAnswer(QmtlError):
    """No service answered a command in time."""

    code = "QMTL-603"
    exit_code = 6


class NoGateway(QmtlError):
    """The address of a gateway, in a version that has none: strategies run on the address of a log."""

    code = "QMTL-611"
    exit_code = 6


# ---- market data --------------------------------------------------------------------------------------------


class InvalidBar(QmtlError):
    """A bar that can't be a bar."""

    code = "QMTL-701"
    exit_code = 7


class InvalidBarsFile(QmtlError):
    """A file that doesn't have the form of a bars file."""

    code = "QMTL-702"
    exit_code = 7


class ConflictingBars(QmtlError):
    """Two bars of one symbol, interval and time that are not the same."""

    code = "QMTL-703"
    exit_code = 7


class CatalogueLocked(QmtlError):
    """Another process writes the catalogue."""

    code = "QMTL-704"
    exit_code = 7


class CatalogueDamaged(QmtlError):
    """A file of a catalogue that is missing, or not as it was written."""

    code = "QMTL-705"
    exit_code = 7


class NotInCatalogue(QmtlError):
    """No catalogue, or one without the series or the commit that was asked for."""

    code = "QMTL-706"
    exit_code = 7


class CatalogueUnwritable(QmtlError):
    """A disk that is full, or a right that is missing; the catalogue is as it was."""

    code = "QMTL-707"
    exit_code = 7


class HistoryUnavailable(QmtlError):
    """An exchange that did not answer, or refused."""

    code = "QMTL-708"
    exit_code = 7


class LibraryMissing(QmtlError):
    """A library of an extra that is not installed."""

    code = "QMTL-709"
    exit_code = 7


class DataIncomplete(QmtlError):
    """Data that has fewer bars, a longer gap or an older end than its terms allow."""

    code = "QMTL-710"
    exit_code = 7


class DataLate(QmtlError):
    """A source of data that did not answer in the time that is agreed."""

    code = "QMTL-711"
    exit_code = 7


# ---- venues -------------------------------------------------------------------------------------------------


class VenueRefused(QmtlError):
    """A venue that said no: what was asked for was not done."""

    code = "QMTL-720"
    exit_code = 7


class VenueUnanswered(QmtlError):
    """A venue that did not say whether what was asked for was done."""

    code = "QMTL-721"
    exit_code = 7


class NoVenue(QmtlError):
    """An order for a venue where none is configured."""

    code = "QMTL-722"
    exit_code = 7


class OrderTooOld(QmtlError):
    """An order that was not sent while it was still what its strategy wanted."""

    code = "QMTL-723"
    exit_code = 7


class OrderBlocked(QmtlError):
    """An order that the activation of its strategy does not let out any more."""

    code = "QMTL-724"
    exit_code = 7


class OrderNeverArrived(QmtlError):
    """An order that may have been sent, and that the venue does not have after all requests of that time have lapsed."""

    code = "QMTL-725"
    exit_code = 7


class ReportRefused(QmtlError):
    """A report of a broker that contradicts what is known of its order, or can't be booked."""

    code = "QMTL-726"
    exit_code = 7


# ---- command line and tools -----------------------------------------------------------------------------------


class UsageError(QmtlError):
    """A command line that doesn't parse."""

    code = "QMTL-801"
    exit_code = 2


class OtherRun(QmtlError):
    """The state belongs to a run with other data or another strategy."""

    code = "QMTL-802"
    exit_code = 8


class ReplayDiffers(QmtlError):
    """A table rebuilt from the log is not the live one."""

    code = "QMTL-803"
    exit_code = 9


class CannotReplay(QmtlError):
    """What a second run needs is not on the log any more, or never was."""

    code = "QMTL-805"
    exit_code = 9


class NoBroker(QmtlError):
    """None of the ways to a test broker worked."""

    code = "QMTL-804"
    exit_code = 3


class SimulationFailed(QmtlError):
    """A simulated run broke a law; the same seed breaks it again."""

    code = "QMTL-808"


class UnknownLetter(QmtlError):
    """An id under which no dead letter lies."""

    code = "QMTL-806"
    exit_code = 6


class RedriveRefused(QmtlError):
    """A dead letter that can't be written back to where it came from."""

    code = "QMTL-807"
    exit_code = 6


class UnknownId(QmtlError):
    """An id that nothing in the graph has."""

    code = "QMTL-809"
    exit_code = 6


class QueryTimedOut(QmtlError):
    """A question that could not be answered in the time that it had."""

    code = "QMTL-810"
    exit_code = 6


class TooManyQueries(QmtlError):
    """A question that comes too soon after others."""

    code = "QMTL-811"
    exit_code = 6


class MissingExtra(QmtlError):
    """Something that needs a package which is not installed; the remedy names the extra that brings it."""

    code = "QMTL-812"
    exit_code = 2


class OtherData(QmtlError):
    """Bars that are not those on which a run was made."""

    code = "QMTL-813"
    exit_code = 8


class NothingToReport(QmtlError):
    """A run that traded nothing yet, so that there is nothing to judge."""

    code = "QMTL-814"
    exit_code = 6


class CheckFailed(QmtlError):
    """A strategy whose backtest does not say what it would do live: it sees the future, or hangs on more than its bars."""

    code = "QMTL-818"


class TrialLost(QmtlError):
    """A run of a check whose process ended before it had answered, or that failed where no author's code was."""

    code = "QMTL-819"


class ProjectNotMade(QmtlError):
    """A new project for which there is no place: something lies there already, or it can't be written. Nothing of it was left."""

    code = "QMTL-820"
    exit_code = 2


class ValuesRefused(QmtlError):
    """Values that an earlier backtest has kept, and that are not used: they are damaged, or could not be read or written."""

    code = "QMTL-821"


class ConflictingFact(QmtlError):
    """One fact of a book that was told twice, and differently."""

    code = "QMTL-830"


class FactTooLate(QmtlError):
    """A fact whose place in the order of time lies before what a book has closed for good."""

    code = "QMTL-831"


class UnknownInstrument(QmtlError):
    """A symbol of which the terms of a book say nothing."""

    code = "QMTL-832"


class NoRate(QmtlError):
    """An asset for which no rate into the currency of a valuation was given."""

    code = "QMTL-833"


class InvalidSweep(QmtlError):
    """Parameters, conditions or a figure with which no sweep can be made."""

    code = "QMTL-850"
    exit_code = 2


class CombinationFailed(QmtlError):
    """A combination of a sweep at which the author's code raised an error without a code; the others go on."""

    code = "QMTL-851"


class WorkerLost(QmtlError):
    """A combination of a sweep whose process was lost each time that it was tried; the others go on."""

    code = "QMTL-852"


class NothingSwept(QmtlError):
    """A sweep of which every combination failed."""

    code = "QMTL-853"
    exit_code = 6


class EngineFailed(QmtlError):
    """Processes or a cluster on which a sweep can't be computed."""

    code = "QMTL-854"
    exit_code = 3


class InvalidRuns(QmtlError):
    """A file of runs that can't be read, has a key that nobody knows, or a value that breaks a rule."""

    code = "QMTL-870"
    exit_code = 2


class LogShared(InvalidRuns):
    """Two runs on one embedded log, for which there is one process at a time."""

    code = "QMTL-871"


class RunsHeld(QmtlError):
    """Another execution manager has the state directory."""

    code = "QMTL-872"
    exit_code = 3


class RunsFailed(QmtlError):
    """Runs that an execution manager had to give up, that failed, or that had to be killed."""

    code = "QMTL-873"
    exit_code = 11


# ---- archive --------------------------------------------------------------------------------------------------


class ArchiveError(QmtlError):
    """A topic could not be archived, or an archive not be read; either way nothing was deleted."""

    code = "QMTL-900"
    exit_code = 10

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, f"Nothing was deleted. {remedy}".rstrip())


class StoreUnreachable(ArchiveError):
    """An object store that did not answer in time, or only with failures."""

    code = "QMTL-901"


class StoreRefused(ArchiveError):
    """An object store that does not let this client do what it has to."""

    code = "QMTL-902"


class StoreMissing(ArchiveError):
    """A bucket or directory that is not there, or has no archive."""

    code = "QMTL-903"


class ArchiveAltered(ArchiveError):
    """An object of an archive that is missing, or not as it was written."""

    code = "QMTL-904"


class TopicChanged(ArchiveError):
    """A topic that is written, grew, lost records or was made anew while it was archived, or since."""

    code = "QMTL-905"
