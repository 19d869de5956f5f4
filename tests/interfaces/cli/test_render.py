"""What is printed: nothing that a terminal obeys, nothing that is cut off, JSON that any program reads."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.interfaces.cli import render

any_text = st.text(
    st.characters(codec=None) | st.sampled_from("\x00\x07\x1b\x7f\x9b\n\r\t\u202e\u2028\ud800")
)
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Colour(Enum):
    RED = "red"


def raw_controls(text: str) -> list[str]:
    """Characters that a terminal may obey: by Unicode's own categories, not by our list."""
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        one
        for one in text
        if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(one) in bidi
    ]


@QUICK
@given(text=any_text)
def test_no_control_character_is_left(text: str) -> None:
    assert raw_controls(render.safe(text)) == []


@QUICK
@given(text=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_letters_numbers_and_signs_of_any_script_stay_as_they_are(text: str) -> None:
    assert render.safe(text) == text


def test_what_was_taken_away_can_be_seen() -> None:
    assert render.safe("a\x1b[31m\n\x9b\u202e\x00") == "a\\x1b[31m\\n\\x9b\\u202e\\x00"


@QUICK
@given(cells=st.lists(st.lists(any_text, min_size=2, max_size=2), max_size=4))
def test_every_way_to_stdout_and_stderr_is_safe(
    capsys: pytest.CaptureFixture[str], cells: list[list[str]]
) -> None:
    capsys.readouterr()
    render.table(("A\x1b", "B"), cells, title="\x1b]0;title\x07")
    for row in cells:
        render.line(row[0])
        render.columns(row, (3,))
        render.json_line({row[0]: row[1]})
        render.json_object({row[0]: row[1]})
        render.note(row[0])
        render.failure("QMTL-999", row[0], row[1])
    shown = capsys.readouterr()
    assert raw_controls(shown.out.replace("\n", "")) == []
    assert raw_controls(shown.err.replace("\n", "")) == []


def test_a_table_in_a_pipe_is_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 3000
    render.table(("A", "B"), [(long, "[bold]:smile:[/bold]")])
    shown = capsys.readouterr().out
    assert long in shown
    assert "[bold]:smile:[/bold]" in shown
    assert all(len(line) < 3100 for line in shown.splitlines())


def test_an_error_stays_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    render.failure("QMTL-999", "bad\n" * 10_000, "remedy\n" * 10_000)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 2
    assert len(shown) <= 2 * render.ERROR_CHARACTERS + 2


@QUICK
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_is_one_ascii_line_that_says_the_same(value: object) -> None:
    text = render.json_text(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


def test_json_has_sorted_keys_and_decimals_as_text() -> None:
    value = {"b": Decimal("1.50"), "a": (Colour.RED, 2**70), "c": {"y": None, "x": True}}
    assert render.json_text(value) == (
        '{"a": ["red", 1180591620717411303424], "b": "1.5", "c": {"x": true, "y": null}}'
    )


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, b"bytes"])
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        render.json_text(value)


@pytest.mark.parametrize(
    ("epoch_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_522_800_000_001, "2018-04-04T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (2**62, str(2**62)),
    ],
)
def test_instants_are_iso_8601_in_utc(epoch_ms: int, shown: str) -> None:
    assert render.instant(epoch_ms) == shown


def test_a_stream_that_knows_fewer_letters_gets_escapes_instead_of_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", narrow)
    render.line("naïve € 漢")
    render.table(("Ä",), [("ö",)])
    assert raw.getvalue().startswith(b"na\\xefve \\u20ac \\u6f22\n")
    assert b"\\xf6" in raw.getvalue()


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with render.progress() as advance:
        advance("work", 1, 2)
    assert capsys.readouterr() == ("", "")
