"""`qmtl dlq`: records that could not be used: list them, look at one, write them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from qmtl.foundation.common.errors import RedriveRefused, UsageError
from qmtl.foundation.contracts.control import DeadLetter, LateRecord
from qmtl.interfaces.cli import records, render
from qmtl.interfaces.cli.options import format_option, instant, log_option, reading, rows_options
from qmtl.interfaces.dead_letters import DEAD, LATE, Letter, Plan, Redrive, Wanted, find, one, written_back

DUMPED_BYTES: Final = 4096
_ROW_BYTES: Final = 16

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def dlq() -> None:
    """Records that could not be used, and records that came late.

    A record that can't be decoded, breaks its contract, fails its handler or kills its process becomes a dead letter: its
    bytes, its place, and the cause. A record of a bucket that was closed already becomes a late record.
    """


def _filters(command: F) -> F:
    for option in (
        click.option(
            "--to-time", metavar="ISO|MS", callback=instant, help="Letters written before this time."
        ),
        click.option(
            "--from-time", metavar="ISO|MS", callback=instant, help="Letters written at or after this time."
        ),
        click.option("--code", metavar="CODE", help="Letters of this error alone, such as QMTL-202."),
        click.option("--topic", metavar="NAME", help="Records of this topic alone."),
        click.option("--processor", metavar="NAME", help="What this processor could not use."),
    ):
        command = option(command)
    return command


# ---- list -----------------------------------------------------------------------------------------------------


@dlq.command("list")
@_filters
@click.option("--late", is_flag=True, help="Late records instead of dead letters.")
@click.option("--counts", is_flag=True, help="How many there are of each kind, instead of each of them.")
@rows_options
@log_option
@format_option
def list_letters(
    processor: str | None,
    topic: str | None,
    code: str | None,
    from_time: int | None,
    to_time: int | None,
    late: bool,
    counts: bool,
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The newest dead letters, oldest of them first, each with its id, its cause, and whether it was written back.

    With --counts all are counted, and the rows are kinds. Letters with the same STACK come from one mistake in a handler.
    """
    wanted = Wanted(processor, topic, code, from_time, to_time)
    if late and code is not None:
        raise UsageError("--code was given with --late; late records have no code.", "Leave one of them out.")
    with reading(log_address) as log:
        found = list(find(log, LATE if late else DEAD, wanted))
        done = written_back(log)
    if counts:
        _count(found, limit, late=late, as_json=as_json)
        return
    shown = found if limit is None else found[-limit:]
    if as_json:
        for letter in shown:
            render.json_line(_short_json(letter, letter.id in done))
    elif late:
        _list_late(shown)
    else:
        _list_dead(shown, done)
    render.left_off(len(shown), len(found), "letters", as_json=as_json, newest=True)


def _list_dead(found: Iterable[Letter], done: frozenset[str]) -> None:
    rows = []
    for letter in found:
        message = letter.message
        assert isinstance(message, DeadLetter)
        when, back = render.instant(letter.timestamp_ms), "yes" if letter.id in done else "-"
        rows.append(
            (
                letter.id,
                when,
                f"{message.processor}[{message.task}]",
                _place(message),
                message.code,
                message.stack_digest or "-",
                back,
                message.cause,
            )
        )
    render.table(("ID", "WRITTEN", "PROCESSOR", "RECORD", "CODE", "STACK", "REDRIVEN", "CAUSE"), rows)


def _list_late(found: Iterable[Letter]) -> None:
    rows = []
    for letter in found:
        message = letter.message
        assert isinstance(message, LateRecord)
        rows.append(
            (
                letter.id,
                render.instant(letter.timestamp_ms),
                f"{message.processor}[{message.task}]",
                _place(message),
                render.instant(message.bucket_ms),
                render.instant(message.last_bucket_ms),
                message.late_ms,
            )
        )
    heads = ("ID", "WRITTEN", "PROCESSOR", "RECORD", "BUCKET", "LAST CLOSED", "LATE MS")
    render.table(heads, rows, numbers=("LATE MS",))


