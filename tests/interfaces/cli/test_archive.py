"""`qmtl topic archive`: says where the archive is and what is in it, checks what is stored, and is refused in one screen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qmtl.bootstrap import open_store
from qmtl.engine.archive.address import parse, parse_manifest
from qmtl.engine.archive.reading import load, restore
from tests.interfaces.cli.running import assert_one_screen, call, environment, run
from tests.interfaces.cli.seen import Seen
from tests.replay.logs import RAW, bar, commit, log_in, row


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    made = tmp_path / "shelf"
    made.mkdir()
    return made


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No place for archives in the environment."""
    monkeypatch.delenv("QMTL_ARCHIVE", raising=False)


@pytest.mark.parametrize("topic", ["world.state", RAW])
def test_a_topic_is_archived_and_verified_and_every_record_is_in_it(
    capsys: pytest.CaptureFixture[str], seen: Seen, shelf: Path, topic: str
) -> None:
    ran = call(capsys, "topic", "archive", topic, "--log", seen.address, "--to", f"file://{shelf}", "--json")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    address, name = parse_manifest(told["manifest"])
    store = open_store(address)
    manifest = load(store, name)
    assert list(restore(store, manifest)) == seen.records[topic]
    assert told["records"] == len(seen.records[topic]) == sum(one["records"] for one in told["partitions"])
    assert (told["topic"], told["topic_id"]) == (topic, manifest.topic_id)
    for url in (told["manifest"], f"file://{shelf}"):
        (row,) = call(capsys, "topic", "archive", "--verify", url, "--json").lines()
        assert row["whole"] is True
        assert {key: row[key] for key in row if key != "whole"} == {
            key: told[key] for key in row if key != "whole"
        }
    again = call(
        capsys, "topic", "archive", topic, "--log", seen.address, "--to", f"file://{shelf}", "--json"
    )
    assert again == ran


def test_people_are_shown_the_manifest_and_every_partition(
    capsys: pytest.CaptureFixture[str], seen: Seen, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QMTL_ARCHIVE", f"file://{shelf}")
    ran = call(capsys, "topic", "archive", RAW, "--log", seen.address)
    assert (ran.code, ran.err) == (0, "")
    words = [line.split() for line in ran.out.splitlines() if line.strip()]
    (where,) = [line[1] for line in words if line[0] == "manifest"]
    assert [line[0] for line in words[-3:]] == ["0", "1", "2"]
    verified = call(capsys, "topic", "archive", "--verify", f"file://{shelf}")
    assert verified.code == 0
    assert verified.out.splitlines()[-1].split()[0] == where
    assert verified.out.splitlines()[-1].split()[-1] == "yes"


def test_of_several_archives_the_altered_one_is_named_and_all_are_looked_at(
    capsys: pytest.CaptureFixture[str], seen: Seen, shelf: Path
) -> None:
    for topic in ("world.state", RAW):
        to = ("--log", seen.address, "--to", f"file://{shelf}")
        assert call(capsys, "topic", "archive", topic, *to).code == 0
    spoilt = sorted((shelf / RAW).rglob("*.avro"))[0]
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    ran = call(capsys, "topic", "archive", "--verify", f"file://{shelf}", "--json")
    assert_one_screen(ran, "QMTL-904", 10, says=[spoilt.name, "was altered", "Nothing was deleted."])
    assert {one.get("topic"): one["whole"] for one in ran.lines()} == {None: False, "world.state": True}
    shown = call(capsys, "topic", "archive", "--verify", f"file://{shelf}")
    assert [line.split()[-1] for line in shown.out.splitlines()[2:]] == ["NO", "yes"]
    spoilt.unlink()
    gone = call(capsys, "topic", "archive", "--verify", f"file://{shelf}")
    assert_one_screen(gone, "QMTL-904", 10, says=[spoilt.name, "is not there"])


@pytest.mark.parametrize(
    ("args", "code", "exit_code", "says"),
    [
        ((), "QMTL-801", 2, "neither a topic nor --verify"),
        ((RAW,), "QMTL-801", 2, "without --to"),
        ((RAW, "--verify", "file:."), "QMTL-801", 2, "a topic and --verify"),
        ((RAW, "--to", "ftp://x"), "QMTL-801", 2, "neither s3: nor file:"),
        ((RAW, "--to", "s3://ME:hidden@kept"), "QMTL-801", 2, "has a user or a password"),
        ((RAW, "--to", "file:nowhere"), "QMTL-903", 10, "file:nowhere is no directory"),
        (("nowhere", "--to", "file:."), "QMTL-304", 3, "no topic 'nowhere'"),
        (("--verify", "file:nowhere"), "QMTL-903", 10, "file:nowhere is no directory"),
        (("--verify", "file:."), "QMTL-903", 10, "has no manifest"),
        (("--verify", f"file:./t/i/manifest-{'0' * 32}.json"), "QMTL-904", 10, "is not there"),
    ],
)
def test_what_is_refused_is_refused_in_one_screen(
    capsys: pytest.CaptureFixture[str],
    seen: Seen,
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    code: str,
    exit_code: int,
    says: str,
) -> None:
    monkeypatch.chdir(shelf)
    ran = call(capsys, "topic", "archive", "--log", seen.address, *args)
    assert_one_screen(ran, code, exit_code, says=[says])
    assert "hidden" not in ran.err
    assert list(shelf.iterdir()) == []


def test_a_topic_is_archived_while_another_process_holds_its_log(tmp_path: Path, shelf: Path) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row(RAW, bar("BTC", 0))])
        args = (
            "topic",
            "archive",
            RAW,
            "--log",
            f"embedded:{tmp_path / 'log'}",
            "--to",
            f"file://{shelf}",
            "--json",
        )
        first = json.loads(run(tmp_path, *args).out)
        commit(log, [row(RAW, bar("BTC", 1))])
        second = json.loads(run(tmp_path, *args).out)
    assert (first["records"], second["records"]) == (1, 2)
    verified = run(tmp_path, "topic", "archive", "--verify", f"file://{shelf}", "--json")
    assert sorted(one["records"] for one in verified.lines()) == [1, 2]
    assert len(list(open_store(parse(f"file://{shelf}")).names())) == 4


def test_without_the_stores_client_other_verbs_work_and_this_one_says_what_to_install(
    seen: Seen, shelf: Path
) -> None:
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'obstore':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from qmtl.interfaces.cli.main import main; sys.exit(main())"
    )

    def without(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *args],
            env=environment(PYTHONPATH=str(Path(__file__).parents[3])),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    assert without("topic", "list", "--log", seen.address).returncode == 0
    done = without("topic", "archive", RAW, "--log", seen.address, "--to", f"file://{shelf}")
    assert done.returncode == 2
    assert "pip install 'qmtl[archive]'" in done.stderr
