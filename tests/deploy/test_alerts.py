"""Each alert of the graph has a runbook, each runbook an alert, and what a runbook tells to type is a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from qmtl.foundation.wire.topics import LAG_ALERT_THRESHOLD
from qmtl.interfaces.cli.main import cli
from qmtl.interfaces.dag_survey import Survey
from qmtl.interfaces.metrics.graph import _counts
from tests.deploy.test_dashboards import dashboard, panels

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
COMMANDS = re.compile(r"^ *```console\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def rules(file: str = "dagmanager.yml") -> list[dict[str, Any]]:
    loaded = yaml.safe_load((ROOT / "deploy/prometheus" / file).read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def of_runbooks() -> list[dict[str, Any]]:
    """The alerts that name a runbook, whatever file they are in."""
    return [*alerts(), *(rule for rule in rules("alerts.yml") if "runbook" in rule.get("annotations", {}))]


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
    named = {rule["annotations"]["runbook"] for rule in of_runbooks()}
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
    shown = re.search(r"\*\*Dashboard:\*\* `qmtl-workers`, panel \"([^\"]+)\" \(`([^`]+)`\)", text)
    assert shown is not None
    (panel,) = [one for one in panels() if one["title"] == shown[1]]
    assert shown[2] == f"/d/{dashboard()['uid']}?viewPanel={panel['id']}"
    mine = [one for one in of_runbooks() if one["annotations"]["runbook"] == str(file.relative_to(ROOT))]
    assert {one["annotations"]["dashboard"] for one in mine} == {shown[2]}


def test_the_document_lists_every_alert_with_its_runbook() -> None:
    text = (ROOT / "docs/dagmanager.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `(Dag[A-Za-z]+)` \| [^|]+ \| \[[a-z-]+\]\((runbooks/[a-z-]+\.md)\) \|$", text, re.MULTILINE
    )
    assert listed == [
        (rule["alert"], rule["annotations"]["runbook"].removeprefix("docs/")) for rule in alerts()
    ]


CRITICAL = {
    "QmtlClockStands",
    "QmtlLiveOrderUnknown",
    "QmtlVenueMissing",
    "QmtlWorkerDown",
    "QmtlWorkerHangs",
    "QmtlNobodyOwnsATask",
    "QmtlLastStableOffsetStuck",
    "QmtlTaskRefused",
    "DagQueueNotCreated",
    "DagNoWriter",
    "DagCrossContextHit",
}
"""For these somebody is woken."""
COUNTED = (
    "sentinel_gap",
    "orphan_queue",
    "compute_nodes_total",
    "queues_total",
    "queue_create",
    "queue_remove",
    "queue_archive_error",
    "qmtl_dag_diff_ack_timeouts",
    "cross_context_cache_hits_uncleared",
    "qmtl_topics_under_replicated",
    "qmtl_dag_handovers",
)
LOG_LABELS = {
    "cross_context_cache_hit_total": "job, processor, task",
    "no_active_writer": "job, processor",
    "queue_remove_error_total": "job, code",
}
OF_LOG = frozenset(
    one.samples[0].name for one in _counts(Survey(oldest_ms=0)) if one.name.startswith(COUNTED)
) | set(LOG_LABELS)
"""What every process that tells it tells of the whole log, and something is made of."""


def test_what_somebody_is_woken_for_is_what_was_promised() -> None:
    """When each fires is what `test_firing.py` says."""
    every = [one for file in ("alerts.yml", "dagmanager.yml") for one in rules(file) if "alert" in one]
    woken = {one["alert"] for one in every if one["labels"] == {"severity": "critical"}}
    assert woken == CRITICAL
    rest = [one for one in every if one["alert"] not in CRITICAL]
    assert all(one["labels"] == {"severity": "warning"} for one in rest)


def test_what_processes_tell_of_the_log_is_looked_at_as_one_whoever_tells_it() -> None:
    """Two tell it while a task moves, and nobody's own series goes on over it."""
    recorded = {one["record"]: one["expr"] for one in rules() if "record" in one}
    of_log = {name: expr for name, expr in recorded.items() if name.startswith("log:")}
    assert of_log == {
        f"log:{name}:max": f"max by ({LOG_LABELS.get(name, 'job')}) ({name})" for name in OF_LOG
    }
    for rule in rules():
        used = set(re.findall(r"[a-z_:]+", rule["expr"]))
        if rule.get("record") not in of_log:
            assert not used & OF_LOG, rule
        assert {one for one in used if one.startswith("log:")} <= of_log.keys(), rule


# ---- who is told ------------------------------------------------------------------------------------------------------

NOTIFIED: dict[str, Any] = yaml.safe_load(
    (ROOT / "deploy/prometheus/alertmanager.yml").read_text(encoding="utf-8")
)
MATCHER = re.compile(r'([a-z]+)="([A-Za-z]+)"')


def routed(labels: Mapping[str, str]) -> str | None:
    """The receiver of the first route whose matchers all fit, as Alertmanager takes it; None if no route fits."""
    for route in NOTIFIED["route"]["routes"]:
        matchers = [MATCHER.fullmatch(one) for one in route["matchers"]]
        assert all(matchers), route
        if all(one is not None and labels.get(one[1]) == one[2] for one in matchers):
            return str(route["receiver"])
    return None


def test_of_every_alert_somebody_is_told_and_of_the_failures_those_who_were_promised() -> None:
    every = [one for file in ("alerts.yml", "dagmanager.yml") for one in rules(file) if "alert" in one]
    told = {one["alert"]: routed({"alertname": one["alert"], **one["labels"]}) for one in every}
    expected = {
        one["alert"]: "pagerduty" if one["labels"]["severity"] == "critical" else "slack-ops" for one in every
    }
    assert told == expected | {"DagDiffStalled": "opsgenie"}
    assert (told["DagNoWriter"], told["DagBrokersLost"]) == ("pagerduty", "slack-ops")
    receivers = {
        one["name"]: {key: value for key, value in one.items() if key != "name"}
        for one in NOTIFIED["receivers"]
    }
    assert set(told.values()) | {NOTIFIED["route"]["receiver"]} == set(receivers)
    assert {name: list(one) for name, one in receivers.items()} == {
        "pagerduty": ["pagerduty_configs"],
        "slack-ops": ["slack_configs"],
        "opsgenie": ["opsgenie_configs"],
    }
    assert receivers["slack-ops"]["slack_configs"][0]["channel"] == "#ops"


def test_no_secret_stands_in_the_sample_of_receivers() -> None:
    text = (ROOT / "deploy/prometheus/alertmanager.yml").read_text(encoding="utf-8")
    said = re.findall(r"([a-z_]*(?:key|url|token|password)[a-z_]*): (.*)", text)
    assert {name for name, _ in said} == {"routing_key_file", "api_url_file", "api_key_file"}
    assert all(value.startswith("/run/secrets/") for _, value in said)


def test_the_bound_of_a_lag_is_the_one_by_which_queues_are_judged() -> None:
    (rule,) = [one for one in rules("alerts.yml") if one.get("alert") == "QmtlLag"]
    assert rule["expr"] == f"qmtl_input_lag_offsets > {LAG_ALERT_THRESHOLD}"
