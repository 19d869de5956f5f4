"""How findings are shown: a table for people, JSON for programs, and an end that says whether there were any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import qmtl.backtest.honesty.check
from qmtl.backtest.honesty.findings import Cause, Check, Checked, Report, Settling
from qmtl.backtest.simulation import DEFAULT_TERMS
from qmtl.foundation.common.errors import CheckFailed
from qmtl.interfaces.cli.backtest_check import check_options, render_findings, run_check

CLEAN = Report(
    (Checked(Check.WARM_UP, 4, "4 later beginnings", "the rest", (), ("2 targets differ",)),),
    (Settling("fast", "blake3:0", 30, 217, 1.25, 0), Settling("slow", "blake3:1", 300, None, 0.0, 3)),
    240,
    ("BTC-USD",),
)


def test_a_table_says_what_was_done_what_is_not_seen_and_every_finding(
    cheated: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    render_findings(cheated, as_json=False)
    shown = capsys.readouterr().out
    assert "Checked over 160 buckets of BTC-USD, ETH-USD." in shown
    for one in cheated.checks:
        assert one.did in shown
        assert f"{one.check.value} does not see {one.blind}." in shown
        assert all(f"{one.check.value}: {note}." in shown for note in one.notes)
    for found in cheated.findings:
        assert f"[{found.cause.value}] {found.what}\n" in shown
        assert f"  {found.remedy}\n" in shown
    assert "What reads it differs, too: smooth, target; " in shown


def test_json_has_all_of_it(cheated: Report, capsys: pytest.CaptureFixture[str]) -> None:
    render_findings(cheated, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["clean"] is False
    assert found["symbols"] == ["BTC-USD", "ETH-USD"]
    told = [one for check in found["checks"] for one in check["findings"]]
    assert [(one["node"], one["cause"], one["was"]) for one in told] == [
        (one.node, one.cause.value, one.was) for one in cheated.findings
    ]
    assert {one["node"] for one in found["settling"]} >= {"honest", "smooth", "target"}


def test_how_long_a_node_takes_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    render_findings(CLEAN, as_json=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fast", "30", "217", "1.25", "0"] in rows
    assert ["slow", "300", "not", "before", "the", "end", "0", "3"] in rows
    assert ["warm-up:", "2", "targets", "differ."] in rows


def test_the_verb_ends_with_1_where_something_was_found_and_shows_it_first(
    cheated: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    reports = [CLEAN, cheated]

    def stub(*given: object, **more: Any) -> Report:
        asked.append(more)
        return reports.pop(0)

    monkeypatch.setattr(qmtl.backtest.honesty.check, "check", stub)
    run_check([b""], {}, DEFAULT_TERMS, cut_count=3, start_count=2, as_json=True)
    assert json.loads(capsys.readouterr().out)["clean"] is True
    assert (asked[0]["cut_count"], asked[0]["start_count"]) == (3, 2)
    with pytest.raises(
        CheckFailed, match=r"21 findings in 'last_of_the_ring', .* and \d+ more; a backtest"
    ) as failed:
        run_check([b""], {}, DEFAULT_TERMS)
    assert failed.value.exit_code == 1
    assert "[calendar]" in capsys.readouterr().out


def test_the_flags_have_a_group_of_their_own() -> None:
    given: dict[str, Any] = {}

    @click.command()
    @check_options
    def verb(**options: Any) -> None:
        given.update(options)

    assert CliRunner().invoke(verb, []).exit_code == 0
    assert given == {"is_checked": False, "cut_count": 8, "start_count": 4}
    assert CliRunner().invoke(verb, ["--check", "--check-cuts", "2", "--check-starts", "1"]).exit_code == 0
    assert given == {"is_checked": True, "cut_count": 2, "start_count": 1}
    assert CliRunner().invoke(verb, ["--check-cuts", "0"]).exit_code == 2


def test_every_cause_has_a_name_a_rule_a_remedy_and_a_line_in_the_documents() -> None:
    told = (Path(__file__).parents[3] / "docs/honesty.md").read_text()
    assert len({one.value for one in Cause}) == len(Cause)
    for one in Cause:
        assert one.check in Check
        assert one.rule
        assert one.remedy.endswith(".")
        assert not one.rule.endswith(".")
        assert f"| `{one.value}` |" in told
