"""The backtests of a release: what a report has to say, and which of them count.

A report is somebody's word. It counts if it says what was run, and says something that no other one of the release says: the same data
over the same range is the same test, under whatever id it comes.
"""

from __future__ import annotations

import re
from typing import Final

from qmtl.foundation.common.errors import CommandRefused, RepeatedBacktest, ReusedId
from qmtl.foundation.contracts.release import BacktestRun, Release, ReportBacktest
from qmtl.services.dagmanager.act import LAST_MS

MAX_TEXT: Final = 200
"""Characters of an id, a fingerprint, and a reason."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def require_told(message: ReportBacktest) -> None:
    """Hold a report to its rules; one of a backtest that failed may leave out what it ran.

    Raises:
        CommandRefused: names the field, what it was, and the rule.
    """
    require_text("run_id", message.run_id)
    if message.detail:
        require_text("detail", message.detail)
    if message.passed or message.dataset_fingerprint:
        require_text("dataset_fingerprint", message.dataset_fingerprint)
    if message.passed or message.from_ms or message.to_ms:
        _require_range(message.from_ms, message.to_ms)
    if (message.passed or message.result_digest) and _DIGEST.fullmatch(message.result_digest) is None:
        raise CommandRefused(
            f"result_digest was the text {message.result_digest[:80]!a}; 64 hex digits in lower case are required.",
            "Give the BLAKE3 of the result, as `b3sum` tells it.",
        )


def counted(release: Release, message: ReportBacktest) -> BacktestRun | None:
    """The run of a report that passed; None where it counts already, as the same was said before.

    Raises:
        ReusedId: its id is that of a run of something else.
        RepeatedBacktest: another run of the release was over the same data and range.
    """
    run = BacktestRun(
        message.run_id, message.dataset_fingerprint, message.from_ms, message.to_ms, message.result_digest
    )
    for one in release.runs:
        if one == run:
            return None
        if one.run_id == run.run_id:
            raise ReusedId(
                f"run_id was the text {run.run_id!a}, under which another backtest was reported: {_told(one)}; this is {_told(run)}.",
                "Report it under an id of its own.",
            )
        if _ran_over(one) == _ran_over(run):
            results = (
                "with the same result"
                if one.result_digest == run.result_digest
                else "with another result, so it can't be repeated"
            )
            raise RepeatedBacktest(
                f"dataset_fingerprint, from_ms and to_ms were those of backtest {one.run_id!a}, {results}.",
                "A backtest counts once: run it over other data, or another range.",
            )
    return run


def require_text(name: str, text: str) -> None:
    """Raises: CommandRefused, where a text is blank or too long."""
    if not text.strip() or len(text) > MAX_TEXT:
        raise CommandRefused(
            f"{name} was a text of {len(text)} characters; 1 to {MAX_TEXT} are required, not only blanks.",
            "Say it in a word or two.",
        )


def _require_range(from_ms: int, to_ms: int) -> None:
    for name, value in (("from_ms", from_ms), ("to_ms", to_ms)):
        if not 0 <= value <= LAST_MS:
            raise CommandRefused(
                f"{name} was the number {value}; epoch milliseconds from 0 to {LAST_MS} are required.",
                "Say where the range of the backtest begins and ends.",
            )
    if from_ms >= to_ms:
        raise CommandRefused(
            f"from_ms was the number {from_ms} and to_ms {to_ms}; the range of a backtest begins before it ends.",
            "Say where the range of the backtest begins and ends.",
        )


def _ran_over(run: BacktestRun) -> tuple[str, int, int]:
    return run.dataset_fingerprint, run.from_ms, run.to_ms


def _told(run: BacktestRun) -> str:
    return f"{run.dataset_fingerprint!a} {run.from_ms}..{run.to_ms} result {run.result_digest}"