def _count(found: Iterable[Letter], limit: int | None, *, late: bool, as_json: bool) -> None:
    kinds: Counter[tuple[str, str, str, str]] = Counter()
    last: dict[tuple[str, str, str, str], int] = {}
    for letter in found:
        message = letter.message
        code, stack = (
            (message.code, message.stack_digest) if isinstance(message, DeadLetter) else ("late", "")
        )
        kind = (message.processor, message.topic, code, stack)
        kinds[kind] += 1
        last[kind] = max(last.get(kind, 0), letter.timestamp_ms)
    ordered = sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    render.left_off(len(ordered), len(kinds), "kinds", as_json=as_json)
    if as_json:
        for (processor, topic, code, stack), number in ordered:
            render.json_line(
                {
                    "processor": processor,
                    "topic": topic,
                    "code": None if late else code,
                    "stack_digest": stack or None,
                    "count": number,
                    "last_ms": last[processor, topic, code, stack],
                }
            )
        return
    rows = [(number, *kind[:3], kind[3] or "-", render.instant(last[kind])) for kind, number in ordered]
    render.table(("COUNT", "PROCESSOR", "TOPIC", "CODE", "STACK", "LAST WRITTEN"), rows, numbers=("COUNT",))


def _place(message: DeadLetter | LateRecord) -> str:
    return f"{message.topic}[{message.partition}]@{message.offset}"


def _short_json(letter: Letter, back: bool) -> dict[str, Any]:
    message = letter.message
    out: dict[str, Any] = {
        "id": letter.id,
        "written_ms": letter.timestamp_ms,
        "processor": message.processor,
        "task": message.task,
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "key_bytes": message.key_bytes if message.key_bytes is not None else len(message.key),
        "value_bytes": message.value_bytes if message.value_bytes is not None else len(message.value or b""),
        "whole": not message.digest,
    }
    match message:
        case DeadLetter():
            out |= {
                "code": message.code,
                "cause": message.cause,
                "error_type": message.error_type or None,
                "stack_digest": message.stack_digest or None,
                "attempts": message.attempts,
                "redriven": back,
            }
        case LateRecord():
            out |= {
                "bucket_ms": message.bucket_ms,
                "last_bucket_ms": message.last_bucket_ms,
                "late_ms": message.late_ms,
            }
    return out


# ---- show -----------------------------------------------------------------------------------------------------


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("--all", "whole", is_flag=True, help=f"Every byte, not the first {DUMPED_BYTES} alone.")
@log_option
@format_option
def show(letter_id: str, whole: bool, log_address: str, as_json: bool) -> None:
    """The letter ID with the record in it: decoded where that is possible, else byte for byte."""
    from qmtl.foundation.wire.registry import codec

    with reading(log_address) as log:
        letter = one(log, letter_id)
        done = written_back(log)
    message = letter.message
    facts = _short_json(letter, letter.id in done)
    key, value = records.key_json(message.key), records.value_json(message.value, codec)
    if message.digest:
        facts["digest"] = message.digest
    if as_json:
        render.json_object({**facts, "key": key, **value})
        return
    shown = [(name, _fact(name, fact)) for name, fact in facts.items() if fact is not None]
    render.table(("FACT", "VALUE"), shown)
    if message.digest:
        render.note(
            "the record was too large for its letter: what follows is its head; the whole is in its topic"
        )
    render.line()
    if isinstance(key, list):
        render.line(f"key    {records.key_text(key)}")
    else:
        render.line("key    not one of ours")
        _dump(message.key, whole)
    if value["type"] is not None:
        render.line(f"value  {value['type']} {records.value_text(value)}")
    elif message.value is not None:
        render.line(f"value  not decodable [{value.get('error')}]")
        _dump(message.value, whole)


def _fact(name: str, fact: object) -> object:
    return (
        f"{fact} ({render.instant(fact)})"
        if name.endswith("_ms") and name != "late_ms" and isinstance(fact, int)
        else fact
    )


