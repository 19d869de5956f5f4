"""`qmtl lag`: how far behind the log every processor is, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.contracts.control import GENESIS_MS
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, reading, rows_options

if TYPE_CHECKING:
    from qmtl.engine.lag import InputLag
    from qmtl.engine.watermark import Wait
    from qmtl.interfaces.standing import TaskStanding

WAITS_SHOWN: Final = 3
"""So many partitions for which a task waits are named."""


@click.command()
@click.option(
    "--group",
    "group",
    metavar="NAME",
    help="One processor, or any group that has committed positions; all processors where not given.",
)
@rows_options
@log_option
@format_option
def lag(group: str | None, limit: int | None, log_address: str, as_json: bool) -> None:
    """How far behind its inputs every processor is: in offsets, records, buckets and seconds of event time.

    POSITION is what the processor's group has committed. LAG is in offsets, to the high watermark; STABLE LAG is to the last
    stable offset, which is as far as anybody can read now: between the two lies what an open transaction holds up. Offsets have
    gaps, so RECORDS says how many records really wait, where they are few enough to be counted. CLOSED is the newest bucket of
    the input, OWN that of the processor. Where a processor closes no bucket because an input has not closed the one that is needed,
    a line says which. Of more inputs than --limit those are shown that are farthest behind.
    """
    from qmtl.foundation.wire.registry import codec
    from qmtl.interfaces.standing import group_of, standings
    from qmtl.topology import PROTOTYPES

    named = [one for one in PROTOTYPES if group in (None, one.name, group_of(one.name))]
    with reading(log_address) as log:
        found = standings(log, named, codec, [] if named or group is None else [group])
    if group is not None and not found and not named:
        raise UsageError(
            f"--group was {group!r}; no processor has that name, and no group has committed under it.",
            "`qmtl worker names` lists the processors.",
        )
    for task in found:
        for one in task.inputs:
            if one.where in task.stuck:
                render.note(_explained(task, one))
        for wait in task.waits[:WAITS_SHOWN]:
            render.note(_waits(task, wait))
        if len(task.waits) > WAITS_SHOWN:
            render.note(f"{_who(task)} waits for {len(task.waits) - WAITS_SHOWN} more partitions.")
    every = [(task, one) for task in found for one in task.inputs]
    shown = farthest_behind(every, limit)
    if as_json:
        for task, one in shown:
            render.json_line(as_row(task, one))
        render.left_off(len(shown), len(every), "inputs", as_json=True)
        return
    render.table(
        (
            "PROCESSOR",
            "TASK",
            "INPUT",
            "POSITION",
            "STABLE",
            "HIGH WATERMARK",
            "LAG",
            "STABLE LAG",
            "RECORDS",
            "CLOSED",
            "OWN",
            "BUCKETS",
            "SECONDS",
        ),
        [_cells(task, one) for task, one in shown],
        numbers=(
            "TASK",
            "POSITION",
            "STABLE",
            "HIGH WATERMARK",
            "LAG",
            "STABLE LAG",
            "RECORDS",
            "BUCKETS",
            "SECONDS",
        ),
    )
    render.left_off(len(shown), len(every), "inputs", as_json=False)


def farthest_behind(
    inputs: Sequence[tuple[TaskStanding, InputLag]], limit: int | None
) -> list[tuple[TaskStanding, InputLag]]:
    """So many inputs with the largest lags, in the order in which they were given; of equal ones the first."""
    if limit is None or len(inputs) <= limit:
        return list(inputs)
    farthest = sorted(range(len(inputs)), key=lambda at: (-inputs[at][1].lag, at))[:limit]
    return [inputs[at] for at in sorted(farthest)]


def as_row(task: TaskStanding, one: InputLag) -> dict[str, Any]:
    """One line of JSON; what is not known is null."""
    return {
        "group": task.group,
        "processor": task.processor,
        "task": task.number,
        "topic": one.where.topic,
        "partition": one.where.partition,
        "position": one.position,
        "start": one.begin,
        "stable": one.stable,
        "high_watermark": one.high_watermark,
        "lag": one.lag,
        "lag_stable": one.lag_stable,
        "records": one.records,
        "closed_ms": one.closed_ms,
        "own_ms": one.own_ms,
        "lag_buckets": one.buckets,
        "lag_seconds": one.seconds,
        "needed_ms": next((wait.needed_ms for wait in task.waits if wait.where == one.where), None),
        "open_transaction": one.where in task.stuck,
    }


def _cells(task: TaskStanding, one: InputLag) -> tuple[object, ...]:
    records = f"≤{one.lag_stable}" if one.records is None else one.records
    return (
        task.processor or task.group,
        "-" if task.number is None else task.number,
        f"{one.where.topic}[{one.where.partition}]",
        "-" if one.position is None else one.position,
        one.stable,
        one.high_watermark,
        one.lag,
        one.lag_stable,
        records,
        "-" if one.closed_ms is None else render.instant(one.closed_ms),
        "-" if one.own_ms is None else render.instant(one.own_ms),
        "-" if one.buckets is None else one.buckets,
        "-" if one.seconds is None else f"{one.seconds:g}",
    )


def _who(task: TaskStanding) -> str:
    return task.group if task.processor is None else f"{task.processor}[{task.number}]"


def _waits(task: TaskStanding, wait: Wait) -> str:
    needed = (
        "its genesis marker" if wait.needed_ms == GENESIS_MS else f"bucket {render.instant(wait.needed_ms)}"
    )
    if wait.have_ms is None:
        have = "it has closed none"
    elif wait.have_ms == GENESIS_MS:
        have = "it has closed genesis alone"
    else:
        have = f"its newest is {render.instant(wait.have_ms)}"
    return (
        f"{_who(task)} closes no bucket until {wait.where.topic}[{wait.where.partition}] has closed {needed}; {have}."
        " Whoever writes that topic has to close it: `qmtl lag` says how far that one is."
    )


def _explained(task: TaskStanding, one: InputLag) -> str:
    return (
        f"{_who(task)} waits behind an open transaction: of {one.where.topic}[{one.where.partition}] the last stable offset stays at"
        f" {one.stable}, and {one.unsettled} offsets up to the high watermark {one.high_watermark} have no outcome."
        " Its writer commits it, or the broker aborts it at its time-out; one that hangs is found with"
        " `kafka-transactions.sh find-hanging`."
    )
