"""What a demo run shows at its end: the final tables, the equity curve as a picture, the digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qmtl.engine.log.port import Log
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.money import text, total
from qmtl.foundation.contracts.dag import VersionSentinel
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderRejection, Position
from qmtl.foundation.contracts.world import Activation
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.client import Client


@dataclass(frozen=True, slots=True)
class ReportTable:
    """One table for people; in JSON each row is an object of all its columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_json(self) -> list[dict[str, str]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def tables(client: Client) -> dict[str, ReportTable]:
    """The final state, by name, in the order in which it is shown."""
    return {
        "dag_versions": _dag_versions(client.view("dag.sentinels").rows()),
        "activation": _activation(client.view("activation").rows()),
        "orders": _orders(client.view("trade.orders").rows()),
        "fills": _fills(client.view("trade.fills").rows()),
        "rejections": _rejections(client.log),
        "portfolio": _portfolio(client.view("trade.portfolio").rows()),
        "pnl": _pnl(client.view("trade.portfolio").rows()),
    }


def _dag_versions(rows: Sequence[VersionSentinel]) -> ReportTable:
    columns = ("sentinel_id", "world", "strategy", "version", "nodes", "commit")
    return ReportTable(
        "DAG versions (dag.sentinels)",
        columns,
        tuple(
            (
                row.sentinel_id,
                row.world_id,
                row.strategy_id,
                row.version,
                str(len(row.node_ids)),
                row.commit_hash[:12],
            )
            for row in rows
        ),
    )


def _activation(rows: Sequence[Activation]) -> ReportTable:
    columns = ("world", "strategy", "side", "active", "weight", "mode", "etag")
    return ReportTable(
        "Activation (activation)",
        columns,
        tuple(
            (
                row.world_id,
                row.strategy_id,
                row.side.value,
                "yes" if row.active else "no",
                text(row.weight),
                row.effective_mode.value,
                row.etag,
            )
            for row in rows
        ),
    )


def _orders(rows: Sequence[Order]) -> ReportTable:
    columns = ("created", "order_id", "symbol", "side", "quantity", "status", "filled", "average_price")
    ordered = sorted(rows, key=lambda row: (row.created_at_ms, row.symbol, row.order_id))
    return ReportTable(
        "Orders (trade.orders)",
        columns,
        tuple(
            (
                moment(row.created_at_ms),
                row.order_id,
                row.symbol,
                row.side.value,
                text(row.quantity),
                row.status.value,
                text(row.cum_quantity),
                text(row.average_price),
            )
            for row in ordered
        ),
    )


def _fills(rows: Sequence[Fill]) -> ReportTable:
    columns = ("time", "order_id", "seq", "symbol", "side", "quantity", "price", "fee", "slippage")
    ordered = sorted(rows, key=lambda row: (row.fill_time_ms, row.symbol, row.order_id, row.seq))
    return ReportTable(
        "Fills (trade.fills)",
        columns,
        tuple(
            (
                moment(row.fill_time_ms),
                row.order_id,
                str(row.seq),
                row.symbol,
                row.side.value,
                text(row.quantity),
                text(row.price),
                text(row.fee),
                text(row.slippage),
            )
            for row in ordered
        ),
    )


def _rejections(log: Log) -> ReportTable:
    columns = ("bucket", "strategy", "symbol", "reason", "detail")
    found: list[OrderRejection] = [
        codec.decode(record.value)
        for record in read_all(log, all_partitions(log, "trade.rejections"))
        if record.value is not None and not is_reserved(record.key)
    ]
    return ReportTable(
        "Rejections (trade.rejections)",
        columns,
        tuple(
            (moment(one.bucket_ms), one.strategy_id, one.symbol, one.reason.value, one.detail)
            for one in found
        ),
    )


def _portfolio(rows: Sequence[Position | Account]) -> ReportTable:
    columns = (
        "scope",
        "symbol",
        "quantity",
        "average_cost",
        "mark",
        "realised",
        "unrealised",
        "fees",
        "fills",
    )
    return ReportTable(
        "Portfolio (trade.portfolio)",
        columns,
        tuple(
            (
                row.scope,
                row.symbol,
                text(row.quantity),
                text(row.average_cost),
                text(row.mark),
                text(row.realised),
                text(row.unrealised),
                text(row.fees),
                str(row.fills),
            )
            for row in rows
            if isinstance(row, Position)
        ),
    )


def _pnl(rows: Sequence[Position | Account]) -> ReportTable:
    columns = (
        "scope",
        "currency",
        "initial_cash",
        "cash",
        "equity",
        "realised",
        "unrealised",
        "fees",
        "net",
        "as_of",
    )
    return ReportTable(
        "Profit and loss (trade.portfolio; realised is gross of fees, net = equity - initial cash)",
        columns,
        tuple(
            (
                row.scope,
                row.currency,
                text(row.initial_cash),
                text(row.cash),
                text(row.equity),
                text(row.realised),
                text(row.unrealised),
                text(row.fees),
                text(total((row.equity, -row.initial_cash))),
                moment(row.as_of_ms),
            )
            for row in rows
            if isinstance(row, Account)
        ),
    )


def equity_curve(log: Log) -> list[tuple[int, float]]:
    """Close time and equity of every bucket that changed an account, summed over accounts, in order."""
    equity: dict[str, float] = {}
    curve: dict[int, float] = {}
    for record in read_all(log, all_partitions(log, "trade.portfolio")):
        if record.value is None or is_reserved(record.key):
            continue
        row: Any = codec.decode(record.value)
        if isinstance(row, Account):
            equity[row.scope] = float(row.equity)
            curve[row.as_of_ms] = sum(equity[scope] for scope in sorted(equity))
    return sorted(curve.items())


def draw_equity(curve: Sequence[tuple[int, float]], fills: Sequence[Fill], path: Path) -> None:
    """Write the equity curve with the moments of the fills as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.dates
    import matplotlib.pyplot as plt

    times: Any = [datetime.fromtimestamp(at_ms / 1000, UTC) for at_ms, _ in curve]
    values = [value for _, value in curve]
    figure, axes = plt.subplots(figsize=(10, 4.5), dpi=110)
    axes.plot(times, values, color="#1f4e79", linewidth=1.2, label="equity")
    known = dict(curve)
    marks = sorted({fill.fill_time_ms for fill in fills})
    reached = [
        (at_ms, next((known[at] for at in (at_ms, at_ms + 60_000) if at in known), None)) for at_ms in marks
    ]
    seen = [(at_ms, value) for at_ms, value in reached if value is not None]
    moments: Any = [datetime.fromtimestamp(at_ms / 1000, UTC) for at_ms, _ in seen]
    axes.plot(moments, [value for _, value in seen], "o", color="#c55a11", markersize=3, label="fills")
    axes.set_title("Equity of the demo world after fees and slippage")
    axes.set_ylabel("USD")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="best", frameon=False)
    formatter: Any = mpl.dates.ConciseDateFormatter
    axes.xaxis.set_major_formatter(formatter(axes.xaxis.get_major_locator()))
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def moment(at_ms: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
