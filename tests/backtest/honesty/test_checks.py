"""What a check says of functions: each cheat is caught and named for what it is, and an honest one never."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from qmtl import CacheView, Strategy, StreamInput, builtin, dag_message
from qmtl.backtest.honesty.captured import Search
from qmtl.backtest.honesty.check import check, program_of
from qmtl.backtest.honesty.child import load
from qmtl.backtest.honesty.findings import Cause, Check, Report
from qmtl.backtest.honesty.process import places_of, processes
from qmtl.backtest.honesty.steady import HERE
from qmtl.backtest.honesty.subject import Place, Setup, Subject
from qmtl.backtest.honesty.trading import apart
from qmtl.backtest.honesty.trial import PLAIN
from qmtl.foundation.common.code_identity import function_hash
from qmtl.foundation.common.errors import (
    CodeDiffers,
    CodeMissing,
    InvalidDag,
    InvalidValue,
    TrialLost,
    UsageError,
)
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.sdk.loading import load_strategy, message_of
from tests.backtest.honesty import cheats
from tests.backtest.honesty.cheats import CHEATS
from tests.backtest.honesty.markets import MINUTE_MS, START_MS, bars_of, closes_of, market
from tests.runtime.sdk.authored import BuiltinCross, PythonCross

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [*CHEATS, "smooth", "target"])
def test_each_cheat_is_named_for_what_it_is_and_nobody_else(cheated: Report, name: str) -> None:
    """Nodes that read a cheat give other values, too, and are not blamed."""
    _, expected = CHEATS.get(name, (None, set()))
    assert {one.cause for one in cheated.findings if one.node == name} == expected


def test_a_finding_names_function_symbol_first_bucket_and_both_values(cheated: Report) -> None:
    (clock,) = (one for one in cheated.findings if one.node == "date")
    assert clock.code == "tests.backtest.honesty.cheats:date"
    assert (clock.symbol, clock.bucket_ms) == ("BTC-USD", START_MS + MINUTE_MS)
    assert (clock.was, clock.became, clock.changing) == ("2020.0", "2030.0", "when the clock was moved")
    assert clock.what.startswith(
        "node 'date' (tests.backtest.honesty.cheats:date) gave 2020.0 for BTC-USD in the bucket 1577836860000"
        " (2020-01-01T00:01:00Z), and 2030.0 when the clock was moved; "
    )
    assert "view.bucket_ms" in clock.remedy


def test_who_reads_a_cheat_is_told_with_the_targets_that_it_moves(cheated: Report) -> None:
    (signs,) = (one for one in cheated.findings if one.node == "table_of_signs")
    assert signs.readers == ("smooth", "target")
    assert signs.intents > 10
    assert all(
        not one.readers and not one.intents for one in cheated.findings if one.node != "table_of_signs"
    )


def test_what_is_remembered_from_the_first_bar_on_is_held_against_both_beginnings(cheated: Report) -> None:
    (first,) = (one for one in cheated.findings if one.cause is Cause.START_OF_DATA)
    closes = closes_of("BTC-USD")
    place = (first.bucket_ms - START_MS) // MINUTE_MS - 1
    assert float(first.was) == closes[place] / closes[0] - 1
    assert float(first.became) == 0.0


def test_every_check_says_what_it_did_and_what_it_can_not_see(cheated: Report) -> None:
    assert [one.check for one in cheated.checks] == list(Check)
    for one in cheated.checks:
        assert one.runs > 0
        assert one.did
        assert one.blind
        assert all(each.cause.check is one.check for each in one.findings)
    ahead = cheated.checks[0]
    assert ahead.runs == 4 * int(ahead.did.split()[0]) + 1
    assert any("'table_of_closes' failed" in note for note in ahead.notes)
    assert any("not judged" in note and "counted" in note for note in ahead.notes)


def test_honest_strategies_give_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the documents, loaded from a file of its own; and the same crossing of built-in nodes and of functions."""
    (program, *_) = re.findall(
        r"<!-- run -->\n```python\n(.*?)```", (ROOT / "docs/strategies.md").read_text(), re.DOTALL
    )
    file = tmp_path / "mean_reversion_of_docs.py"
    file.write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    told: list[tuple[str, int, int]] = []
    report = check(
        [
            message_of(load_strategy(str(file)), 60),
            *(dag_message(one(default_interval="1m")) for one in (PythonCross, BuiltinCross)),
        ],
        market(),
        cut_count=2,
        start_count=2,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert report.findings == ()
    assert report.is_clean
    assert {(what, done) for what, done, total in told if done == total} >= {("processes", 6), ("warm-up", 2)}


def test_the_first_process_that_trades_otherwise_is_named() -> None:
    assert apart(["a"] * 3) == ()
    (found,) = apart(["a", "a", "b"])
    assert (found.cause, found.changing) == (Cause.TRADING, "where texts hash otherwise (PYTHONHASHSEED)")
    assert found.what.startswith("the trading gave orders and fills with the digest a, and ")


# ---- what can't be checked --------------------------------------------------------------------------------------------


class OfPrices(Strategy):
    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price", interval=60)
        self.add_nodes([price, builtin("position_target", price, long_percent=1, short_percent=0)])


def test_a_process_that_dies_or_fails_is_told_and_the_next_question_is_answered() -> None:
    with processes(Setup(program_of([dag_message(OfPrices())]), market(), ()), [HERE]) as (process,):
        for request, told in ((Dies(), "ended before its answer"), (Raises(), "ValueError: no answer")):
            process.ask(request)
            with pytest.raises(TrialLost, match=told):
                process.answer()
        assert len(process.run(PLAIN)) == 1


class Dies:
    def answer(self, subject: Subject) -> None:
        os._exit(3)


class Raises:
    def answer(self, subject: Subject) -> None:
        raise ValueError("no answer")


def test_functions_of_a_program_are_loaded_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module is the main one, and of another process than those that check it."""
    monkeypatch.delitem(sys.modules, "__qmtl_checked__", raising=False)
    file = tmp_path / "program.py"
    file.write_text("def main(view):\n    return 1.0\n")
    found = load(Place("n", "__main__:main", function_hash(main), str(file)))
    assert found.__module__ == "__qmtl_checked__"
    with pytest.raises(CodeDiffers):
        load(Place("n", "__main__:main", "blake3:0", str(file)))
    with pytest.raises(CodeMissing, match="lies in no file"):
        load(Place("n", "__main__:main", "blake3:0", None))
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    with pytest.raises(CodeMissing, match=r"ZeroDivisionError \(division by zero\)"):
        load(Place("n", "__main__:main", "blake3:0", str(broken)))
    monkeypatch.delitem(sys.modules, "__qmtl_checked__", raising=False)


def main(view: CacheView) -> float:
    return 1.0


def test_a_check_within_a_check_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMTL_CHECK_PROCESS", "1")
    with pytest.raises(UsageError, match="while the module of a strategy was imported"):
        check([dag_message(OfPrices())], market(3))


def test_a_function_in_a_module_that_nobody_named_is_not_imported() -> None:
    message = dag_message(cheats.Cheats()).replace(
        b"tests.backtest.honesty.cheats:", b"antigravity_of_nobody:"
    )
    with pytest.raises(CodeMissing, match=r"antigravity_of_nobody:.* is in no package that was named"):
        places_of(program_of([message]))


@pytest.mark.parametrize(
    ("messages", "bars", "error", "told"),
    [
        ([], market(3), InvalidValue, "no strategy"),
        ([b"{"], market(3), InvalidDag, "JSON"),
        ([dag_message(OfPrices())], {}, InvalidValue, "no bars"),
    ],
)
def test_what_no_backtest_takes_is_refused(
    messages: Any, bars: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        check(messages, bars)


# ---- bars that a function carries -------------------------------------------------------------------------------------

_DATA = tuple(closes_of("BTC-USD"))
_PART = _DATA[40:48]
_PAIRS = tuple([(at, value) for at, value in enumerate(_DATA[20:60])])
_MAPPED = MappingProxyType({str(at): value for at, value in enumerate(_DATA[30:50])})
_SHORT = _DATA[40:47]
_SCALED = tuple([value * 2 for value in _DATA])
_TIMES = tuple(range(START_MS + MINUTE_MS, START_MS + 20 * MINUTE_MS, MINUTE_MS))


def part(view: CacheView) -> float:
    return _PART[0]


def pairs(view: CacheView) -> float:
    return _PAIRS[0][1]


def mapped(view: CacheView) -> float:
    return _MAPPED["0"]


def through_another(view: CacheView) -> float:
    return part(view)


def times(view: CacheView) -> float:
    return float(view.bucket_ms in _TIMES)


def short(view: CacheView) -> float:
    return _SHORT[0]


def scaled(view: CacheView) -> float:
    return _SCALED[0]


_EQUAL = (100.0,) * 20
_STEPS = (100.0, 100.0, 100.0, 101.0, 101.0, 100.0, 100.0, 100.0)


def equal(view: CacheView) -> float:
    return _EQUAL[0] + _STEPS[0]


def test_few_different_numbers_are_no_data() -> None:
    """A price that hardly moves is not known by being told twice."""
    price = Decimal(100)
    still = [replace(bar, open=price, high=price, low=price, close=price) for bar in bars_of("BTC-USD", 30)]
    moved = [
        replace(bar, high=Decimal(101), close=Decimal(101)) if at in (13, 14) else bar
        for at, bar in enumerate(still)
    ]
    bars = {"BTC-USD": BarColumns.of("BTC-USD", 60, moved)}
    assert Search().answer(Subject(program_of([dag_message(OfPrices())]), bars, {"n": equal})) == []


@pytest.mark.parametrize(
    ("function", "name", "place"),
    [
        (part, "_PART", 40),
        (pairs, "_PAIRS", 20),
        (mapped, "_MAPPED", 30),
        (through_another, "_PART", 40),
        (times, "_TIMES", 1),
        (short, "", 0),
        (scaled, "", 0),
        (cheats.honest, "", 0),
    ],
)
def test_a_stretch_of_the_data_is_found_wherever_a_function_has_it(
    function: Any, name: str, place: int
) -> None:
    program = program_of([dag_message(OfPrices())])
    found = Search().answer(Subject(program, {"BTC-USD": market()["BTC-USD"]}, {"n": function}))
    assert [(one.name, one.symbol) for one in found] == ([(name, "BTC-USD")] if name else [])
    if name:
        assert found[0].bucket_ms == START_MS + MINUTE_MS * (place + 1)
