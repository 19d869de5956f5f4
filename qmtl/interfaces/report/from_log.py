"""A run as the tables of a log tell it, with the bars that it was on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qmtl.engine.log.port import Log
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import InvalidValue, NothingToReport, OtherData, UnknownId, UnknownWorld
from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.context import THE_CONTEXT, LogContext
from qmtl.foundation.contracts.dag import StrategyVersion
from qmtl.foundation.contracts.trade import Account, Fill, Order
from qmtl.foundation.contracts.world import World
from qmtl.foundation.wire.registry import codec
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import BarSource, dataset_fingerprint, infer_interval, read_bars
from qmtl.runtime.performance.curve import curve_of
from qmtl.runtime.performance.result import RunResult, RunSettings

_SHOWN = 5


def result_from_log(
    log: Log, world_id: str, strategy_id: str | None, sources: Sequence[BarSource]
) -> RunResult:
    """The run of a strategy in a world.

    Equity is computed from the fills and the bars, and its end is held against the account that the portfolio has, where that is true for
    the last bucket.

    Args:
        strategy_id: None for the only one that has traded in the world.

    Raises:
        UnknownWorld: no such world.
        UnknownId: a strategy that the world does not have, or none was said and there are several.
        NothingToReport: the strategy has no fills.
        OtherData: the bars are not those to which the world is bound, do not cover the fills, or give another equity than the portfolio has.
        InvalidBarsFile, InvalidBar: as `read_bars`.
    """
    world: World | None = TableView(log, "world.state", codec).refresh().get(world_id)
    if world is None:
        raise UnknownWorld(
            f"the log has no world {world_id!r}.", "`qmtl world list` shows those that there are."
        )
    fills = _of_world(log, "trade.fills", world_id)
    orders = _of_world(log, "trade.orders", world_id)
    versions = _of_world(log, "dag.strategies", world_id)
    chosen = _chosen(world_id, strategy_id, fills, orders, versions)
    own: list[Fill] = [one for one in fills if one.strategy_id == chosen]
    if not own:
        raise NothingToReport(
            f"strategy {chosen!r} has no fills in world {world_id!r}.",
            "Wait until it has traded; `qmtl state trade.orders` shows its orders.",
        )
    fingerprint = _require_fitting(world, sources, own)
    interval = infer_interval([one.path for one in sources])
    bars = tuple(
        BarColumns.of(one.symbol, interval, read_bars(one.path, one.symbol, interval))
        for one in sorted(sources, key=lambda source: source.symbol)
    )
    settings = world.settings
    try:
        curve = curve_of(settings.initial_cash, own, bars, interval)
    except InvalidValue as error:
        raise OtherData(error.what, "Give the bars that the run was on.") from None
    account: Account | None = (
        TableView(log, "trade.portfolio", codec).refresh().get(world_id, f"strategy:{chosen}", "")
    )
    at_end = account is not None and account.as_of_ms == int(curve.bucket_ms[-1])
    if account is not None and at_end and account.equity != curve.final:
        raise OtherData(
            f"fills and bars give an equity of {text(curve.final)}, the portfolio has {text(account.equity)}.",
            "Give the bars that the run was on.",
        )
    return RunResult(
        chosen,
        world_id,
        tuple(one.symbol for one in bars),
        interval,
        RunSettings(settings.currency, settings.initial_cash, settings.fee_rate, settings.slippage_rate),
        bars,
        tuple(own),
        tuple(one for one in orders if one.strategy_id == chosen),
        curve,
        {
            **_version(versions, chosen),
            **_context(log),
            "Fingerprint of the data": fingerprint,
            "World is bound to": settings.dataset_fingerprint or "no data",
            "Equity of the portfolio": "the same" if at_end else "of another bucket, not compared",
            "QMTL": package_version(),
        },
    )


def _of_world(log: Log, name: str, world_id: str) -> list[Any]:
    return [one for one in TableView(log, name, codec).refresh().rows() if one.world_id == world_id]


def _chosen(
    world_id: str,
    strategy_id: str | None,
    fills: Sequence[Fill],
    orders: Sequence[Order],
    versions: Sequence[StrategyVersion],
) -> str:
    names: set[str] = {one.strategy_id for one in fills} | {one.strategy_id for one in orders}
    known = sorted(names | {one.strategy_id for one in versions})
    named = ", ".join(known[:_SHOWN]) + (" …" if len(known) > _SHOWN else "") or "none"
    if strategy_id is None:
        if len(known) == 1:
            return known[0]
        if not known:
            raise NothingToReport(f"world {world_id!r} has no strategy.", "`qmtl dag publish` gives it one.")
        raise UnknownId(
            f"world {world_id!r} has {len(known)} strategies: {named}.", "Name one with --strategy."
        )
    if strategy_id not in known:
        raise UnknownId(f"world {world_id!r} has no strategy {strategy_id!r}.", f"It has: {named}.")
    return strategy_id


def _require_fitting(world: World, sources: Sequence[BarSource], fills: Sequence[Fill]) -> str:
    fingerprint = dataset_fingerprint(sources)
    bound = world.settings.dataset_fingerprint
    if bound and bound != fingerprint:
        raise OtherData(
            f"world {world.world_id!r} ran on the data {bound}; given was {fingerprint}.",
            "Give the files that the run was on with --data.",
        )
    missing = sorted({one.symbol for one in fills} - {one.symbol for one in sources})
    if missing:
        raise OtherData(
            f"there were fills of {missing[0]!r}, of which no bars were given.",
            "Give each symbol with --data SYMBOL=FILE.",
        )
    return fingerprint


def _version(versions: Sequence[StrategyVersion], strategy_id: str) -> dict[str, str]:
    found = next((one for one in versions if one.strategy_id == strategy_id), None)
    if found is None:
        return {}
    return {
        "Version": found.version,
        "Sentinel": found.sentinel_id,
        "Signals": ", ".join(found.signals),
        "Nodes": ", ".join(one.node_id for one in found.nodes),
    }


def _context(log: Log) -> dict[str, str]:
    """The state of the data in which the log's nodes compute."""
    row: LogContext | None = TableView(log, "dag.context", codec).refresh().get(THE_CONTEXT)
    if row is None:
        return {}
    return {"Domain": row.context.execution_domain.value, "as_of": row.context.as_of or "none"}


def package_version() -> str:
    """Of QMTL, as it is installed."""
    try:
        return version("qmtl")
    except PackageNotFoundError:
        return "0+unpackaged"
