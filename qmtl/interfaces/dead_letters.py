"""Dead letters and late records as people handle them: found by what they say, and written back to where they came from, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from qmtl.engine.letters import whole_digest
from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import OffsetGone, UnknownLetter, WireError
from qmtl.foundation.contracts.control import DeadLetter, LateRecord, Redriven
from qmtl.foundation.wire.keys import encode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.replay.span import known_topics

DEAD: Final = "dead.letters"
LATE: Final = "late.records"
REDRIVEN: Final = "dead.redriven"
WRITER: Final = "qmtl.dlq.redrive"
"""The transactional id of everybody who redrives: two at once can't write one letter back twice."""

AT_ONCE: Final = 500


class Letter(NamedTuple):
    """A dead letter or a late record, with its own place in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    message: DeadLetter | LateRecord

    @property
    def id(self) -> str:
        """What a command line calls it."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant; what is None or empty excludes nothing.

    Attributes:
        from_ms: written at or after this time, epoch ms.
        to_ms: written before it, epoch ms.
    """

    processor: str | None = None
    topic: str | None = None
    code: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def takes(self, letter: Letter) -> bool:
        message = letter.message
        code = message.code if isinstance(message, DeadLetter) else None
        return (
            self.processor in (None, message.processor)
            and self.topic in (None, message.topic)
            and self.code in (None, code)
            and (self.from_ms is None or letter.timestamp_ms >= self.from_ms)
            and (self.to_ms is None or letter.timestamp_ms < self.to_ms)
        )

    @property
    def all(self) -> bool:
        """Whether nothing is excluded."""
        return self == Wanted()


def find(log: Log, name: str, wanted: Wanted) -> Iterator[Letter]:
    """The letters of a topic that are wanted, in their order. A log that has no such topic yet has no letters.

    What is no letter is left out: `qmtl topic read` shows it.
    """
    if log.describe(name) is None:
        return
    for record in read_all(log, all_partitions(log, name)):
        letter = _letter(record)
        if letter is not None and wanted.takes(letter):
            yield letter


def one(log: Log, letter_id: str) -> Letter:
    """The letter of an id.

    Raises:
        UnknownLetter: the id has another form, or no letter lies there.
    """
    name, _, place = letter_id.partition("/")
    partition, _, offset = place.partition("/")
    if name not in (DEAD, LATE) or not all(
        part.isascii() and part.isdecimal() for part in (partition, offset)
    ):
        raise UnknownLetter(
            f"{letter_id!r} is no id of a letter; one looks like {DEAD}/0/17.", "`qmtl dlq list` shows them."
        )
    record = _record_at(log, TopicPartition(name, int(partition)), int(offset))
    letter = None if record is None else _letter(record)
    if letter is None:
        raise UnknownLetter(
            f"no letter lies at {letter_id}, or it is not kept any more.",
            "`qmtl dlq list` shows what there is.",
        )
    return letter


def _letter(record: Record) -> Letter | None:
    if record.value is None or is_reserved(record.key):
        return None
    try:
        message = codec.decode(record.value)
    except WireError:
        return None
    if not isinstance(message, DeadLetter | LateRecord):
        return None
    return Letter(record.topic, record.partition, record.offset, record.timestamp_ms, message)


def _record_at(log: Log, where: TopicPartition, offset: int) -> Record | None:
    found = log.describe(where.topic)
    if found is None or where.partition >= found.partitions:
        return None
    if not log.begin_offsets([where])[where] <= offset < log.stable_offsets([where])[where]:
        return None
    try:
        for record in read_all(log, [where], {where: offset}):
            return record if record.offset == offset else None
    except OffsetGone:  # retention came in between
        pass
    return None


# ---- writing back ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of a letter.

    Attributes:
        key: what would be written.
        refusal: why nothing is; empty where it can be written.
        done: it was written back before, which is a reason too.
    """

    letter: Letter
    key: bytes = b""
    value: bytes | None = None
    refusal: str = ""
    done: bool = False


