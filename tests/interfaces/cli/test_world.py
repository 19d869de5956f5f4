"""`qmtl world activation set`: what is said of a gate is what the row says."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from qmtl.engine.view import TableView
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.cli.options import reading
from qmtl.interfaces.cli.world import set_activation
from tests.interfaces.cli.running import assert_one_screen, call

GATE = ["w1", "--strategy", "s", "--side", "long", "--active", "true"]


def test_a_drain_that_cancels_is_one_in_the_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = ("--log", f"embedded:{tmp_path / 'log'}")
    assert call(capsys, "world", "create", "w1", *log).code == 0
    ran = call(capsys, "world", "activation", "set", *GATE, "--drain", "cancel", *log)
    assert ran.code == 0, ran
    with reading(log[1]) as opened:
        row = TableView(opened, "activation", codec).refresh().get("w1", "s", "long")
    assert (row.drain, row.drain_cancels) == (True, True)


def test_the_mode_is_said_by_name_and_stays_until_it_is_said_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ("--log", f"embedded:{tmp_path / 'log'}")
    assert call(capsys, "world", "create", "w1", *log).code == 0
    told = []
    for more in ([], ["--effective-mode", "live"], ["--weight", "0.5"], ["--effective-mode", "compute-only"]):
        ran = call(capsys, "world", "activation", "set", *GATE, *more, *log)
        assert ran.code == 0, ran
        told.append(ran.out.strip().rpartition(", ")[2])
    assert told == ["paper", "live", "live", "compute-only"]
    with reading(log[1]) as opened:
        row = TableView(opened, "activation", codec).refresh().get("w1", "s", "long")
    assert (row.effective_mode.value, row.version) == ("compute-only", 4)


@pytest.mark.parametrize("name", ["w 1", "w:1", "w\n", "", "wörld", "w" * 201], ids=ascii)
def test_no_world_gets_a_name_that_nothing_can_be_published_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    ran = call(capsys, "world", "create", name, "--log", f"embedded:{tmp_path / 'log'}")
    assert_one_screen(ran, "QMTL-508", 5, says=["WORLD_ID was ", "1 to 200 characters", "another id"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "drains"),
    [("true", (True, False)), ("no", (False, False)), ("Cancel", (True, True)), (None, (False, False))],
)
def test_a_drain_is_a_truth_value_or_cancel(said: str | None, drains: tuple[bool, bool]) -> None:
    more = [] if said is None else ["--drain", said]
    assert set_activation.make_context("set", [*GATE, *more]).params["drain"] == drains


def test_another_drain_is_refused() -> None:
    with pytest.raises(click.BadParameter):
        set_activation.make_context("set", [*GATE, "--drain", "perhaps"])
