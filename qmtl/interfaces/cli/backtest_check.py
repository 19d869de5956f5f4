"""`qmtl backtest --check`: whether a strategy sees the future or hangs on more than its bars, as a table or JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qmtl.foundation.common.errors import CheckFailed
from qmtl.foundation.common.wording import counted
from qmtl.interfaces.cli import render

if TYPE_CHECKING:
    from qmtl.backtest.honesty.findings import Finding, Report
    from qmtl.backtest.simulation import Terms
    from qmtl.runtime.columns import BarColumns

F = TypeVar("F", bound=Callable[..., Any])

CUTS = 8
STARTS = 4


def check_options(command: F) -> F:
    """`--check`, `--check-cuts N` and `--check-starts N`, given to the command as `is_checked`, `cut_count` and `start_count`."""
    for option in reversed(
        (
            click.option(
                "--check",
                "is_checked",
                is_flag=True,
                help="Run the strategy many times with one thing changed (the future, the beginning, hash seed, clock, chance, order), and name"
                " each node that answers otherwise; exit code 1 if there is one.",
            ),
            click.option(
                "--check-cuts",
                "cut_count",
                type=click.IntRange(1, 1000),
                default=CUTS,
                show_default=True,
                metavar="N",
                help="Instants after which --check changes the future, in four ways each.",
            ),
            click.option(
                "--check-starts",
                "start_count",
                type=click.IntRange(1, 1000),
                default=STARTS,
                show_default=True,
                metavar="N",
                help="Later beginnings of the data that --check tries.",
            ),
        )
    ):
        command = option(command)
    return command


def run_check(
    messages: Sequence[bytes],
    bars: Mapping[str, BarColumns],
    terms: Terms,
    *,
    packages: Sequence[str] = (),
    cut_count: int = CUTS,
    start_count: int = STARTS,
) -> Report:
    """Check strategies, with progress on stderr.

    Args:
        packages: that may be imported to find functions, beside modules that are imported already.

    Raises:
        InvalidDag, InvalidValue, CodeMissing, CodeDiffers, TrialLost: as `qmtl.backtest.honesty.check.check`.
    """
    from qmtl.backtest.honesty.check import check

    with render.progress() as advance:
        return check(
            messages,
            bars,
            terms,
            packages=packages,
            cut_count=cut_count,
            start_count=start_count,
            progress=advance,
        )


def failure_of(report: Report) -> CheckFailed:
    """The error with which a check ends that has found something."""
    count = len(report.findings)
    names = list(dict.fromkeys(one.node for one in report.findings if one.node))
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    where = f" in {shown}" if names else ""
    return CheckFailed(
        f"{counted(count, 'finding')}{where}; a backtest of this strategy does not say what it would do live.",
        "Mend what is named above and check again: a node behind another one that was named is judged once that one is mended.",
    )


def render_findings(report: Report) -> None:
    """What the checks did and found, on stdout."""
    render.line(f"Checked over {counted(report.buckets, 'bucket')} of {', '.join(report.symbols)}.")
    render.line()
    rows = [(one.check.value, one.runs, len(one.findings) or "none", one.did) for one in report.checks]
    render.table(("CHECK", "RUNS", "FOUND", "WHAT WAS DONE"), rows, numbers=("RUNS", "FOUND"))
    if report.settlings:
        render.line()
        rows_of_nodes = [
            (
                one.node,
                one.warm_up,
                "not before the end" if one.settled is None else one.settled,
                f"{one.largest:.3g}" if one.largest else "0",
                one.missing,
            )
            for one in report.settlings
        ]
        render.table(
            ("NODE", "WARM-UP", "SAME FROM BAR", "LARGEST DIFFERENCE", "OTHER ANSWERS"),
            rows_of_nodes,
            title="From which bar on a node gives the same wherever the data begin",
            numbers=("WARM-UP", "SAME FROM BAR", "LARGEST DIFFERENCE", "OTHER ANSWERS"),
        )
    for check in report.checks:
        for note in check.notes:
            render.line()
            render.line(f"{check.check.value}: {note}.")
    render.line()
    for check in report.checks:
        render.line(f"{check.check.value} does not see {check.blind}.")
    for one in report.findings:
        render.line()
        render.line(f"[{one.cause.value}] {one.what}")
        if one.readers or one.intents:
            render.line(f"  {_reached(one)}")
        render.line(f"  {one.remedy}")


def _reached(one: Finding) -> str:
    parts = []
    if one.readers:
        parts.append(f"what reads it differs, too: {', '.join(one.readers)}")
    if one.intents:
        parts.append(f"{one.intents} targets are others")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def findings_object(report: Report) -> dict[str, Any]:
    """The same as a value that `json` can write."""
    return {
        "clean": report.is_clean,
        "buckets": report.buckets,
        "symbols": report.symbols,
        "checks": [
            {
                "check": one.check.value,
                "runs": one.runs,
                "did": one.did,
                "does_not_see": one.blind,
                "notes": one.notes,
                "findings": [_finding(each) for each in one.findings],
            }
            for one in report.checks
        ],
        "settling": [
            {
                "node": one.node,
                "node_id": one.node_id,
                "warm_up": one.warm_up,
                "same_from_bar": one.settled,
                "largest_difference": one.largest,
                "other_answers": one.missing,
            }
            for one in report.settlings
        ],
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "cause": one.cause.value,
        "node": one.node,
        "node_id": one.node_id,
        "code": one.code,
        "symbol": one.symbol,
        "bucket_ms": one.bucket_ms,
        "was": one.was,
        "became": one.became,
        "when": one.changing,
        "readers": one.readers,
        "intents": one.intents,
        "what": one.what,
        "remedy": one.remedy,
    }