class Redrive:
    """Decides which letters can be written back, and writes them.

    A record may go back only into a topic that is read record by record. Among the records that a close marker counts, one
    more would stop every reader of the topic, and rows of a table belong to their owner.

    Args:
        force: write back what this version can't read either; the processors may run another one.
    """

    def __init__(self, log: Log, *, force: bool = False) -> None:
        self._log = log
        self._force = force
        self._specs: Mapping[str, TopicSpec] = known_topics(log, codec)
        self._done = written_back(log)

    def plan(self, letter: Letter) -> Plan:
        """What can be done with a letter; nothing is written."""
        if letter.id in self._done:
            return Plan(letter, refusal="it was written back already", done=True)
        message = letter.message
        if isinstance(message, LateRecord):
            return Plan(letter, refusal="its bucket is closed, and what was decided on it stands")
        if refusal := self._unfit(message):
            return Plan(letter, refusal=refusal)
        key, value = message.key, message.value
        if message.digest:
            where = TopicPartition(message.topic, message.partition)
            found = _record_at(self._log, where, message.offset)
            if found is None or whole_digest(found.key, found.value) != message.digest:
                return Plan(
                    letter, refusal="it was too large for its letter, and its topic does not keep it any more"
                )
            key, value = found.key, found.value
        if not self._force and (reason := self._unreadable(message.topic, value)):
            return Plan(letter, refusal=f"it would fail again, as this version can't read it: {reason}")
        return Plan(letter, key, value)

    def _unfit(self, message: DeadLetter) -> str:
        found = self._log.describe(message.topic)
        if found is None:
            return f"the log has no topic {message.topic} any more"
        if message.partition >= found.partitions:
            return f"{message.topic} has {found.partitions} partitions, and it came from number {message.partition}"
        spec = self._specs.get(message.topic)
        if spec is None:
            return f"nobody knows how {message.topic} is read"
        if is_reserved(message.key):
            return "it has a key of the engine's"
        if spec.compacted:
            return f"{message.topic} is a table, whose rows only {spec.owner} writes"
        if spec.marked:
            return (
                f"{message.topic} is read by bucket: its buckets are closed and counted;"
                " let its writer publish what it says in a new bucket"
            )
        return ""

    def _unreadable(self, name: str, value: bytes | None) -> str:
        if value is None:
            return "it has no value"
        try:
            message = codec.decode(value)
        except WireError as error:
            return f"[{error.code}] {error.what}"
        allowed = self._specs[name].messages
        return "" if type(message) in allowed else f"{name} carries no {type(message).__name__}"

    def write(self, plans: Iterable[Plan], at_ms: int) -> list[Plan]:
        """Write back what can be; a second time, or by somebody else at the same time, adds nothing.

        Returns: what was written.

        Raises:
            Fenced: somebody else redrives now.
            TransactionAborted, OutcomeUnknown: run it again; what had been written is not written again.
        """
        self._log.ensure_topics([topic(REDRIVEN)])
        writer = self._log.writer(WRITER)  # from here on no earlier attempt can still come through
        written: list[Plan] = []
        try:
            self._done = written_back(self._log)
            fit = [one for one in plans if not one.refusal and one.letter.id not in self._done]
            for start in range(0, len(fit), AT_ONCE):
                some = fit[start : start + AT_ONCE]
                writer.begin()
                for plan in some:
                    source = plan.letter.message
                    writer.append(source.topic, source.partition, plan.key, plan.value)
                    told = Redriven(
                        source.topic, plan.letter.topic, at_ms, plan.letter.partition, plan.letter.offset
                    )
                    writer.append(REDRIVEN, 0, encode_key(topic(REDRIVEN).key_of(told)), codec.encode(told))
                writer.commit({}, "qmtl.client", None)
                written.extend(some)
        finally:
            writer.close()
        return written


def written_back(log: Log) -> frozenset[str]:
    """The ids of the letters that were written back."""
    if log.describe(REDRIVEN) is None:
        return frozenset()
    found: Sequence[Redriven] = [
        codec.decode(record.value)
        for record in read_all(log, all_partitions(log, REDRIVEN))
        if record.value is not None
    ]
    return frozenset(f"{one.letter_topic}/{one.letter_partition}/{one.letter_offset}" for one in found)
