"""A run as a backtest has left it, with the bars that it was on."""

from __future__ import annotations

from qmtl.backtest.simulation import Simulated
from qmtl.foundation.common.errors import InvariantBroken, UnknownId
from qmtl.foundation.common.money import text
from qmtl.interfaces.report.from_log import package_version
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
    graph, book = graphs[strategy_id], simulated.run.book
    fills = tuple(one for one in book.fills if one.strategy_id == strategy_id)
    bars = tuple(simulated.bars.values())
    terms = simulated.terms
    curve = curve_of(terms.cash, fills, bars, simulated.interval)
    account = book.strategies[strategy_id].account
    if account.equity != curve.final:
        raise InvariantBroken(
            f"fills and bars give an equity of {text(curve.final)}, the account of {strategy_id} has {text(account.equity)}."
        )
    return RunResult(
        strategy_id,
        terms.world_id,
        tuple(simulated.bars),
        simulated.interval,
        RunSettings(terms.currency, terms.cash, terms.fee_rate, terms.slippage_rate),
        bars,
        fills,
        tuple(one for one in book.orders.values() if one.strategy_id == strategy_id),
        curve,
        {
            "Version": graph.version,
            "Digest of the version": graph.commit_hash,
            "Signals": ", ".join(graph.signals),
            "Nodes": ", ".join(one.node.node_id for one in graph.nodes),
            "as_of": as_of or "none",
            "Fingerprint of the data": simulated.fingerprint,
            "Equity of the account": "the same",
            "QMTL": package_version(),
        },
    )
