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
    shown = re.search(r"\*\*Dashboard:\*\* `qmtl-workers`, panel \"([^\"]+)\" \(`([^`]+)`\)", text)
    assert shown is not None
    (panel,) = [one for one in panels() if one["title"] == shown[1]]
    assert shown[2] == f"/d/{dashboard()['uid']}?viewPanel={panel['id']}"
    mine = [one for one in alerts() if one["annotations"]["runbook"] == str(file.relative_to(ROOT))]
    assert {one["annotations"]["dashboard"] for one in mine} == {shown[2]}


def test_the_document_lists_every_alert_with_its_runbook() -> None:
    text = (ROOT / "docs/dagmanager.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `(Dag[A-Za-z]+)` \| [^|]+ \| \[[a-z-]+\]\((runbooks/[a-z-]+\.md)\) \|$", text, re.MULTILINE
    )
    assert listed == [
        (rule["alert"], rule["annotations"]["runbook"].removeprefix("docs/")) for rule in alerts()
    ]


EXPECTED = [
    ("DagDiffsSlow", "diff_duration_ms_p95 > 200", "5m", "warning"),
    ("DagQueueNotCreated", "increase(log:queue_create_error_total:max[15m]) > 0", None, "critical"),
    ("DagSentinelGap", "log:sentinel_gap_count:max >= 1", None, "warning"),
    ("DagHandoverStalls", "log:qmtl_dag_handovers_open:max > 0", "10m", "warning"),
    ("DagNodeCacheLarge", "sum by (instance) (nodecache_resident_bytes) > 5e9", "5m", "warning"),
    (
        "DagOrphansRise",
        (
            "deriv(log:orphan_queue_total:max[3h]) > 0"
            " and log:orphan_queue_total:max > log:orphan_queue_total:max offset 3h"
        ),
        None,
        "warning",
    ),
    ("DagManyNodes", "log:compute_nodes_total:max > 50000", "10m", "warning"),
    ("DagManyQueues", "log:queues_total:max > 100000", "10m", "warning"),
    ("DagNodesNearLimit", "log:compute_nodes_total:max > 40000", "10m", "warning"),
    ("DagQueuesNearLimit", "log:queues_total:max > 80000", "10m", "warning"),
    ("DagNoWriter", "log:no_active_writer:max == 1", "1m", "critical"),
    (
        "DagBrokersLost",
        (
            'sum by (job, instance) (increase(qmtl_log_client_errors_total{error=~"_TRANSPORT|_ALL_BROKERS_DOWN"}[5m]))'
            " * on (job, instance) group_right () group by (job, instance, processor)"
            ' (qmtl_worker_tasks{processor=~"dagmanager|topicadmin"}) > 2'
        ),
        None,
        "warning",
    ),
    (
        "DagClusterUnreachable",
        'sum by (instance) (increase(qmtl_topic_request_failures_total{cause="unreachable"}[5m])) > 2',
        None,
        "warning",
    ),
    ("DagTopicsUnderReplicated", "log:qmtl_topics_under_replicated:max > 0", "15m", "warning"),
    ("DagDiffStalled", "increase(log:qmtl_dag_diff_ack_timeouts_total:max[10m]) > 0", None, "warning"),
    (
        "DagCrossContextHit",
        (
            "log:cross_context_cache_hits_uncleared:max > 0"
            ' or sum by (job) (increase(log:cross_context_cache_hit_total:max{processor="nodes"}[15m])) > 0'
        ),
        None,
        "critical",
    ),
    (
        "DagBrokerLoadUnknown",
        "sum by (instance) (increase(qmtl_broker_load_failures_total[1h])) > 0",
        None,
        "warning",
    ),
    ("DagSloDiffs", "slo_diff_duration_ms_p95 >= 100", None, "warning"),
    ("DagSloQueues", "slo_queue_create_success < 0.999", None, "warning"),
    ("DagSloGap", "slo_sentinel_gap > 0", None, "warning"),
]
RECORDED = {
    "diff_duration_ms_p95": "histogram_quantile(0.95, sum by (le) (rate(diff_duration_ms_bucket[5m])))",
    "slo_diff_duration_ms_p95": "histogram_quantile(0.95, sum by (le) (increase(diff_duration_ms_bucket[28d])))",
    "slo_queue_create_success": "increase(log:queue_create_success_total:max[30d]) / "
    "(increase(log:queue_create_success_total:max[30d]) + increase(log:queue_create_error_total:max[30d]))",
    "slo_sentinel_gap": "max_over_time(log:sentinel_gap_count:max[90d])",
}
COUNTED = (
    "sentinel_gap",
    "orphan_queue",
    "compute_nodes_total",
    "queues_total",
    "queue_create",
    "qmtl_dag_diff_ack_timeouts",
    "cross_context_cache_hits_uncleared",
    "qmtl_topics_under_replicated",
    "qmtl_dag_handovers",
)
LOG_LABELS = {"cross_context_cache_hit_total": "job, processor, task", "no_active_writer": "job, processor"}
OF_LOG = frozenset(
    one.samples[0].name for one in _counts(Survey(oldest_ms=0)) if one.name.startswith(COUNTED)
) | set(LOG_LABELS)
"""What every process that tells it tells of the whole log, and something is made of."""


def test_thresholds_windows_and_bounds_are_those_that_were_promised() -> None:
    found = [
        (one["alert"], " ".join(one["expr"].split()), one.get("for"), one["labels"]["severity"])
        for one in alerts()
    ]
    assert found == EXPECTED
    recorded = {one["record"]: " ".join(one["expr"].split()) for one in rules() if "record" in one}
    assert {name: expr for name, expr in recorded.items() if not name.startswith("log:")} == RECORDED


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
