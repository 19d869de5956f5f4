"""A run as a backtest has left it, with the bars that it was on."""

from __future__ import annotations

from decimal import Decimal

from qmtl.backtest.simulation import Simulated
from qmtl.foundation.common.errors import InvariantBroken, UnknownId
from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.trade import Account
from qmtl.interfaces.report.from_log import package_version
from qmtl.runtime.execution.portfolio import scope_of_strategy
from qmtl.runtime.performance.curve import curve_of
from qmtl.runtime.performance.result import RunResult, RunSettings


def result_of(simulated: Simulated, strategy_id: str | None = None, as_of: str = "") -> RunResult:
    """The run of one strategy of a backtest.

    Its equity is computed from its fills and the bars, and its end is held against the account that trading has.

    Args:
        strategy_id: None for the only one.
        as_of: the state of the data, where it has one.

    Raises:
        UnknownId: none was said and there are several, or the backtest has no such one.
        InvariantBroken: fills and bars give another equity than the account has.
    """
    graphs = {one.strategy_id: one for one in simulated.graphs}
    if strategy_id is None and len(graphs) == 1:
        (strategy_id,) = graphs
    if strategy_id is None or strategy_id not in graphs:
        asked = "none was named" if strategy_id is None else f"{strategy_id!r} was named"
        raise UnknownId(f"{asked}; the backtest has {', '.join(sorted(graphs))}.", "Name one of them.")
    graph = graphs[strategy_id]
    fills = tuple(one for one in simulated.fills if one.strategy_id == strategy_id)
    bars = tuple(simulated.bars.values())
    terms = simulated.terms
    curve = curve_of(terms.cash, fills, bars, simulated.interval)
    equity = _equity(simulated, strategy_id)
    if equity != curve.final:
        raise InvariantBroken(
            f"fills and bars give an equity of {text(curve.final)}, the account of {strategy_id} has {text(equity)}."
        )
    return RunResult(
        strategy_id,
        terms.world_id,
        tuple(simulated.bars),
        simulated.interval,
        RunSettings(terms.currency, terms.cash, terms.fee_rate, terms.slippage_rate),
        bars,
        fills,
        tuple(one for one in simulated.orders.values() if one.strategy_id == strategy_id),
        curve,
        {
            "Version": graph.version,
            "Digest of the version": graph.commit_hash,
            "Signals": ", ".join(graph.signals),
            "Nodes": ", ".join(one.node.node_id for one in graph.nodes),
            "as_of": as_of or "none",
            "Fingerprint of the data": simulated.fingerprint,
            "Equity of the account": "the same",
            **_failed(simulated, strategy_id),
            "QMTL": package_version(),
        },
    )


def _equity(simulated: Simulated, strategy_id: str) -> Decimal:
    """That of a strategy's account; the cash where it never had an intent."""
    scope = scope_of_strategy(strategy_id)
    for row in simulated.rows():
        if isinstance(row, Account) and row.scope == scope:
            return row.equity
    return simulated.terms.cash


def _failed(simulated: Simulated, strategy_id: str) -> dict[str, str]:
    """Nodes of a strategy that failed, also where another strategy met them first."""
    own = {
        one.node.node_id
        for graph in simulated.graphs
        if graph.strategy_id == strategy_id
        for one in graph.nodes
    }
    failed = sorted({f"{one.name}: {one.error.what}" for one in simulated.faults if one.node_id in own})
    return {"Failed nodes": " ".join(failed)} if failed else {}