def _dump(data: bytes, whole: bool) -> None:
    """Offset, bytes in hexadecimal, and those that are printable ASCII."""
    shown = data if whole else data[:DUMPED_BYTES]
    for at in range(0, len(shown), _ROW_BYTES):
        row = shown[at : at + _ROW_BYTES]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        render.line(f"{at:08x}  {row.hex(' '):<{3 * _ROW_BYTES - 1}}  {text}")
    if len(shown) < len(data):
        render.note(f"{len(data) - len(shown)} more bytes; --all shows them")


# ---- redrive --------------------------------------------------------------------------------------------------


@dlq.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@_filters
@click.option(
    "--all", "everything", is_flag=True, help="All letters, where neither ids nor filters are given."
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Write back what this version can't read, too.")
@click.option("--yes", is_flag=True, help="Write; without it nothing is written.")
@log_option
@format_option
def redrive(
    letter_ids: tuple[str, ...],
    processor: str | None,
    topic: str | None,
    code: str | None,
    from_time: int | None,
    to_time: int | None,
    everything: bool,
    dry_run: bool,
    force: bool,
    yes: bool,
    log_address: str,
    as_json: bool,
) -> None:
    """Write the records of letters back to the topics that they came from, once each.

    The original bytes become a new record at the end of the same partition, and the letter is noted as written back in the same
    transaction: running it again adds nothing. What is read by bucket can't go back into a closed bucket, and is refused.
    """
    wanted = Wanted(processor, topic, code, from_time, to_time)
    if sum((bool(letter_ids), not wanted.all, everything)) != 1:
        raise UsageError(
            "which letters are meant was said not at all, or in more than one way.",
            "Give ids, or filters, or --all.",
        )
    if not (yes or dry_run):
        raise UsageError(
            "redrive writes into topics of the log; nothing was written.",
            "Look with --dry-run, then say --yes.",
        )
    if dry_run:
        with reading(log_address) as log:
            plans = _plans(
                Redrive(log, force=force), _chosen(log, letter_ids, wanted), by_id=bool(letter_ids)
            )
            _tell(plans, None, as_json)
        return
    from qmtl.bootstrap import open_log
    from qmtl.interfaces.cli.session import now_ms

    log = open_log(log_address)
    try:
        driver = Redrive(log, force=force)
        plans = _plans(driver, _chosen(log, letter_ids, wanted), by_id=bool(letter_ids))
        written = driver.write(plans, now_ms())
    finally:
        log.close()
    _tell(plans, written, as_json)


def _chosen(log: Any, letter_ids: tuple[str, ...], wanted: Wanted) -> Iterable[Letter]:
    if letter_ids:
        return [one(log, letter_id) for letter_id in dict.fromkeys(letter_ids)]
    return find(log, DEAD, wanted)


def _plans(driver: Redrive, letters: Iterable[Letter], *, by_id: bool) -> list[Plan]:
    """A letter that was named and can't be written back is an error; of many, it is told beside the others."""
    plans = [driver.plan(letter) for letter in letters]
    for plan in plans:
        if by_id and plan.refusal and not plan.done:
            raise RedriveRefused(
                f"{plan.letter.id} can't be written back: {plan.refusal}.", "Nothing was written."
            )
    return plans


def _tell(plans: list[Plan], written: list[Plan] | None, as_json: bool) -> None:
    ids = {plan.letter.id for plan in written or ()}
    rows = []
    for plan in plans:
        message = plan.letter.message
        if plan.refusal:
            what = "done before" if plan.done else "refused"
        else:
            what = "would write" if written is None else "written" if plan.letter.id in ids else "done before"
        size = len(plan.value or b"")
        rows.append((plan.letter.id, f"{message.topic}[{message.partition}]", what, size, plan.refusal))
    if as_json:
        for letter_id, goal, what, size, reason in rows:
            render.json_line(
                {"id": letter_id, "to": goal, "outcome": what, "bytes": size, "reason": reason or None}
            )
        return
    render.table(("ID", "TO", "OUTCOME", "BYTES", "REASON"), rows, numbers=("BYTES",))
