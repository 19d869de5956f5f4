"""`qmtl replay`: proves that the live state is what the log says, and gives every topic a digest to compare runs by."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from qmtl.engine.view import all_partitions
from qmtl.foundation.common.errors import ReplayDiffers
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli import records, render
from qmtl.interfaces.cli.options import format_option, log_option, reading, state_dir_of, state_dir_option
from qmtl.replay.digest import digests
from qmtl.replay.rerun import RerunReport, rerun
from qmtl.replay.verify import Against, Difference, TaskReport, verify

_SHOWN_CHARACTERS = 500


@click.group()
def replay() -> None:
    """Rebuild tables from the log and compare them with the live ones."""


@replay.command("verify")
@log_option
@state_dir_option
@format_option
def verify_command(log_address: str, state_dir: Path | None, as_json: bool) -> None:
    """Rebuild every table from the log and compare it, byte for byte, with the live store of each task.

    It works while workers run: each table is rebuilt up to the live store's checkpoint. Where there is no live store, the log is
    folded to its end, every row decoded, and the positions in the tables compared with the committed ones. Exit code 9 says
    that something differs, and the first difference is named.
    """
    from qmtl.topology import NOWHERE, TOPOLOGY  # the whole system, which no other verb here needs

    makers = [partial(one.make, NOWHERE) for one in TOPOLOGY]
    tasks_dir = state_dir_of(log_address, state_dir) / "tasks"
    with (
        reading(log_address) as log,
        tempfile.TemporaryDirectory(prefix="qmtl-verify-") as scratch,
        render.progress() as advance,
    ):
        reports = list(verify(log, codec, makers, tasks_dir, Path(scratch), time.perf_counter, advance))
    _show(reports, tasks_dir, as_json)
    found = [(report, one) for report in reports for one in report.differences]
    if found:
        raise _differs(*found[0], more=len(found) - 1)


def _show(reports: Sequence[TaskReport], tasks_dir: Path, as_json: bool) -> None:
    if as_json:
        render.json_object(
            {
                "equal": not any(report.differences for report in reports),
                "tasks": [_task_json(one) for one in reports],
            }
        )
        return
    rows = [
        (
            f"{report.processor}[{report.task}]",
            one.table,
            one.rows,
            "-" if one.equal is None else one.equal,
            f"{one.seconds:.3f}",
            "differs" if one.difference is not None else "ok",
        )
        for report in reports
        for one in report.tables
    ]
    render.table(
        ("TASK", "TABLE", "ROWS", "EQUAL", "SECONDS", "RESULT"), rows, numbers=("ROWS", "EQUAL", "SECONDS")
    )
    render.line()
    for against, told in _TOLD.items():
        tasks = [f"{one.processor}[{one.task}]" for one in reports if one.against is against]
        if tasks:
            render.line(f"{', '.join(tasks)}: {told.format(tasks_dir=tasks_dir)}")


_TOLD = {
    Against.STORE: "compared with the live store in {tasks_dir}, at its checkpoint.",
    Against.NOTHING: (
        "no live store in {tasks_dir}. The log folds, every row decodes, and the tables' positions are the committed ones;"
        " name the stores with --state-dir to compare them."
    ),
    Against.OTHER_LOG: "the store in {tasks_dir} was built from another log, so it was not compared; the log alone was folded.",
    Against.OUTDATED: (
        "the store in {tasks_dir} is older than what compaction keeps, so it was not compared; the log alone was folded."
        " Start its worker once and verify again."
    ),
}


def _task_json(report: TaskReport) -> dict[str, Any]:
    return {
        "processor": report.processor,
        "task": report.task,
        "against": report.against.name.lower(),
        "records": report.records,
        "difference": _difference_json(report.difference),
        "tables": [
            {
                "table": one.table,
                "rows": one.rows,
                "equal": one.equal,
                "seconds": round(one.seconds, 6),
                "difference": _difference_json(one.difference),
            }
            for one in report.tables
        ],
    }


def _difference_json(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    out: dict[str, Any] = {"what": found.what}
    if found.key is not None:
        out["key"] = records.key_json(found.key)
        out["live"] = records.value_json(found.live, codec)
        out["rebuilt"] = records.value_json(found.rebuilt, codec)
    return out


def _differs(report: TaskReport, found: Difference, more: int) -> ReplayDiffers:
    task = f"{report.processor}[{report.task}]"
    remedy = (
        "Stop the worker and delete its store, which is rebuilt from the log; if it differs again, keep both: it is a bug."
        if report.against is Against.STORE
        else "The log was altered, or its offsets were reset."
    )
    if more:
        remedy = f"{more} more tables differ. {remedy}"
    if found.key is None:
        return ReplayDiffers(f"{task}: {found.what}.", remedy)
    key = records.key_text(records.key_json(found.key))
    sides = f"live has {_side(found.live)}, the log gives {_side(found.rebuilt)}"
    return ReplayDiffers(f"{task}, table {found.table}, key {key}: {found.what}: {sides}.", remedy)


def _side(value: bytes | None) -> str:
    if value is None:
        return "no row"
    shown = records.value_json(value, codec)
    text = f"{records.type_text(shown)} {records.value_text(shown)}"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


@replay.command("run")
@click.argument("names", nargs=-1, metavar="[PROCESSOR]...")
@log_option
@format_option
def run_command(names: tuple[str, ...], log_address: str, as_json: bool) -> None:
    """Compute every output anew from the inputs, by the interleaving that the live run wrote down, and compare the bytes.

    Nothing on the log is touched. The functions of Python nodes are those in the packages that QMTL_CODE names. Without names: every processor but the effects. Exit code 9 says that something differs, or
    that the log no longer holds all that was read.
    """
    from qmtl.bootstrap import functions_of
    from qmtl.topology import NOWHERE, TOPOLOGY, stage

    nowhere = replace(NOWHERE, functions=functions_of())
    chosen = [stage(name) for name in names] or [one for one in TOPOLOGY if one.make(NOWHERE).tables]
    reports = []
    with (
        reading(log_address) as log,
        tempfile.TemporaryDirectory(prefix="qmtl-replay-") as scratch,
        render.progress() as advance,
    ):
        for one in chosen:
            prototype = one.make(NOWHERE)
            for where in all_partitions(log, prototype.anchor):
                place = Path(scratch) / f"{prototype.name}-{where.partition}"
                reports.append(rerun(log, codec, partial(one.make, nowhere), where.partition, place, advance))
    _show_reruns(reports, as_json)
    differing = [(report, one) for report in reports for one in report.differences]
    if differing:
        report, output = differing[0]
        raise ReplayDiffers(
            f"{report.processor}[{report.task}], {output.topic}: {output.difference}.",
            "The log holds all that was read: something on it was altered, the code is another, or it is a bug.",
        )


def _show_reruns(reports: Sequence[RerunReport], as_json: bool) -> None:
    if as_json:
        render.json_object(
            {
                "equal": not any(report.differences for report in reports),
                "tasks": [
                    {
                        "processor": report.processor,
                        "task": report.task,
                        "steps": report.steps,
                        "outputs": [
                            {"topic": one.topic, "records": one.records, "difference": one.difference or None}
                            for one in report.outputs
                        ],
                    }
                    for report in reports
                ],
            }
        )
        return
    rows = [
        (
            f"{report.processor}[{report.task}]",
            report.steps,
            one.topic,
            one.records,
            "differs" if one.difference else "ok",
        )
        for report in reports
        for one in report.outputs
    ]
    render.table(("TASK", "STEPS", "OUTPUT", "RECORDS", "RESULT"), rows, numbers=("STEPS", "RECORDS"))


@replay.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@log_option
@format_option
def digest(topics: tuple[str, ...], log_address: str, as_json: bool) -> None:
    """One hash per topic over what it says, without offsets, partitions and times: two runs that did the same give the same.

    A table is hashed by its newest values, a stream by each key's values in order; close markers count, without the positions
    in them. Without names: the topics of the catalogue and of all nodes.
    """
    with reading(log_address) as log:
        found = digests(log, codec, topics or None)
    if as_json:
        render.json_object(found)
        return
    width = max((len(name) for name in found), default=0)
    for name, text in found.items():
        render.columns((name, text), (width,))
