"""`qmtl strategy`: what an author's strategy is, publishing it, and running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import (
    F,
    context_options,
    format_option,
    instant,
    interval_s,
    log_option,
    wait_option,
)
from qmtl.interfaces.cli.publishing import publish_message, weight_option

if TYPE_CHECKING:
    from qmtl.interfaces.running.events import RunEvent


@click.group()
def strategy() -> None:
    """Look at strategies, publish them and run them.

    STRATEGY is FILE.py, FILE.py:CLASS where the file has several, package.module:CLASS, or a DAG message FILE.json.
    """


def _interval_option(command: F) -> F:
    return click.option(
        "--interval",
        callback=interval_s,
        metavar="TIME",
        help="Of a strategy that has none: 60, 60s, 15m, 1h, 1d.",
    )(command)


def _code_option(command: F) -> F:
    return click.option(
        "--code",
        "packages",
        multiple=True,
        metavar="PACKAGE",
        help="On an embedded log: a package whose functions nodes of other strategies may run, beside those in QMTL_CODE. May be given again.",
    )(command)


@strategy.command("show")
@click.argument("spec", metavar="STRATEGY")
@click.option(
    "--message", "message_only", is_flag=True, help="Print the DAG message alone, in canonical form."
)
@_interval_option
@format_option
def show(spec: str, interval: int | None, message_only: bool, as_json: bool) -> None:
    """Show what STRATEGY is, without any log: its nodes with ids, functions and warm-up, and the message that would be published.

    WARM-UP is the first bucket in which a node can give a value, counted from the first bar on, where every bar is there.
    """
    from decimal import Decimal

    from qmtl.foundation.common.canonical import canonical_json
    from qmtl.runtime.indicators.warm_up import warm_ups
    from qmtl.runtime.sdk.loading import load_strategy, message_of
    from qmtl.services.dagmanager.admission import admit

    message = message_of(load_strategy(spec), interval)
    graph = admit(message, 0)
    canonical = canonical_json(json.loads(message, parse_float=Decimal))
    if message_only:
        render.line(canonical)
        return
    first = warm_ups([one.node for one in graph.nodes])
    names = {one.node.node_id: one.name for one in graph.nodes}
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "type": one.node.node_type,
            "node_id": one.node.node_id,
            "interval": one.node.interval,
            "period": one.node.period,
            "inputs": [names[node_id] for node_id in one.node.dependencies],
            "warm_up": first[one.node.node_id],
            "signal": one.node.node_id in graph.signals,
            "code": one.code,
            "code_hash": one.node.code_hash,
        }
        for one in graph.nodes
    ]
    if as_json:
        facts = {
            "strategy_id": graph.strategy_id,
            "version": graph.version,
            "message": json.loads(canonical),
            "nodes": rows,
        }
        render.json_line(facts)
        return
    heads = ("NAME", "TYPE", "SECONDS", "PERIOD", "WARM-UP", "INPUTS", "NODE ID")
    shown = [
        (
            f"{row['name']}{' (signal)' if row['signal'] else ''}",
            row["type"],
            row["interval"],
            row["period"],
            row["warm_up"],
            " ".join(row["inputs"]) or "-",
            row["node_id"],
        )
        for row in rows
    ]
    numbers = ("SECONDS", "PERIOD", "WARM-UP")
    render.table(heads, shown, title=f"strategy {graph.strategy_id} {graph.version}", numbers=numbers)
    functions = [(row["name"], row["code"], row["code_hash"]) for row in rows if row["code"]]
    if functions:
        render.line()
        render.table(("NODE", "FUNCTION", "HASH"), functions)
    render.line()
    render.line(f"{len(canonical.encode())} bytes as a message: qmtl strategy show {spec} --message")


@strategy.command("publish")
@click.argument("spec", metavar="STRATEGY")
@click.option("--world", "world_id", required=True, help="The world to deploy in.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write the DAG message into this file, too, before it is published.",
)
@_interval_option
@context_options
@weight_option
@_code_option
@log_option
@wait_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(
    spec: str,
    world_id: str,
    out: Path | None,
    interval: int | None,
    execution_domain: str,
    as_of: str,
    partition: str,
    dataset_fingerprint: str,
    weight_bp: int,
    packages: tuple[str, ...],
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Publish STRATEGY to a world, wait until its nodes run, and show which of them are new and which were there.

    As `qmtl dag publish`, from Python: the newest word on a strategy wins. Workers on Kafka find its functions by their import paths
    (`qmtl worker run nodes --code PACKAGE`).
    """
    from qmtl.interfaces.cli.out_file import write
    from qmtl.runtime.sdk.loading import load_strategy, message_of

    message = message_of(load_strategy(spec), interval)
    if out is not None:
        write(out, message)
    context = (execution_domain, as_of, partition, dataset_fingerprint)
    publish_message(message, world_id, context, weight_bp, log_address, wait_s, as_json, packages)


