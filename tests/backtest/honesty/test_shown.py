"""How findings are shown: a table for people, JSON for programs, and an end that says whether there were any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from qmtl.backtest.honesty.findings import Cause, Check, Checked, Report, Settling
from qmtl.interfaces.cli.backtest_check import check_options, findings_object, render_findings
from qmtl.interfaces.cli.main import main

CLEAN = Report(
    (Checked(Check.WARM_UP, 4, "4 later beginnings", "the rest", (), ("2 targets differ",)),),
    (Settling("fast", "blake3:0", 30, 217, 1.25, 0), Settling("slow", "blake3:1", 300, None, 0.0, 3)),
    240,
    ("BTC-USD",),
)


def test_a_table_says_what_was_done_what_is_not_seen_and_every_finding(
    cheated: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    render_findings(cheated)
    shown = capsys.readouterr().out
    assert "Checked over 240 buckets of BTC-USD, ETH-USD." in shown
    for one in cheated.checks:
        assert one.did in shown
        assert f"{one.check.value} does not see {one.blind}." in shown
        assert all(f"{one.check.value}: {note}." in shown for note in one.notes)
    for found in cheated.findings:
        assert f"[{found.cause.value}] {found.what}\n" in shown
        assert f"  {found.remedy}\n" in shown
    assert "What reads it differs, too: smooth, target; " in shown


def test_json_has_all_of_it(cheated: Report) -> None:
    found: dict[str, Any] = json.loads(json.dumps(findings_object(cheated)))
    assert found["clean"] is False
    assert found["symbols"] == ["BTC-USD", "ETH-USD"]
    told = [one for check in found["checks"] for one in check["findings"]]
    assert [(one["node"], one["cause"], one["was"]) for one in told] == [
        (one.node, one.cause.value, one.was) for one in cheated.findings
    ]
    assert {one["node"] for one in found["settling"]} >= {"honest", "smooth", "target"}


def test_how_long_a_node_takes_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    render_findings(CLEAN)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fast", "30", "217", "1.25", "0"] in rows
    assert ["slow", "300", "not", "before", "the", "end", "0", "3"] in rows
    assert ["warm-up:", "2", "targets", "differ."] in rows


AUTHORED = """
from types import MappingProxyType

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target


def count(view: CacheView, seen=MappingProxyType({"calls": []})) -> int:
    seen["calls"].append(view.bucket_ms)
    return len(seen["calls"])


def honest(view: CacheView) -> Target:
    return Target(0.5 if view["price"][60][-1] > view["price"][60][0] else 0)


def cheating(view: CacheView) -> Target:
    return Target(0.5 if count(view) % 3 else 0)


class One(Strategy):
    function = staticmethod(honest)

    def setup(self) -> None:
        price = StreamInput(symbols=["ETH-USD"], name="price", interval="1m")
        self.add_nodes([price, ProcessingNode(price, self.function, name="lean", period=3, gives="target")])


class Other(One):
    function = staticmethod(cheating)
"""


@pytest.mark.parametrize(("name", "code"), [("One", 0), ("Other", 1)])
def test_the_verb_shows_what_was_found_and_ends_with_it(
    name: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "authored.py"
    file.write_text(AUTHORED, encoding="utf-8")
    less = ["--to", "2018-04-04T01:30:00Z", "--check-cuts", "1", "--check-starts", "1"]
    assert main(["backtest", f"{file}:{name}", "--check", "--json", *less]) == code
    said = capsys.readouterr()
    found = json.loads(said.out)["honesty"]
    assert found["clean"] is (code == 0)
    told = {(one["node"], one["cause"]) for check in found["checks"] for one in check["findings"]}
    assert told == (set() if code == 0 else {("lean", "hidden-state")})
    assert ("QMTL-818" in said.err) is (code == 1)


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
