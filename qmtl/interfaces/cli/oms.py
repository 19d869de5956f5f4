"""`qmtl oms`: the connections of worlds to their venue, and the live orders that have not ended."""

from __future__ import annotations

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, looking, rows_options

world_option = click.option("--world", "world_id", metavar="WORLD_ID", help="Of this world alone.")


@click.group()
def oms() -> None:
    """Look at live orders and at the connections of worlds to their venue.

    The processor `oms` lets live orders out, and `egress` reaches the venue. Here is what they have written; nothing is asked of a venue.
    """


@oms.command("sessions")
@world_option
@rows_options
@log_option
@format_option
def list_sessions(world_id: str | None, limit: int | None, log_address: str, as_json: bool) -> None:
    """The connection of each world that ever needed one: a row per world.

    NUMBER is how often it was opened. STATE is open (orders go out), blocked (no gate is live any more, what is at the venue is watched and can be
    cancelled) or closed (none is needed). CONNECTED is what the venue's side has said last, WHY what the state follows from, or the code for which a
    connection that is wanted is missing. SINCE is the bucket after which the state changed.
    """
    from qmtl.engine.view import TableView
    from qmtl.foundation.contracts.broker import BrokerSession
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as log:
        every: list[BrokerSession] = TableView(log, "ops.sessions", codec).refresh().rows()
    found = [one for one in every if world_id in (None, one.world_id)]
    shown = found[:limit]
    if as_json:
        for one in shown:
            render.json_line(
                {
                    "world": one.world_id,
                    "number": one.number,
                    "state": one.state,
                    "venue": one.venue or None,
                    "connected": one.connected,
                    "reason": one.reason,
                    "code": one.code or None,
                    "detail": one.detail or None,
                    "since_ms": one.changed_ms,
                }
            )
    else:
        rows = [
            (
                one.world_id,
                one.number,
                one.state.value,
                one.venue or "-",
                "yes" if one.connected else "no",
                f"{one.code}: {one.detail}" if one.code else one.reason,
                render.instant(one.changed_ms),
            )
            for one in shown
        ]
        heads = ("WORLD", "NUMBER", "STATE", "VENUE", "CONNECTED", "WHY", "SINCE")
        render.table(heads, rows, numbers=("NUMBER",))
    render.left_off(len(shown), len(found), "sessions", as_json=as_json)


@oms.command("orders")
@world_option
@rows_options
@log_option
@format_option
def list_orders(world_id: str | None, limit: int | None, log_address: str, as_json: bool) -> None:
    """The live orders that have not ended: a row each.

    STATE is requested (let through, and nobody has sent it), claimed (it may have been sent), unknown (it was sent, and the venue has not said what became of
    it) or working (the venue has it). CLAIMED is by the clock of who sends. CANCEL is yes once its cancellation was asked for. What has ended
    is in `trade.orders`.
    """
    from qmtl.engine.view import TableView
    from qmtl.foundation.common.money import text
    from qmtl.foundation.contracts.broker import Attempt
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as log:
        every: list[Attempt] = TableView(log, "oms.attempts", codec).refresh().rows()
    found = [one for one in every if world_id in (None, one.order.world_id)]
    shown = found[:limit]
    if as_json:
        for one in shown:
            order = one.order
            render.json_line(
                {
                    "world": order.world_id,
                    "strategy": order.strategy_id,
                    "order": order.order_id,
                    "venue_order": one.venue_order_id or None,
                    "symbol": order.symbol,
                    "side": order.side,
                    "quantity": order.quantity,
                    "filled": order.cum_quantity,
                    "state": one.state,
                    "claimed_ms": one.claimed_ms or None,
                    "canceling": one.canceling,
                }
            )
    else:
        rows = [
            (
                one.order.world_id,
                one.order.strategy_id,
                one.order.order_id,
                one.order.symbol,
                one.order.side.value,
                text(one.order.quantity),
                text(one.order.cum_quantity),
                one.state.value,
                render.instant(one.claimed_ms) if one.claimed_ms else "-",
                "yes" if one.canceling else "-",
            )
            for one in shown
        ]
        heads = (
            "WORLD",
            "STRATEGY",
            "ORDER",
            "SYMBOL",
            "SIDE",
            "QUANTITY",
            "FILLED",
            "STATE",
            "CLAIMED",
            "CANCEL",
        )
        render.table(heads, rows, numbers=("QUANTITY", "FILLED"))
    render.left_off(len(shown), len(found), "orders", as_json=as_json)
