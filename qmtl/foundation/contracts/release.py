"""Releases: a DAG message that passes its backtests is deployed step by step, and stops where anything comes in between."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ReleaseStage(Enum):
    """How far a release is. One that is deployed or abandoned is over, and nothing more is done for it."""

    BACKTESTS = "backtests"
    CANARY = "canary"
    HALF = "half"
    DEPLOYED = "deployed"
    ABANDONED = "abandoned"

    @property
    def is_over(self) -> bool:
        return self in (ReleaseStage.DEPLOYED, ReleaseStage.ABANDONED)


@dataclass(frozen=True, slots=True)
class StartRelease:
    """Release a DAG message: UTF-8 JSON of at most 1 MiB, admitted as a submission is. The id of the command is that of the release."""

    command_id: str
    world_id: str
    dag_json: bytes
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class ReportBacktest:
    """What a backtest ran, and what became of it; one that failed ends its release.

    Attributes:
        run_id: of the backtest; each counts once.
        digest: of the message that it ran, BLAKE3 of its bytes in hex.
        detail: why it failed.
        dataset_fingerprint: of the data that it ran over. This and what follows may be left out of one that failed.
        from_ms: where its range begins, epoch ms.
        to_ms: where it ends, epoch ms, not a part of it.
        result_digest: of its result, BLAKE3 in 64 hex digits.
    """

    command_id: str
    release_id: str
    run_id: str
    digest: str
    passed: bool
    issued_at_ms: int
    detail: str = ""
    dataset_fingerprint: str = ""
    from_ms: int = 0
    to_ms: int = 0
    result_digest: str = ""


@dataclass(frozen=True, slots=True)
class AbandonRelease:
    """Go no further with a release. Its version keeps the share of the traffic that it has.

    Attributes:
        reason: why; not empty.
    """

    command_id: str
    release_id: str
    reason: str
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class BacktestRun:
    """A backtest that counts: no other one of its release has its id, or ran over the same data and range.

    Attributes:
        from_ms: where its range begins, epoch ms.
        to_ms: where it ends, epoch ms, not a part of it.
        result_digest: of its result, BLAKE3 in hex.
    """

    run_id: str
    dataset_fingerprint: str
    from_ms: int
    to_ms: int
    result_digest: str


@dataclass(frozen=True, slots=True)
class Release:
    """A row of `dag.releases`, kept for 210 days of the clock's ticks after its release is over.

    Attributes:
        release_id: of the command that began it, and of its submission.
        version: what the message calls itself.
        digest: of the message, BLAKE3 of its bytes in hex.
        beside_id: the version that had the strategy's traffic when the release began; empty where none had.
        runs: the backtests that passed and count, in the order of their reports. Rows of old have ids alone (`backtests`), and
            what did not say what it ran does not count.
        sentinel_id: of its version; empty until there is one.
        share: what it has given its version last, in basis points.
        since_ms: the first tick that found it in its stage, and its version active where it has one; None before.
        detail: why it was abandoned, or what it waits for.
        unread: names of nodes that nobody in the message reads, the first ten; something to look at, and no reason to refuse it.
    """

    release_id: str
    world_id: str
    strategy_id: str
    version: str
    digest: str
    stage: ReleaseStage
    started_at_ms: int
    beside_id: str = ""
    sentinel_id: str = ""
    share: int = 0
    since_ms: int | None = None
    detail: str = ""
    runs: tuple[BacktestRun, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseMessage:
    """The message of a release that has no version yet: a row of `dag.release.messages`."""

    release_id: str
    dag_json: bytes
