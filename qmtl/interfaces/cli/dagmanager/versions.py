"""`sentinels`: the versions of strategies, and which of them have traffic."""

from __future__ import annotations

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, looking, rows_options


@click.command()
@click.option("--world", "world_id", help="Only versions in this world.")
@click.option("--strategy", "strategy_id", help="Only versions of this strategy.")
@click.option("--offsets", is_flag=True, help="Tell where in the topics of its nodes each begins.")
@rows_options
@log_option
@format_option
def sentinels(
    world_id: str | None,
    strategy_id: str | None,
    offsets: bool,
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The versions in the order of their ids: what each is, which share of its strategy's traffic it has, and since when.

    SHARE is that of a version that is active, or that a pending one gets. SINCE is when an active one became so; of one that is
    retired or failed, the tick that found it so.

    With --offsets there is a line per version that was active and partition of its nodes' present topics. OFFSET is that of the first
    record behind the close marker of the bucket after which it became active: where the version before ends, and this one begins. It
    is open as long as the topic has not closed that bucket, and gone once the marker has left the topic by its age.
    """
    from qmtl.engine.view import TableView
    from qmtl.foundation.contracts.dag import SentinelStatus
    from qmtl.foundation.wire.registry import codec
    from qmtl.interfaces.dag_boundaries import boundaries

    with looking(log_address) as log:
        rows = TableView(log, "dag.sentinels", codec).refresh().rows()
        found = [
            one for one in rows if world_id in (None, one.world_id) and strategy_id in (None, one.strategy_id)
        ]
        begins = boundaries(log, found[:limit]) if offsets else {}
    shown = []
    for one in found[:limit]:
        holds = one.status in (SentinelStatus.PENDING, SentinelStatus.ACTIVE)
        active = one.status is SentinelStatus.ACTIVE
        shown.append(
            {
                "sentinel_id": one.sentinel_id,
                "world_id": one.world_id,
                "strategy_id": one.strategy_id,
                "version": one.version,
                "status": one.status,
                "traffic_weight": one.traffic_weight if holds else 0,
                "since_ms": one.active_since_ms if active else one.retired_at_ms,
                "created_at_ms": one.created_at_ms,
                "nodes": len(one.node_ids),
                "release_tag": one.release_tag,
            }
        )
        if offsets:
            places = begins[one.sentinel_id].items()
            shown[-1]["begins"] = {f"{where.topic}[{where.partition}]": at for where, at in places}
    if as_json:
        for row in shown:
            render.json_line(row)
    elif offsets:
        render.table(
            ("SENTINEL", "VERSION", "BEHIND", "TOPIC", "PARTITION", "OFFSET"),
            [
                (
                    one.sentinel_id,
                    one.version,
                    render.instant(one.active_since_ms),
                    where.topic,
                    where.partition,
                    at if isinstance(at, int) else at.value,
                )
                for one in found[:limit]
                for where, at in begins[one.sentinel_id].items()
            ],
            numbers=("PARTITION", "OFFSET"),
        )
    else:
        render.table(
            ("SENTINEL", "VERSION", "TAG", "STATUS", "SHARE", "SINCE", "CREATED", "NODES"),
            [
                (
                    row["sentinel_id"],
                    row["version"],
                    row["release_tag"] or "-",
                    row["status"].value,
                    f"{row['traffic_weight'] / 100:g} %",
                    "-" if row["since_ms"] is None else render.instant(row["since_ms"]),
                    render.instant(row["created_at_ms"]),
                    row["nodes"],
                )
                for row in shown
            ],
            numbers=("SHARE", "NODES"),
        )
    render.left_off(len(shown), len(found), "versions", as_json=as_json)
