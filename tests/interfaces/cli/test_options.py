"""Options that verbs share: instants are read as they are written, and the state lies beside its log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import instant, state_dir_of

CONTEXT = click.Context(click.Command("any"))
OPTION = click.Option(["--from-time"])


def read(text: str) -> int | None:
    return instant(CONTEXT, OPTION, text)


@given(epoch_ms=st.integers(0, 253_402_300_799_999))
def test_an_instant_is_read_as_it_is_shown(epoch_ms: int) -> None:
    assert read(render.instant(epoch_ms)) == read(str(epoch_ms)) == epoch_ms


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-04-04", datetime(2018, 4, 4, tzinfo=UTC)),
        ("2018-04-04T12:30", datetime(2018, 4, 4, 12, 30, tzinfo=UTC)),
        ("2018-04-04 12:30:00+02:00", datetime(2018, 4, 4, 10, 30, tzinfo=UTC)),
    ],
)
def test_an_instant_without_an_offset_is_utc(text: str, moment: datetime) -> None:
    assert read(text) == int(moment.timestamp()) * 1000


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1.5", "1969-12-31", "2018-13-01", "2018-04-04T00:00:00.0001", "9" * 30, "²"]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        read(text)


@pytest.mark.parametrize(
    ("address", "said", "meant"),
    [
        ("embedded:.qmtl/demo/log", None, ".qmtl/demo"),
        ("embedded:/data/log", None, "/data"),
        ("embedded:log", None, "."),
        ("kafka://broker:9092", None, ".qmtl/demo"),
        ("embedded:/data/log", "other", "other"),
    ],
)
def test_the_state_lies_beside_its_log_unless_said_otherwise(
    address: str, said: str | None, meant: str
) -> None:
    assert state_dir_of(address, None if said is None else Path(said)) == Path(meant)
