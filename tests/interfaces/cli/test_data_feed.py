"""`qmtl data fingerprint`, `feed` and `poll`: a world that is bound to bars gets those bars, as of their commit, or none; another one those that come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.view import TableView
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli.options import reading
from qmtl.runtime.data.bars import BarSource, dataset_fingerprint
from tests.interfaces.cli.running import assert_one_screen, call
from tests.runtime.data.exchange import START_MS as EXCHANGE_MS
from tests.runtime.data.exchange import Exchange, rows_of, serving
from tests.runtime.data.walk import START_MS, as_csv, minute
from tests.services.graphs import crossing, strategy, text

Capture = pytest.CaptureFixture[str]

SYMBOL = "BTC-USD"
MINUTES = 130


def fills(address: str) -> list[Any]:
    with reading(address) as log:
        return list(TableView(log, "trade.fills", codec).refresh().rows())


def test_a_world_that_is_bound_to_bars_gets_them_or_none(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_CATALOGUE", str(tmp_path / "c"))
    monkeypatch.setenv("QMTL_LOG", f"embedded:{tmp_path / 'log'}")
    series = ("--symbol", SYMBOL, "--interval", "1m")
    first = as_csv(tmp_path / "one.csv", [minute(at) for at in range(MINUTES)])
    assert call(capsys, "data", "import", str(first), *series).code == 0
    (told,) = call(capsys, "data", "fingerprint", *series, "--json").lines()
    assert told["dataset_fingerprint"] == dataset_fingerprint([BarSource(SYMBOL, first)])
    bound = ("--fingerprint", told["dataset_fingerprint"])

    assert call(capsys, "world", "create", "w1", *bound).code == 0
    (world,) = call(capsys, "world", "list", "--json").lines()
    assert world["dataset_fingerprint"] == told["dataset_fingerprint"]
    assert_one_screen(call(capsys, "data", "feed", "w1"), "QMTL-809", 6, says=["dag publish"])
    file = tmp_path / "s1.json"
    file.write_bytes(text(strategy(crossing(3, 8, symbols=[SYMBOL]))))
    context = ("--domain", "backtest", "--as-of", told["as_of"], *bound)
    ran = call(capsys, "dag", "publish", str(file), "--world", "w1", *context)
    assert ran.code == 0, ran
    gate = ("w1", "--strategy", "s1", "--side", "long", "--active", "true")
    assert call(capsys, "world", "activation", "set", *gate).code == 0

    more = as_csv(tmp_path / "two.csv", [minute(at) for at in range(MINUTES, MINUTES + 10)])
    assert call(capsys, "data", "import", str(more), *series).code == 0
    address = f"embedded:{tmp_path / 'log'}"
    # The newest commit has more bars than the world is bound to.
    whole = call(capsys, "data", "feed", "w1")
    assert_one_screen(whole, "QMTL-813", 8, says=["world 'w1'", told["dataset_fingerprint"], "commit 2"])
    live = call(capsys, "data", "poll", "w1", "--exchange", "binance", "--once")
    assert_one_screen(live, "QMTL-813", 8, says=["world 'w1'"])
    assert fills(address) == []
    found: list[Any] = []
    # The same bars out of a later commit are the same data, and nothing comes twice.
    for number, choice in ((1, ("--as-of", "1")), (2, ("--to", str(START_MS + 60_000 * MINUTES)))):
        ran = call(capsys, "data", "feed", "w1", *choice, "--json")
        assert ran.code == 0, ran
        (fed,) = ran.lines()
        assert (fed["bars"], fed["commit"]) == (MINUTES, number)
        assert fed["dataset_fingerprint"] == told["dataset_fingerprint"]
        assert found in ([], fills(address))
        found = fills(address)
        assert len(found) > 1


@pytest.mark.parametrize("fingerprint", ["blake3:12", "1" * 64, "BLAKE3:" + "a" * 64])
def test_what_is_no_fingerprint_is_refused(tmp_path: Path, capsys: Capture, fingerprint: str) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "world", "create", "w1", "--fingerprint", fingerprint, "--log", log)
    assert_one_screen(ran, "QMTL-801", 2, says=["--fingerprint was"])
    assert list(tmp_path.iterdir()) == []


def test_bars_of_an_exchange_come_as_they_close(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_LOG", f"embedded:{tmp_path / 'log'}")
    file, asked = tmp_path / "s1.json", tmp_path / "settings.json"
    file.write_bytes(text(strategy(crossing(3, 8, symbols=["BTC-USDT"]))))
    assert call(capsys, "world", "create", "w1").code == 0
    ran = call(capsys, "dag", "publish", str(file), "--world", "w1", "--domain", "live")
    assert ran.code == 0, ran
    with serving(Exchange(rows_of(30), EXCHANGE_MS + 20 * 60_000 + 2_999)) as exchange:
        asked.write_text(json.dumps(exchange.settings()))
        command = (
            *(
                "data",
                "poll",
                "w1",
                "--exchange",
                "binance",
                "--symbol",
                "BTC-USDT=BTC/USDT",
                "--once",
                "--json",
            ),
            *("--settings", str(asked), "--retries", "0", "--tick", "--from", str(EXCHANGE_MS)),
        )
        ran = call(capsys, *command)
        assert ran.code == 0, ran
        # The 20th is closed for less than the three seconds that it takes to settle.
        assert ran.lines() == [{"bars": 19, "buckets": 19, "closed_ms": EXCHANGE_MS + 19 * 60_000}]
        exchange.now_ms += 60_001
        exchange.faults = [500]
        assert_one_screen(call(capsys, *command), "QMTL-708", 7, says=["binance"])
        assert call(capsys, *command).lines()[0]["bars"] == 2
        ran = call(capsys, *command, "--symbol", "X")
        assert_one_screen(ran, "QMTL-801", 2, says=["OURS=THEIRS"])


def test_a_run_takes_the_bars_of_its_as_of_and_no_others(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest commit has more bars than the one that the context names. What is refused is not published."""
    monkeypatch.setenv("QMTL_LOG", f"embedded:{tmp_path / 'log'}")
    catalogue = tmp_path / "c"
    series = ("--symbol", SYMBOL, "--interval", "1m", "--catalogue", str(catalogue))
    for number in range(2):
        some = [minute(at) for at in range(number * 20, number * 20 + 20)]
        file = as_csv(tmp_path / f"{number}.csv", some)
        assert call(capsys, "data", "import", str(file), *series).code == 0
    (told,) = call(capsys, "data", "fingerprint", *series, "--as-of", "1", "--json").lines()
    (newest,) = call(capsys, "data", "fingerprint", *series, "--json").lines()
    assert call(capsys, "world", "create", "w1").code == 0
    assert call(capsys, "world", "create", "w2", "--fingerprint", newest["dataset_fingerprint"]).code == 0
    message = tmp_path / "s1.json"
    message.write_bytes(text(strategy(crossing(3, 8, symbols=[SYMBOL]))))

    def run(world: str, data: Path | str, *context: str) -> Any:
        options = ("--world", world, "--domain", "backtest", *context, "--data", str(data), "--json")
        return call(capsys, "strategy", "run", str(message), *options)

    old, other = ("--as-of", "1"), ("--fingerprint", newest["dataset_fingerprint"])
    assert_one_screen(run("w2", catalogue, *old), "QMTL-813", 8, says=["world 'w2'", "commit 1"])
    assert_one_screen(run("w1", catalogue, *old, *other), "QMTL-813", 8, says=["context of the run"])
    file = as_csv(tmp_path / "f.csv", [minute(0), minute(1)])
    assert_one_screen(run("w1", f"{SYMBOL}={file}", *old, *other), "QMTL-813", 8, says=["from files"])
    assert_one_screen(run("w1", catalogue, "--as-of", "9"), "QMTL-706", 7, says=["no commit"])
    assert call(capsys, "dag", "list", "--json").lines() == []

    ran = run("w1", catalogue, *old)
    assert ran.code == 0, ran
    assert ran.lines()[-2] == {"event": "completed", "bucket_ms": START_MS + 20 * 60_000, "failed": []}
    # Without a word of its own a run is in the log's context.
    options = ("--world", "w1", "--data", str(catalogue))
    later = call(capsys, "strategy", "run", str(message), *options)
    assert_one_screen(later, "QMTL-813", 8, says=["the context of the log", "'1'", "commit 2"])
    assert told["dataset_fingerprint"] != newest["dataset_fingerprint"]
