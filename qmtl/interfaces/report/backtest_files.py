"""What a backtest writes into a directory: the report, the tables, and a result that says what was run on what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from qmtl.foundation.common.money import text
from qmtl.foundation.common.wording import counted
from qmtl.interfaces.cli.out_file import not_written
from qmtl.interfaces.report.export import order_tables, require_parquet, tables_of, write_csv, write_parquet
from qmtl.interfaces.report.from_log import package_version
from qmtl.interfaces.report.page import page

if TYPE_CHECKING:
    from qmtl.interfaces.offline import Backtested

RESULT: Final = "result.json"
REPORT: Final = "report.html"
MESSAGE: Final = "dag.json"
RELEASE: Final = "release.jsonl"


def write_files(done: Backtested, directory: Path, *, parquet: bool = True) -> list[Path]:
    """Write them; those that an earlier run has left there are replaced. Nothing of a clock or of this machine is in them.

    Returns: what was written, the report first and the result last.

    Raises:
        MissingExtra: Parquet was wanted, and pyarrow is not installed.
        UsageError: a file can't be written. Nothing is left of that one, and no result.
    """
    if parquet:
        require_parquet()
    result = done.result
    tables = (
        *tables_of(result, done.performance.trades),
        *order_tables(result.orders, done.simulated.rejections),
    )
    written = [directory / REPORT]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / RESULT).unlink(missing_ok=True)  # it stands for all files beside it, and comes last
        written[0].write_text(page(result, done.performance), encoding="utf-8")
        for table in tables:
            written.append(directory / f"{table.name}.csv")
            write_csv(table, written[-1])
            packed = written[-1].with_suffix(".parquet")
            packed.unlink(missing_ok=True)
            if parquet:
                written.append(packed)
                write_parquet(table, packed)
        written.append(directory / MESSAGE)
        written[-1].write_bytes(done.simulated.messages[0])
        digests = {
            one.name: blake3(one.read_bytes()).hexdigest() for one in written if one.suffix != ".parquet"
        }
        told = _json({**result_object(done), "files": digests}).encode()
        written.append(directory / RELEASE)
        written[-1].write_bytes(release_line(done, blake3(told).hexdigest()).encode())
        written.append(directory / RESULT)
        written[-1].write_bytes(told)
    except OSError as error:
        raise not_written(written[-1], error) from None
    return written


def result_object(done: Backtested) -> dict[str, Any]:
    """What was run, on what, on which terms, and what came of it; money as text, times in epoch ms."""
    simulated, result, performance = done.simulated, done.result, done.performance
    (graph,) = simulated.graphs
    terms, meant = simulated.terms, performance.convention
    return {
        "strategy": graph.strategy_id,
        "version": graph.version,
        "version_digest": graph.commit_hash,
        "nodes": {one.name: one.node.node_id for one in graph.nodes},
        "signals": list(graph.signals),
        "dataset_fingerprint": simulated.fingerprint,
        "as_of": done.as_of or None,
        "interval_s": simulated.interval,
        "from_ms": simulated.start_ms,
        "to_ms": simulated.end_ms,
        "bars": {symbol: len(one) for symbol, one in simulated.bars.items()},
        "buckets": (simulated.end_ms - simulated.start_ms) // (simulated.interval * 1000),
        "terms": {
            "world_id": terms.world_id,
            "currency": terms.currency,
            "cash": text(terms.cash),
            "fee_rate": text(terms.fee_rate),
            "slippage_rate": text(terms.slippage_rate),
            "long": terms.long,
            "short": terms.short,
            "weight": text(terms.weight),
            "instruments": {
                one.symbol: {"tick": text(one.tick), "lot": text(one.lot), "minimum": text(one.minimum)}
                for one in simulated.world.settings.instruments
            },
        },
        # As if none had been reused: the digest of a run says what came of it, and not what lay on a log before.
        "computed_nodes": simulated.computed + simulated.reused,
        "intents": len(simulated.intents),
        "orders": len(result.orders),
        "fills": len(result.fills),
        "rejections": done.rejections,
        "faults": [{"code": one.code, "what": one.what} for one in done.faults],
        "convention": {
            "period_s": meant.period,
            "periods_per_year": meant.periods_per_year,
            "risk_free": meant.risk_free,
            "returns": meant.returns,
            "ddof": meant.ddof,
            "matching": meant.matching.value,
        },
        "figures": {
            one.name: {"value": _plain(one.value), "unit": one.unit.value, "formula": one.formula}
            for one in performance.figures
        },
        "months": [{"year": one.year, "month": one.month, "return": one.value} for one in performance.months],
        "qmtl": package_version(),
    }


def release_line(done: Backtested, result_digest: str) -> str:
    """The run as `qmtl service dagmanager release backtest --results` takes it: one line of JSON, with the digest of the result file."""
    simulated, result = done.simulated, done.result
    net = text(result.curve.final - result.curve.initial)
    failed = f"{counted(len(done.faults), 'node')} failed; " if done.faults else ""
    run = {
        "run_id": f"backtest-{result_digest[:16]}",
        "passed": not done.faults,
        "detail": f"{failed}net profit {net} {result.settings.currency}, {counted(len(result.fills), 'fill')}",
        "dataset_fingerprint": simulated.fingerprint,
        "from_ms": simulated.start_ms,
        "to_ms": simulated.end_ms,
        "result_digest": result_digest,
    }
    return json.dumps(run, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Decimal | float | int | None) -> str | float | int | None:
    return text(value) if isinstance(value, Decimal) else value


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n"
