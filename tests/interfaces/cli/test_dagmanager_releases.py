"""A release by the command line, on a log whose workers run: begun, reported on, looked at, promoted by the clock, abandoned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.contracts.dag import SentinelStatus
from qmtl.foundation.contracts.release import ReportBacktest
from tests.interfaces.cli.deployed import CANARY, OTHER, WORLD, Deployed, client_on, settle
from tests.interfaces.cli.running import Ran, assert_one_screen, call
from tests.replay.logs import START_MS, commit, marker, row
from tests.services.graphs import crossing, strategy, text

DAY_MS = 86_400_000
NEW = text(strategy(crossing(5, 13), "s2", version="v10"))


def manage(capsys: pytest.CaptureFixture[str], place: Deployed, *args: str) -> Ran:
    return call(capsys, "service", "dagmanager", "release", *args, "--log", place.address)


def tick(place: Deployed, *instants_ms: int, said: Sequence[ReportBacktest] = ()) -> None:
    with client_on(place.directory, ("dagmanager", "topicadmin")) as client:
        commit(client.log, [row("dag.commands", one) for one in said], "people")
        settle(client)
        commit(client.log, [marker("clock", one) for one in instants_ms], "clock")
        settle(client)


def shares(place: Deployed, versions: Sequence[str]) -> dict[str, int]:
    rows = place.rows("dag.sentinels")
    active = [one for one in rows if one.status is SentinelStatus.ACTIVE and one.version in versions]
    return {one.version: one.traffic_weight for one in active}


def test_a_release_is_begun_reported_on_and_promoted_by_the_clock(
    capsys: pytest.CaptureFixture[str], mine: Deployed, tmp_path: Path
) -> None:
    file, other = tmp_path / "dag.json", tmp_path / "other.json"
    file.write_bytes(NEW)
    other.write_bytes(NEW + b" ")
    begin = ("start", "--file", str(file), "--world")
    (begun,) = manage(capsys, mine, *begin, WORLD, "--json").lines()
    release = begun["release_id"]
    assert begun["detail"] == f"release {release}: version v10 of {WORLD}/s2 is deployed after 20 backtests"
    assert_one_screen(manage(capsys, mine, *begin, WORLD), "QMTL-605", 6, says=[release])

    ran = ("backtest", "--release", release, "--run", "run0", "--passed", "--file")
    assert_one_screen(manage(capsys, mine, *ran, str(other)), "QMTL-606", 6, says=[blake3_hex(NEW)])
    assert manage(capsys, mine, *ran, str(file)).out == "1 of 20 backtests have passed\n"
    rest = [
        ReportBacktest(f"b{one}", release, f"run{one}", blake3_hex(NEW), True, START_MS)
        for one in range(1, 20)
    ]
    tick(mine, START_MS + DAY_MS, said=rest)
    assert shares(mine, (OTHER, "v10")) == {OTHER: 9_000, "v10": 1_000}
    tick(mine, START_MS + 2 * DAY_MS - 1, START_MS + 2 * DAY_MS)
    (shown,) = manage(capsys, mine, "show", "--json").lines()
    assert (shown["stage"], shown["since_ms"], shown["share"]) == ("half", START_MS + 2 * DAY_MS, 5_000)
    table = manage(capsys, mine, "show", "--world", WORLD, "--strategy", "s2").out.splitlines()[2].split()
    assert table[:8] == [release, WORLD, "s2", "v10", "half", "20/20", "50", "%"]
    tick(mine, START_MS + 3 * DAY_MS)
    assert shares(mine, (OTHER, "v10")) == {"v10": 10_000}
    audit = call(capsys, "service", "dagmanager", "audit", "--json", "--all", "--log", mine.address).lines()
    mentioned = [one["detail"].split(":")[0] for one in audit if one["subject"] == release]
    assert mentioned[-3:] == ["canary", "half", "deployed"]


def test_a_release_is_abandoned_by_a_failed_backtest_or_by_hand(
    capsys: pytest.CaptureFixture[str], mine: Deployed, tmp_path: Path
) -> None:
    file = tmp_path / "dag.json"
    file.write_bytes(NEW)
    begin = ("start", "--file", str(file), "--world", WORLD, "--json")
    (first,) = manage(capsys, mine, *begin).lines()
    ran = ("backtest", "--release", first["release_id"], "--run", "bad", "--file", str(file))
    assert_one_screen(manage(capsys, mine, *ran), "QMTL-801", 2, says=["--passed nor --failed"])
    told = manage(capsys, mine, *ran, "--failed", "--detail", "a loss")
    assert told.out == f"release {first['release_id']} was abandoned: backtest 'bad' failed: a loss\n"
    (second,) = manage(capsys, mine, *begin).lines()
    stop = ("abandon", "--release", second["release_id"], "--reason", "too slow")
    assert manage(capsys, mine, *stop).out.endswith("was abandoned: too slow\n")
    assert [one.stage.value for one in mine.rows("dag.releases")] == ["abandoned"] * 2
    assert len(manage(capsys, mine, "show", "--limit", "1", "--json").lines()) == 1


def test_what_a_publication_would_be_refused_for_refuses_a_release(
    capsys: pytest.CaptureFixture[str], mine: Deployed, tmp_path: Path
) -> None:
    file = tmp_path / "dag.json"
    file.write_bytes(text(strategy(crossing(3, 21), "s1", version="v10")))
    assert_one_screen(manage(capsys, mine, "start", "--file", str(file), "--world", "no"), "QMTL-601", 6)
    ran = manage(capsys, mine, "start", "--file", str(file), "--world", WORLD)
    assert_one_screen(ran, "QMTL-602", 6, says=["[QMTL-510]", mine.sentinel(CANARY).sentinel_id])
    file.write_bytes(b'{"schema_version": "v1"}')
    assert manage(capsys, mine, "start", "--file", str(file), "--world", WORLD).code == 5
    assert mine.rows("dag.releases") == []
