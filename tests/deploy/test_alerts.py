"""Each alert of the graph has a runbook, each runbook an alert, and what a runbook tells to type is a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from qmtl.interfaces.cli.main import cli
from tests.deploy.test_dashboards import panels

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
COMMANDS = re.compile(r"^ *```console\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def alerts() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((ROOT / "deploy/prometheus/dagmanager.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"] if "alert" in rule]


def commands(file: Path) -> list[str]:
    found = COMMANDS.findall(file.read_text(encoding="utf-8"))
    return [line.strip() for block in found for line in block.splitlines() if line.strip()]


def parse(words: list[str]) -> None:
    """Parse a command line of `qmtl` down to its last command, and run nothing.

    Raises:
        click.UsageError: it does not parse.
    """
    command: click.Command = cli
    name, rest, parent = "qmtl", words, None
    while True:
        with command.make_context(name, rest, parent=parent) as context:
            if not isinstance(command, click.Group):
                return
            left = [*context._protected_args, *context.args]
            said, found, rest = command.resolve_command(context, left)
            assert found is not None
            command, name, parent = found, str(said), context


def test_every_alert_names_a_runbook_and_every_runbook_is_named() -> None:
    named = {rule["annotations"]["runbook"] for rule in alerts()}
    assert named == {str(file.relative_to(ROOT)) for file in RUNBOOKS}


@pytest.mark.parametrize("file", RUNBOOKS, ids=lambda file: str(file.stem))
def test_every_command_of_a_runbook_parses(file: Path) -> None:
    found = commands(file)
    assert found
    for line in found:
        program, *words = shlex.split(line)
        assert program == "qmtl", line
        parse(words)


def test_a_command_that_does_not_exist_does_not_parse() -> None:
    for line in ("service dagmanager no-such", "service dagmanager gc --no-such", "lag --group"):
        with pytest.raises(click.UsageError):
            parse(line.split())


@pytest.mark.parametrize("file", RUNBOOKS, ids=lambda file: str(file.stem))
def test_a_runbook_says_what_it_means_and_on_which_panel_it_shows(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "**Means:**" in text
    shown = re.search(r"\*\*Dashboard:\*\* `qmtl-workers`, panel \"([^\"]+)\"", text)
    assert shown is not None
    assert shown[1] in {one["title"] for one in panels()}


def test_the_document_lists_every_alert_with_its_runbook() -> None:
    text = (ROOT / "docs/dagmanager.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `(Dag[A-Za-z]+)` \| [^|]+ \| \[[a-z-]+\]\((runbooks/[a-z-]+\.md)\) \|$", text, re.MULTILINE
    )
    assert listed == [
        (rule["alert"], rule["annotations"]["runbook"].removeprefix("docs/")) for rule in alerts()
    ]


def thresholds() -> Iterator[tuple[str, str, str | None, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"], rule.get("for"), rule["labels"]["severity"]


@pytest.mark.parametrize(
    ("name", "expression", "lasting", "severity"),
    [
        ("DagDiffsSlow", "diff_duration_ms_p95 > 200", "5m", "warning"),
        ("DagQueueNotCreated", "sum(increase(queue_create_error_total[15m])) > 0", None, "critical"),
        ("DagSentinelGap", "max(sentinel_gap_count) >= 1", None, "warning"),
        ("DagNodeCacheLarge", "sum by (instance) (nodecache_resident_bytes) > 5e9", "5m", "warning"),
        ("DagCrossContextHit", "max(cross_context_cache_hits_uncleared) > 0", None, "critical"),
        ("DagManyNodes", "max(compute_nodes_total) > 50000", "10m", "warning"),
        ("DagManyQueues", "max(queues_total) > 100000", "10m", "warning"),
    ],
)
def test_thresholds_are_those_that_were_promised(
    name: str, expression: str, lasting: str | None, severity: str
) -> None:
    assert (name, expression, lasting, severity) in list(thresholds())
