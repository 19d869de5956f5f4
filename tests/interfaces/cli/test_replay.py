"""`qmtl replay`: what verification and digests say to people, to programs and by exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmtl.engine.store import Store
from qmtl.engine.table import Version, frame
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.replay.digest import digests
from tests.interfaces.cli.running import assert_one_screen, call, run
from tests.interfaces.cli.seen import Seen
from tests.replay.logs import activate, commit, create, log_in, row, run_worldservice, ticks, world

BATCHES = ([create("alpha")], ticks(0, 2), [activate("alpha", "s1")])


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state directory as the demo's: the log in `log`, the stores in `tasks`."""
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path, BATCHES)
    return tmp_path


def damaged(state_dir: Path, cash: str) -> None:
    with log_in(state_dir / "log") as log:
        store = Store(state_dir / "tasks" / "worldservice-0", log.log_id)
        value = frame((Version(0, codec.encode(world("alpha", cash))),))
        store.write([("world.state", encode_key(("alpha",)), value)], store.checkpoint)
        store.close()


def test_an_honest_state_verifies(state_dir: Path) -> None:
    ran = run(state_dir, "replay", "verify", "--log", "embedded:log")
    assert (ran.code, ran.err) == (0, ""), ran
    words = {tuple(line.split()[:4]) for line in ran.out.splitlines()}
    assert ("worldservice[0]", "world.state", "1", "1") in words
    assert ("trading[0]", "trade.orders", "0", "-") in words
    assert "worldservice[0]: compared with the live store" in ran.out
    assert "no live store in tasks" in ran.out
    assert sorted(one.name for one in state_dir.iterdir()) == ["log", "tasks"]


def test_a_state_that_differs_is_an_error_that_names_the_row_and_both_sides(
    capsys: pytest.CaptureFixture[str], state_dir: Path
) -> None:
    damaged(state_dir, "31337")
    ran = call(capsys, "replay", "verify", "--log", f"embedded:{state_dir / 'log'}")
    assert_one_screen(
        ran, "QMTL-803", 9, says=["worldservice[0]", "table world.state", "key alpha", '"31337"', '"10000"']
    )
    assert "differs" in ran.out


def test_verification_for_programs_is_one_object(capsys: pytest.CaptureFixture[str], state_dir: Path) -> None:
    where = ("--json", "--log", f"embedded:{state_dir / 'log'}")
    good = call(capsys, "replay", "verify", *where)
    assert good.code == 0
    assert json.loads(good.out)["equal"] is True
    damaged(state_dir, "31337")
    bad = call(capsys, "replay", "verify", *where)
    assert bad.code == 9
    shown = json.loads(bad.out)
    (task,) = (one for one in shown["tasks"] if one["processor"] == "worldservice")
    (table,) = (one for one in task["tables"] if one["table"] == "world.state")
    assert (shown["equal"], task["against"], table["equal"]) == (False, "store", 0)
    assert table["difference"]["key"] == ["alpha"]
    assert table["difference"]["live"]["value"]["settings"]["initial_cash"] == "31337"
    assert table["difference"]["rebuilt"]["value"]["settings"]["initial_cash"] == "10000"


def test_the_state_directory_can_be_named(
    capsys: pytest.CaptureFixture[str], state_dir: Path, tmp_path: Path
) -> None:
    elsewhere = (
        "--state-dir",
        str(tmp_path / "elsewhere"),
        "--json",
        "--log",
        f"embedded:{state_dir / 'log'}",
    )
    shown = json.loads(call(capsys, "replay", "verify", *elsewhere).out)
    assert {one["against"] for one in shown["tasks"]} == {"nothing"}


def test_digests_are_the_ones_of_the_library(capsys: pytest.CaptureFixture[str], state_dir: Path) -> None:
    with log_in(state_dir / "log") as log:
        expected = digests(log, codec)
    where = ("--log", f"embedded:{state_dir / 'log'}")
    assert json.loads(call(capsys, "replay", "digest", "--json", *where).out) == expected
    people = call(capsys, "replay", "digest", *where).out
    assert dict(line.split() for line in people.splitlines()) == expected
    two = call(capsys, "replay", "digest", "clock", "activation", *where).out
    assert dict(line.split() for line in two.splitlines()) == {
        name: expected[name] for name in ("activation", "clock")
    }


def test_a_digest_that_changed_tells_which_topic_did(
    capsys: pytest.CaptureFixture[str], state_dir: Path
) -> None:
    where = ("--json", "--log", f"embedded:{state_dir / 'log'}")
    before = json.loads(call(capsys, "replay", "digest", *where).out)
    with log_in(state_dir / "log") as log:
        commit(log, [row("world.state", world("alpha", "1"))])
    after = json.loads(call(capsys, "replay", "digest", *where).out)
    assert [name for name in before if before[name] != after[name]] == ["world.state"]


def test_digests_do_not_need_a_log_that_nobody_holds(seen: Seen, state_dir: Path) -> None:
    with log_in(state_dir / "log"):
        ran = run(state_dir, "replay", "digest", "clock", "--log", "embedded:log")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("clock  blake3:")
