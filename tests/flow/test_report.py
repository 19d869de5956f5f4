"""The report of a demo: what the log says of the run, computed anew from its fills and the bars, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.log.port import Log
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.trade import Account
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.report import from_log
from qmtl.interfaces.report.from_log import result_from_log
from qmtl.runtime.data.bars import BarSource
from qmtl.runtime.performance.kpi import Convention, performance_of
from qmtl.runtime.performance.trades import Matching
from tests.flow.driving import Place, Result
from tests.interfaces.cli.running import Ran, call

STRATEGY = "sma-cross"


def data(place: Place) -> list[str]:
    return [part for symbol, path in place.bars.items() for part in ("--data", f"{symbol}={path}")]


def report(
    capsys: pytest.CaptureFixture[str], place: Place, *more: str, files: Sequence[str] | None = None
) -> Ran:
    return call(capsys, "report", "--log", place.log, *(data(place) if files is None else files), *more)


def test_a_report_says_what_the_portfolio_says(
    undisturbed_place: Place, undisturbed: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = undisturbed_place, tmp_path / "deep" / "run.html"
    ran = report(capsys, place, "--strategy", STRATEGY, "--matching", "average", "--out", str(out), "--json")
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    (account,) = (one for one in undisturbed["tables"]["pnl"] if one["scope"] == f"strategy:{STRATEGY}")
    assert told["figures"]["net_profit"] == account["net"]
    assert told["figures"]["fees"] == account["fees"]
    assert told["strategy"] == STRATEGY
    assert told["files"] == [
        str(out),
        *(str(tmp_path / "deep" / "run-tables" / f"{one}.csv") for one in ("trades", "fills", "equity")),
    ]
    with (tmp_path / "deep" / "run-tables" / "trades.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert sum(Decimal(one["gross"]) for one in rows) == Decimal(account["realised"])
    source_text = out.read_text(encoding="utf-8")
    assert source_text.startswith("<!DOCTYPE html>")
    for said in (undisturbed["tables"]["dag_versions"][0]["sentinel_id"], "as_of", "<td>the same</td>"):
        assert said in source_text


@pytest.mark.usefixtures("undisturbed")
def test_each_bucket_of_the_curve_is_the_account_that_was_written_for_it(undisturbed_place: Place) -> None:
    place = undisturbed_place
    log = open_log(place.log, read_only=True)
    try:
        result = result_from_log(
            log, "demo", None, [BarSource(name, path) for name, path in place.bars.items()]
        )
        rows = [
            codec.decode(one.value)
            for one in read_all(log, all_partitions(log, "trade.portfolio"))
            if one.value is not None and not is_reserved(one.key)
        ]
    finally:
        log.close()
    curve = dict(
        zip(
            result.curve.bucket_ms.tolist(),
            zip(result.curve.equity.tolist(), result.curve.exposure.tolist(), strict=True),
            strict=True,
        )
    )
    written = {
        one.as_of_ms: (float(one.equity), float(one.exposure))
        for one in rows
        if isinstance(one, Account) and one.scope == f"strategy:{STRATEGY}" and one.as_of_ms in curve
    }
    assert len(written) > 100
    for at, (equity, exposure) in written.items():
        assert curve[at] == pytest.approx((equity, exposure), rel=1e-12), at
    realised = sum(
        one.gross for one in performance_of(result, Convention(matching=Matching.AVERAGE)).trades.closed
    )
    last = [one for one in rows if isinstance(one, Account) and one.scope == f"strategy:{STRATEGY}"][-1]
    assert realised == last.realised


@pytest.mark.usefixtures("undisturbed")
def test_the_table_for_people_names_each_file(
    undisturbed_place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = report(
        capsys,
        undisturbed_place,
        "--out",
        str(tmp_path / "r.html"),
        "--tables",
        str(tmp_path),
        "--period",
        "1h",
        "--returns",
        "log",
    )
    assert ran.code == 0, ran
    assert "Max drawdown" in ran.out
    assert ran.out.count("Written: ") == 4
    assert "log returns per 3600 s, 8760 periods a year" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--world", "none"), "QMTL-601", "'none'"),
        (("--strategy", "none"), "QMTL-809", STRATEGY),
        (("--out", "/proc/none/report.html"), "QMTL-801", "/proc/none"),
    ],
)
def test_what_the_log_does_not_have_is_refused(
    more: tuple[str, ...],
    code: str,
    says: str,
    undisturbed_place: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = report(capsys, undisturbed_place, "--out", str(tmp_path / "report.html"), *more)
    assert ran.code != 0
    assert ran.out == ""
    assert code in ran.err
    assert says in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("undisturbed")
def test_other_bars_are_refused(
    undisturbed_place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "report.html"))
    symbol, path = next(iter(undisturbed_place.bars.items()))
    for files, code in (
        (["--data", f"{symbol}={path}"], "QMTL-813"),
        ([], "QMTL-813"),
        (["--data", symbol], "QMTL-801"),
        (["--data", f"{symbol}={tmp_path / 'none.csv'}"], "QMTL-702"),
    ):
        ran = report(capsys, undisturbed_place, *out, files=files)
        assert code in ran.err, files
        assert ran.code != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("kept", "code", "says"),
    [(0, "QMTL-814", "no fills"), (-1, "QMTL-813", "the portfolio has")],
    ids=["none", "one less"],
)
def test_fills_that_are_not_there_are_told(
    kept: int,
    code: str,
    says: str,
    undisturbed_place: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = from_log._of_world

    def fewer(log: Log, name: str, world_id: str) -> list[Any]:
        found = whole(log, name, world_id)
        return found[:kept] if name == "trade.fills" else found

    monkeypatch.setattr(from_log, "_of_world", fewer)
    ran = report(capsys, undisturbed_place, "--out", str(tmp_path / "report.html"))
    assert ran.code != 0
    assert code in ran.err
    assert says in ran.err


def test_a_log_on_which_nobody_has_begun_has_no_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(f"embedded:{tmp_path / 'log'}")
    try:
        prepare(log)
    finally:
        log.close()
    ran = call(capsys, "report", "--log", f"embedded:{tmp_path / 'log'}", "--out", str(tmp_path / "r.html"))
    assert "QMTL-601" in ran.err
