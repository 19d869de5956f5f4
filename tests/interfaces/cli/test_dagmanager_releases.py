"""A release by the command line, on a log whose workers run: begun, reported on, looked at, promoted by the clock, abandoned."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.contracts.dag import SentinelStatus
from qmtl.foundation.contracts.release import ReportBacktest
from tests.interfaces.cli.deployed import CANARY, OTHER, WORLD, Deployed, client_on, settle
from tests.interfaces.cli.running import Ran, assert_one_screen, call, environment
from tests.replay.logs import START_MS, commit, marker, row
from tests.services.graphs import crossing, strategy, text

DAY_MS = 86_400_000
RESULT = blake3_hex(b"what it gave")
OVER = (
    "--fingerprint",
    "d",
    "--from",
    "2026-01-01",
    "--to",
    "2026-01-01T01:00:00Z",
    "--result-digest",
    RESULT,
)
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

    ran = ("backtest", "--release", release, "--run", "run0", "--passed", *OVER, "--file")
    assert_one_screen(manage(capsys, mine, *ran, str(other)), "QMTL-606", 6, says=[blake3_hex(NEW)])
    assert manage(capsys, mine, *ran, str(file)).out == "1 of 20 backtests have passed\n"
    told = ReportBacktest("b", release, "run", blake3_hex(NEW), True, START_MS, "", "d", 0, 0, RESULT)
    rest = [replace(told, command_id=f"b{one}", run_id=f"run{one}", to_ms=one) for one in range(1, 20)]
    tick(mine, START_MS + DAY_MS, said=rest)
    assert shares(mine, (OTHER, "v10")) == {OTHER: 9_000, "v10": 1_000}
    tick(mine, START_MS + 2 * DAY_MS - 1, START_MS + 2 * DAY_MS)
    (shown,) = manage(capsys, mine, "show", "--json").lines()
    runs = [(one["run_id"], one["from_ms"], one["to_ms"], one["result_digest"]) for one in shown["runs"]]
    assert runs == [
        ("run0", 1_767_225_600_000, 1_767_229_200_000, RESULT),
        *((f"run{one}", 0, one, RESULT) for one in range(1, 20)),
    ]
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


# ---- many at once ----------------------------------------------------------------------------------------------------------


def a_run(number: int, **more: Any) -> dict[str, Any]:
    told = {"run_id": f"run{number}", "passed": True, "dataset_fingerprint": "d", "result_digest": RESULT}
    return {**told, "from_ms": 0, "to_ms": number + 1, **more}


def lines(*runs: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in runs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["has no runs"]),
        ("[]", ["has no runs"]),
        ("{", ["line 1", "no JSON"]),
        ("[{]", ["no JSON"]),
        ("[" * 100_000, ["no JSON"]),
        (lines(a_run(0), 7), ["run 2", "an object"]),
        (lines(a_run(0), {"run_id": "x"}), ["run 2", "passed is missing"]),
        (lines(a_run(0, run="x")), ["run 1", "'run' is no field"]),
        ('{"run_id": "x", "run_id": "y", "passed": true}', ["twice"]),
        (lines(a_run(0, passed="yes")), ["passed was 'yes'"]),
        (lines(a_run(0, from_ms=True)), ["from_ms was True"]),
        (lines(a_run(0, to_ms=1.5)), ["to_ms was 1.5"]),
        (lines(a_run(0, to_ms=10**30)), ["to_ms was the number 1"]),
        (lines(a_run(0, from_ms=1)), ["from_ms was the number 1 and to_ms 1"]),
        (lines(a_run(0, dataset_fingerprint=" ")), ["dataset_fingerprint"]),
        (lines(a_run(0), a_run(1, result_digest="abc")), ["run 2", "result_digest"]),
        (lines(a_run(0, run_id="r" * 201)), ["run_id"]),
        (lines(*map(a_run, range(1001))), ["more than 1000 runs"]),
        (" " * ((1 << 20) + 1), ["more than 1048576 bytes"]),
    ],
)
def test_a_file_of_results_with_a_mistake_reports_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: list[str]
) -> None:
    """The log is not even opened."""
    file, dag = tmp_path / "results", tmp_path / "dag.json"
    file.write_text(text)
    dag.write_bytes(NEW)
    words = ("backtest", "--release", "r", "--file", str(dag), "--results", str(file), "--log", "embedded:no")
    ran = call(capsys, "service", "dagmanager", "release", *words)
    assert_one_screen(ran, "QMTL-801", 2, says=says)
    assert not Path("no").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--run nor --results"),
        (("--run", "x", "--passed"), "dataset_fingerprint"),
        (("--run", "x", "--passed", *OVER[:-2]), "result_digest"),
        (("--run", "x", "--passed", *OVER, "--from", "2027-01-01"), "from_ms"),
        (("--run", "x", "--failed", "--to", "5", "--from", "7"), "from_ms"),
        (("--results", "x", "--run", "x"), "options of one run"),
        (("--results", "x", "--from", "0"), "options of one run"),
        (("--results", "no-file"), "no-file"),
    ],
)
def test_a_report_that_does_not_say_what_was_run_is_not_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "dag.json"
    file.write_bytes(NEW)
    asked = ("backtest", "--release", "r", "--file", str(file), *words, "--log", "embedded:no")
    assert_one_screen(call(capsys, "service", "dagmanager", "release", *asked), "QMTL-801", 2, says=[says])
    assert not Path("no").exists()


def test_of_many_results_one_that_failed_comes_first_and_ends_it(
    capsys: pytest.CaptureFixture[str], mine: Deployed, tmp_path: Path
) -> None:
    dag, file = tmp_path / "dag.json", tmp_path / "results.json"
    dag.write_bytes(NEW)
    failed = {"run_id": "bad", "passed": False, "detail": "a loss"}
    file.write_text(json.dumps([*map(a_run, range(20)), failed]))
    (begun,) = manage(capsys, mine, "start", "--file", str(dag), "--world", WORLD, "--json").lines()
    release = ("--release", begun["release_id"])
    ran = manage(capsys, mine, "backtest", *release, "--file", str(dag), "--results", str(file))
    assert_one_screen(ran, "QMTL-610", 6, says=["'bad' failed"])
    assert ran.out.endswith("was abandoned: backtest 'bad' failed: a loss\n")
    assert_one_screen(manage(capsys, mine, "check", *release), "QMTL-610", 6, says=["a loss"])
    assert_one_screen(manage(capsys, mine, "check", "--release", "no"), "QMTL-602", 6, says=["'no'"])


def test_a_pipeline_is_refused_by_the_gate_and_goes_on_where_it_was_left(
    capsys: pytest.CaptureFixture[str], mine: Deployed, tmp_path: Path
) -> None:
    """One run under twenty ids is refused; then one backtest is missing; with the last one the message is deployed."""
    dag, file = tmp_path / "dag.json", tmp_path / "results.jsonl"
    dag.write_bytes(NEW)
    file.write_text(lines(*map(a_run, range(19)), a_run(19, to_ms=1)))

    def pipeline(*more: str) -> Ran:
        script = str(Path(__file__).parents[3] / "deploy" / "release.sh")
        env = environment(QMTL=f"{sys.executable} -m qmtl", QMTL_LOG=mine.address)
        words = ["sh", script, str(dag), str(file), WORLD, *more]
        done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return Ran(done.returncode, done.stdout, done.stderr)

    refused = pipeline()
    assert (refused.code, refused.out) == (6, "")
    assert "[QMTL-609] " in refused.err
    assert "19 of 20 backtests have passed" in refused.err
    (shown,) = manage(capsys, mine, "show", "--json").lines()
    ran = manage(capsys, mine, "check", "--release", shown["release_id"])
    assert_one_screen(ran, "QMTL-610", 6, says=["19 of 20"])
    file.write_text(lines(*map(a_run, range(20))))
    approved = pipeline(shown["release_id"])
    assert approved.code == 0, approved.err
    assert approved.out.startswith(f"release {shown['release_id']} is approved (canary): version w1:s2:v10:")
    assert "run0' has passed already" in approved.err
    table = manage(capsys, mine, "show", "--release", shown["release_id"]).out
    assert all(f"run{number} " in table for number in range(20))
    file.write_text(lines({"run_id": "x"}))
    assert (pipeline(shown["release_id"]).code, pipeline("a", "b").code) == (2, 2)
