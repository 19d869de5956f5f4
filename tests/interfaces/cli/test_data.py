"""`qmtl data`: files and an exchange's history come into a catalogue, what is wrong is told, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmtl.runtime.data.bars import BarSource, dataset_fingerprint
from tests.interfaces.cli.running import call
from tests.runtime.data.exchange import MINUTE_MS, START_MS, Exchange, rows_of, serving
from tests.runtime.data.walk import START_MS as FILES_MS
from tests.runtime.data.walk import SYMBOL, as_csv, minute

Capture = pytest.CaptureFixture[str]


def written(path: Path, begin: int, end: int) -> Path:
    """Minutes, of which every tenth is absent."""
    return as_csv(path, [minute(at) for at in range(begin, end) if at % 10 != 9])


def harmed(directory: Path) -> str:
    """Flips a bit of one part, and says which."""
    path = min(directory.glob("bars/*/*/*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name


def test_files_are_imported_looked_at_repaired_and_verified(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_CATALOGUE", str(tmp_path / "c"))
    one, two = written(tmp_path / "one.csv", 0, 30), written(tmp_path / "two.csv", 20, 60)
    broken = tmp_path / "broken.csv"
    broken.write_bytes(one.read_bytes()[:-3])
    series = ("--symbol", SYMBOL, "--interval", "1m")
    ran = call(capsys, "data", "import", str(one), str(broken), str(two), *series, "--json")
    assert ran.code == 7
    assert "QMTL-702" in ran.err
    assert "broken.csv line 28" in ran.err
    first, second, third = ran.lines()
    assert (first["bars"], second["imported"], third["bars"], third["known"]) == (27, False, 27, 9)

    (listed,) = call(capsys, "data", "list", "--fingerprint", "--json").lines()
    whole = written(tmp_path / "whole.csv", 0, 60)
    assert listed["dataset_fingerprint"] == dataset_fingerprint([BarSource(SYMBOL, whole)])
    assert (listed["bars"], listed["as_of"]) == (54, third["as_of"])
    (before,) = call(capsys, "data", "list", "--as-of", "1", "--json").lines()
    assert (before["bars"], before["as_of"]) == (27, first["as_of"])
    assert [row["bars"] for row in call(capsys, "data", "log", "--json").lines()] == [27, 27]

    assert [gap["bars"] for gap in call(capsys, "data", "gaps", "--json").lines()] == [1] * 5
    for verb in ("gaps", "verify"):
        for typo in (("--symbol", f"{SYMBOL}T"), ("--interval", "5m")):
            unknown = call(capsys, "data", verb, *typo)
            assert (unknown.code, unknown.out) == (7, ""), (
                "what is not there is neither whole nor without gaps"
            )
            assert f"it has {SYMBOL} 60 s" in unknown.err
    sound = call(capsys, "data", "verify", "--min-coverage", "90", "--max-gap", "1")
    assert (sound.code, "yes" in sound.out) == (0, True)
    now = str(FILES_MS + 60 * MINUTE_MS)
    assert call(capsys, "data", "verify", "--now", now, "--max-age", "1m").code == 0
    for terms, word in (
        (("--max-gap", "0"), "gap of 1"),
        (("--now", now, "--max-age", "59s"), "60000 ms before"),
        (("--max-age", "1h"), "ms before"),  # by the machine's clock
        (("--min-coverage", "90", "--to", str(int(now) + 30 * MINUTE_MS)), "54 of 90 bars"),
        (("--min-coverage", "92", "--from", str(FILES_MS)), "54 of 59 bars"),
    ):
        ran = call(capsys, "data", "verify", *terms)
        assert (ran.code, "QMTL-710" in ran.err, word in ran.err) == (7, True, True), ran

    gauges = tmp_path / "data.prom"
    ran = call(capsys, "data", "verify", "--max-gap", "0", "--metrics", str(gauges))
    told = dict(line.rsplit(" ", 1) for line in gauges.read_text().splitlines() if line[0] != "#")
    labels = f'{{interval="60",symbol="{SYMBOL}"}}'
    for name, value in (
        ("bars", 54.0),
        ("expected_bars", 59.0),
        ("coverage_ratio", 54 / 59),
        ("gaps", 5.0),
        ("longest_gap_bars", 1.0),
        ("newest_close_timestamp_seconds", FILES_MS / 1000 + 59 * 60),
        ("whole", 0.0),
    ):
        assert float(told[f"qmtl_data_{name}{labels}"]) == value, name
    assert told["qmtl_data_commit"] == "2.0"

    full = as_csv(tmp_path / "full.csv", [minute(at) for at in range(35)])
    (repaired,) = call(capsys, "data", "repair", str(full), *series, "--json").lines()
    assert (repaired["bars"], repaired["gaps_left"]) == (3, 2)

    journal = tmp_path / "c" / "journal" / "000000001.json"
    kept = journal.read_bytes()
    journal.write_bytes(kept.replace(b'"bars": 27', b'"bars": 28'))
    ran = call(capsys, "data", "verify")
    assert (ran.code, "QMTL-705" in ran.err, journal.name in ran.err) == (7, True, True)
    journal.write_bytes(kept)

    name = harmed(tmp_path / "c")
    ran = call(capsys, "data", "verify", "--json")
    assert (ran.code, ran.lines()[0]["whole"]) == (7, False)
    assert "QMTL-705" in ran.err
    assert name in ran.err


def test_history_of_an_exchange_is_fetched_once(tmp_path: Path, capsys: Capture) -> None:
    with serving(Exchange(rows_of(30), START_MS + 25 * MINUTE_MS)) as exchange:
        settings = tmp_path / "settings.json"
        settings.write_text(json.dumps(exchange.settings()))
        command = (
            *("data", "fetch", "--exchange", "binance", "--symbol", "BTC/USDT", "--interval", "1m"),
            *("--from", str(START_MS), "--to", str(START_MS + 40 * MINUTE_MS)),
            *("--catalogue", str(tmp_path / "c"), "--settings", str(settings), "--retries", "0", "--json"),
        )
        (first,) = call(capsys, *command).lines()
        assert (first["bars"], first["skipped"]) == (25, 0)
        (second,) = call(capsys, *command).lines()
        assert (second["bars"], second["skipped"], second["as_of"]) == (0, 25, first["as_of"])
        exchange.faults = [503]
        exchange.now_ms += MINUTE_MS
        ran = call(capsys, *command)
        assert (ran.code, "QMTL-708" in ran.err) == (7, True)


@pytest.mark.parametrize(
    "words, code, told",
    [
        (("list",), 7, "QMTL-706"),
        (("import", "absent.csv", "--symbol", "X", "--interval", "60"), 7, "QMTL-702"),
        (("import", "x", "--symbol", "X", "--interval", "60", "--columns", "close"), 2, "QMTL-801"),
        (("import", "x", "--symbol", "X", "--interval", "60", "--columns", "price=p"), 1, "QMTL-101"),
        (("verify", "--min-coverage", "101"), 2, "QMTL-801"),
        (("fingerprint", "--symbol", "X", "--interval", "1m"), 7, "QMTL-706"),
    ],
)
def test_what_can_not_be_done_is_told(
    tmp_path: Path, capsys: Capture, words: tuple[str, ...], code: int, told: str
) -> None:
    ran = call(capsys, "data", *words, "--catalogue", str(tmp_path / "c"))
    assert (ran.code, told in ran.err) == (code, True)