@strategy.command("run")
@click.argument("spec", metavar="STRATEGY")
@click.option("--world", "world_id", required=True, help="The world in which it runs.")
@_interval_option
@context_options
@click.option(
    "--data",
    "data",
    multiple=True,
    metavar="SYMBOL=FILE",
    help="Feed these bars to its sources, or those of a catalogue's directory, and end when they are traded. May be given again.",
)
@click.option(
    "--from", "start_ms", callback=instant, default=None, help="Of the data, bars that open from then on."
)
@click.option(
    "--to", "end_ms", callback=instant, default=None, help="Of the data, bars that open before then."
)
@click.option(
    "--since",
    "since_ms",
    callback=instant,
    default=None,
    help="Show intents, orders, fills and rejections that were written from then on; by default those to come.",
)
@_code_option
@log_option
@wait_option
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON.")
def run(
    spec: str,
    world_id: str,
    interval: int | None,
    execution_domain: str,
    as_of: str,
    partition: str,
    dataset_fingerprint: str,
    data: tuple[str, ...],
    start_ms: int | None,
    end_ms: int | None,
    since_ms: int | None,
    packages: tuple[str, ...],
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Run STRATEGY in a world: publish it, unless it was, and show what becomes of it until Ctrl-C or SIGTERM.

    On Kafka everybody's workers compute and trade, and this only shows; on an embedded log they run in this process. Orders are let through by
    what the world service says (`qmtl world activation set`), which is shown as the gate. What is deployed goes on when this ends. A run over
    --data that has come to their end with a node in state error ends with exit code 12.
    """
    from qmtl.foundation.common.errors import NodesInError
    from qmtl.interfaces.running.events import Completed, Refused
    from qmtl.interfaces.running.run import RunOptions
    from qmtl.interfaces.running.run import run as run_strategy
    from qmtl.interfaces.running.words import as_json as event_json
    from qmtl.interfaces.running.words import told
    from qmtl.runtime.data.reading import load_bars

    commit = as_of or None if any(Path(one).is_dir() for one in data) else None  # files have none
    bars = load_bars(data, start_ms, end_ms, commit) if data else None
    context = (execution_domain, as_of, partition, dataset_fingerprint)
    options = RunOptions(*context, interval, since_ms, bars, packages, wait_s)

    failed: list[str] = []

    def show_event(event: RunEvent) -> None:
        if isinstance(event, Completed):
            failed.extend(event.failed)
        if as_json:
            render.json_line(event_json(event))
        elif not isinstance(event, Refused):  # an error is shown as every error is
            render.line(told(event))
        sys.stdout.flush()

    ended = run_strategy(spec, world_id, log_address, show_event, options)
    if isinstance(ended, Refused):
        raise ended.error()
    if failed:
        raise NodesInError(
            f"all bars are computed and traded, but {', '.join(map(repr, failed))} of the strategy ended in state error.",
            "Their causes are told above and in node.state (`qmtl dag show`); the strategy has nothing from them, and nothing that is computed from them.",
        )
