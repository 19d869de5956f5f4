"""`qmtl data fingerprint` and `qmtl data feed`: a world that is bound to bars gets those bars, as of their commit, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.view import TableView
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli.options import reading
from qmtl.runtime.data.bars import BarSource, dataset_fingerprint
from tests.interfaces.cli.running import assert_one_screen, call
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
    assert_one_screen(call(capsys, "data", "feed", "w2"), "QMTL-601", 6, says=["w2"])
    assert_one_screen(call(capsys, "data", "feed", "w1"), "QMTL-809", 6, says=["dag publish"])
    file = tmp_path / "s1.json"
    file.write_bytes(text(strategy(crossing(3, 8, symbols=[SYMBOL]))))
    context = ("--domain", "backtest", "--as-of", told["as_of"], *bound)
    ran = call(capsys, "dag", "publish", str(file), "--world", "w1", *context)
    assert ran.code == 0, ran
    for side in ("long", "short"):
        gate = ("w1", "--strategy", "s1", "--side", side, "--active", "true")
        assert call(capsys, "world", "activation", "set", *gate).code == 0

    more = as_csv(tmp_path / "two.csv", [minute(at) for at in range(MINUTES, MINUTES + 10)])
    assert call(capsys, "data", "import", str(more), *series).code == 0
    address = f"embedded:{tmp_path / 'log'}"
    # The newest commit has more bars than the world is bound to; so has no part of them.
    whole = call(capsys, "data", "feed", "w1")
    assert_one_screen(whole, "QMTL-813", 8, says=["world 'w1'", told["dataset_fingerprint"], "commit 2"])
    part = call(capsys, "data", "feed", "w1", "--as-of", "1", "--to", str(START_MS + 60_000 * 80))
    assert_one_screen(part, "QMTL-813", 8, says=["80 bars"])
    assert fills(address) == []
    found: list[Any] = []
    for _ in range(2):  # said again, nothing comes twice
        ran = call(capsys, "data", "feed", "w1", "--as-of", "1", "--json")
        assert ran.code == 0, ran
        (fed,) = ran.lines()
        assert (fed["bars"], fed["commit"], fed["as_of"]) == (MINUTES, 1, told["as_of"])
        assert fed["dataset_fingerprint"] == told["dataset_fingerprint"]
        assert found in ([], fills(address))
        found = fills(address)
        assert len(found) > 1
    # The same bars out of a later commit are the same data.
    ran = call(capsys, "data", "feed", "w1", "--to", str(START_MS + 60_000 * MINUTES))
    assert (ran.code, fills(address)) == (0, found)


@pytest.mark.parametrize("fingerprint", ["blake3:12", "1" * 64, "BLAKE3:" + "a" * 64])
def test_what_is_no_fingerprint_is_refused(tmp_path: Path, capsys: Capture, fingerprint: str) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "world", "create", "w1", "--fingerprint", fingerprint, "--log", log)
    assert_one_screen(ran, "QMTL-801", 2, says=["--fingerprint was"])
    assert list(tmp_path.iterdir()) == []
