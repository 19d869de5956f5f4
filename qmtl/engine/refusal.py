"""Tells a refusal, which keeps one task closed, from what ends its worker; and a topic of letters that takes none.

A transaction that fails is run again. One that fails because its letters can't be written would be run again for ever, or its
records be skipped; so the task stops, where it is, until somebody has seen to the topic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeGuard

from qmtl.engine.log.port import Log
from qmtl.engine.observer import TaskId
from qmtl.engine.transaction import Transaction
from qmtl.foundation.common.errors import (
    CrashLoop,
    CutMismatch,
    DeadLettersRefused,
    Fenced,
    HandlerBroken,
    InvalidTopology,
    InvariantBroken,
    LogError,
    MissingRight,
    QmtlError,
    UnknownTopic,
)

LETTERS: Final = ("dead.letters", "late.records")
_NOTE: Final = ".refused"
_WAITED: Final = "timed out"
"""What a log says of a record that it could not be asked about in time; the topic may be as sound as can be."""


def is_refusal(error: BaseException) -> TypeGuard[QmtlError]:
    """Whether an error says that one task can't go on, and nothing against the others of its worker.

    A lost slot, a right that is missing, or code that is wrong concern them all.
    """
    match error:
        case CutMismatch() | HandlerBroken() | CrashLoop():
            return True
        case Fenced() | MissingRight() | InvariantBroken() | InvalidTopology():
            return False
        case _:
            return isinstance(error, QmtlError)


def note_refusal(state_dir: Path, task: TaskId, error: QmtlError | None) -> None:
    """Leave beside a task's store why it is kept closed, for who looks from outside; None where it is not any more.

    A note that can't be written is left out: the observer is told in any case.
    """
    file = state_dir / f"{task.processor}-{task.number}{_NOTE}"
    with suppress(OSError):
        if error is None:
            file.unlink(missing_ok=True)
            return
        state_dir.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(file.name + ".new")
        fresh.write_text(json.dumps([task, error.code, error.what, error.remedy]))
        fresh.replace(file)


def noted_refusals(state_dir: Path) -> dict[TaskId, str]:
    """What the workers of a state directory keep closed, sorted, with code, cause and remedy.

    The note of a worker that was killed stays until the task is opened there again.
    """
    out = {}
    for file in sorted(state_dir.glob(f"*{_NOTE}")):
        with suppress(OSError, ValueError, TypeError):  # it has gone, or is none of ours
            (processor, number), code, what, remedy = json.loads(file.read_bytes())
            out[TaskId(processor, number)] = f"[{code}] {what} {remedy}".rstrip()
    return dict(sorted(out.items()))


def require_letters(log: Log, run: Transaction, error: LogError) -> None:
    """Nothing, unless a letter in a failed transaction is why it failed.

    A log that is asked for a topic knows whether it is there; of a right that is missing, or a limit on size, it tells only by
    naming the topic in the failure.

    Raises:
        DeadLettersRefused: it is.
    """
    if isinstance(error, Fenced):  # the slot is another's, whatever else is wrong
        return
    for name in LETTERS:
        if not run.wrote(name):
            continue
        if isinstance(error, UnknownTopic) or _is_gone(log, name):
            reason = "the log has no such topic"
        elif told := [what for what in _failures(error) if f"{name} [" in what and _WAITED not in what]:
            reason = told[0]
        else:
            continue
        raise DeadLettersRefused(
            f"{name} takes no letters, so a record that can't be used can't be put aside: {reason}.",
            f"Make {name} again, or give the right to write it; the task then goes on where it stopped.",
        ) from error


def _failures(error: BaseException | None) -> Iterator[str]:
    """What a failure says, and those before it: an abort that fails too is told of last, and knows nothing of the reason."""
    while error is not None:
        if isinstance(error, LogError):
            yield error.what
        error = error.__context__


def _is_gone(log: Log, name: str) -> bool:
    try:
        return log.describe(name) is None
    except LogError:  # nobody answers: then that is why it failed, and the topic may be as sound as can be
        return False
