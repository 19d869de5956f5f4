"""The dashboard, the scrape configuration and the alerts name what a worker shows, and the documents say what that is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.processor import Input
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.interfaces.execution.policy import Phase
from qmtl.interfaces.execution.state_dir import RunStatus
from qmtl.interfaces.metrics.runs import showing
from tests.engine.models import minute
from tests.engine.toys import B_STATE, XX, Feed, Item, X, make_topics, spread
from tests.interfaces.metrics.scraping import LOOPBACK, Scrape, shown
from tests.interfaces.metrics.whole import running, served

ROOT = Path(__file__).resolve().parents[2]
BY_PROMETHEUS = frozenset({"instance", "job"})
RULES = ("alerts.yml", "dagmanager.yml")
SUFFIXES = ("_bucket", "_count", "_sum")
NAMES = (
    r"(?:qmtl|process|slo|diff_duration|queue_create|queue_remove|queue_archive|sentinel_gap|orphan_queue|compute_nodes|nodecache_resident|no_active|cross_context)_[a-z0-9_]+"
    r"|queues_total"
)
NAME = re.compile(rf"\b(?:{NAMES})\b")
SELECTOR = re.compile(rf"\b({NAMES})\{{([^}}]*)\}}")
GROUPING = re.compile(r"\b(?:by|on) \(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """A scrape of a worker that has met everything: data, late and old buckets, and records that it could not use."""
    directory = tmp_path_factory.mktemp("seen")
    now = [minute(1)]
    log = EmbeddedLog(directory / "log", clock_ms=lambda: now[0])
    make_topics(log)
    x, xx, old = Feed(log, X), Feed(log, XX), Feed(log, B_STATE)
    joining = spread(
        Input(X.name, bucketed=True),
        Input(XX.name, bucketed=True, broadcast=True, joins=True),
        Input(B_STATE.name, bucketed=True),
    )
    for number in (3, 4):
        old.bucket(minute(number))
    now[0] += 2 * DAY_MS

    class Mirrored(joining):  # type: ignore[misc,valid-type] # a class that a function has made
        def on_bucket(self, step: Any, bucket: Any) -> None:
            super().on_bucket(step, bucket)
            from tests.engine.toys import A_MIRROR, Total

            step.table(A_MIRROR.name).put(Total("n", 1))

    with pytest.MonkeyPatch.context() as patched, shown(log, directory / "state", Mirrored) as runs:
        x.bucket(minute(3), {0: [Item("x", 3, 1), b"\x00rubbish"]})
        runs.settle()
        xx.bucket(minute(1), {1: [Item("late", 9, 1)]})
        runs.settle()
        x.bucket(minute(4))
        xx.bucket(minute(4))
        runs.settle()
        patched.setattr(watermark, "BUFFERED_BUCKETS", 2)
        for number in (5, 6, 7):
            x.bucket(minute(number))  # far ahead of the other
        runs.settle()
        found = runs.scrape()
    log.close()
    return found


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """A scrape of a process that runs everything, the DAG Manager too."""
    directory = tmp_path_factory.mktemp("graph")
    with running(directory) as (client, metrics), served(client, metrics, directory) as url:
        return Scrape(url)


@pytest.fixture(scope="module")
def kept_going() -> Scrape:
    """A scrape of an execution manager."""
    run = RunStatus("up", "s.py", "w1", "kafka://h:1", Phase.RUNNING, 7, 1_500, None, 2, -9, 0)
    with showing(lambda: (run,), LOOPBACK, 0) as url:
        return Scrape(url)


@pytest.fixture(scope="module")
def labels(seen: Scrape, graph: Scrape, kept_going: Scrape) -> dict[str, set[str]]:
    """Per name of a sample, or of what the rules record, the labels that it has."""
    out: dict[str, set[str]] = {rule["record"]: set() for rule in recorded()}
    families = (one.families.values() for one in (seen, graph, kept_going))
    for family in chain.from_iterable(families):
        for sample in family.samples:
            out.setdefault(sample.name, set()).update(sample.labels)
    return out


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deploy/grafana/qmtl-workers.json").read_text())
    return loaded


def panels() -> Iterator[dict[str, Any]]:
    return (one for one in dashboard()["panels"] if one["type"] != "row")


def rules(*files: str) -> list[dict[str, Any]]:
    """The alerts of these files, of all of them where none is named."""
    return [rule for rule in _rules(*(files or RULES)) if "alert" in rule]


def recorded() -> list[dict[str, Any]]:
    return [rule for rule in _rules(*RULES) if "record" in rule]


def _rules(*files: str) -> Iterator[dict[str, Any]]:
    for name in files:
        loaded = yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())
        yield from (rule for group in loaded["groups"] for rule in group["rules"])


def expressions() -> list[tuple[str, str, str]]:
    """Where, the expression, and the text that fills in its labels."""
    of_panels = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]
    return [
        *of_panels,
        *((rule["alert"], rule["expr"], rule["annotations"]["summary"]) for rule in rules()),
        *((rule["record"], rule["expr"], "") for rule in recorded()),
    ]


def test_the_worker_of_the_fixture_has_met_everything(seen: Scrape) -> None:
    assert [name for name, family in seen.families.items() if not family.samples] == []


def test_every_metric_that_is_named_exists_with_the_labels_that_are_used(labels: dict[str, set[str]]) -> None:
    assert len(expressions()) > 30
    for where, expression, text in expressions():
        names = set(NAME.findall(expression))
        assert names, where
        assert names <= labels.keys(), f"{where} names {sorted(names - labels.keys())}"
        has = set().union(*(labels[name] for name in names)) | BY_PROMETHEUS
        for name, inside in SELECTOR.findall(expression):
            used = {part.strip() for part in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", inside)}
            assert used <= labels[name] | BY_PROMETHEUS, f"{where} selects {name} by {used}"
        for inside in GROUPING.findall(expression):
            used = {part.strip() for part in inside.split(",")}
            assert used <= has, f"{where} groups by {used - has}"
        assert set(LEGEND.findall(text)) <= has, f"{where} shows {set(LEGEND.findall(text)) - has}"


def test_what_is_alarmed_is_on_the_dashboard_and_what_can_go_wrong_is_alarmed() -> None:
    on_panels = {
        name for panel in panels() for target in panel["targets"] for name in NAME.findall(target["expr"])
    }
    on_alerts = {name for rule in rules() for name in NAME.findall(rule["expr"])}
    assert on_alerts <= on_panels
    assert {
        "qmtl_input_lag_offsets",
        "qmtl_input_stable_offset",
        "qmtl_transactions_total",
        "qmtl_restore_running_seconds",
        "qmtl_dead_letters_total",
    } <= on_alerts


def test_panels_have_names_of_their_own_and_do_not_cover_each_other() -> None:
    found = dashboard()["panels"]
    assert len({one["id"] for one in found}) == len(found)
    cells: set[tuple[int, int]] = set()
    for one in found:
        at = one["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not mine & cells, one["title"]
        cells |= mine


def test_every_worker_of_the_compose_file_is_scraped_where_it_serves() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    targets = [target for one in job["static_configs"] for target in one["targets"]]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    served = [
        f"{name}:{service['command'][service['command'].index('--metrics-port') + 1]}"
        for name, service in compose.items()
        if name != "kafka"
    ]
    assert sorted(targets) == sorted(served)
    assert config["rule_files"] == [*RULES]
    assert {rule["labels"]["severity"] for rule in rules()} == {"warning", "critical"}


def test_workers_are_looked_at_whatever_their_job_is_called_and_each_log_by_itself() -> None:
    for where, expression, _ in expressions():
        assert not re.search(r"job\s*!?=(?!~)", expression), where
    for rule in (*rules(), *recorded()):
        for inside in GROUPING.findall(rule["expr"]):
            assert "job" in {part.strip() for part in inside.split(",")}, rule


# ---- documents ------------------------------------------------------------------------------------------------------


def operations() -> str:
    return (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_the_document_lists_every_metric_and_no_other_with_its_labels(
    seen: Scrape, labels: dict[str, set[str]]
) -> None:
    listed = dict(re.findall(r"^\| `(qmtl_[a-z_]+)` \| ([^|]*)\|", operations(), re.MULTILINE))

    def full(family: Any) -> str:
        return f"{family.name}_total" if family.type == "counter" else str(family.name)

    ours = {full(family): family for name, family in seen.families.items() if name.startswith("qmtl_")}
    assert listed.keys() == ours.keys()
    for name, family in ours.items():
        if name == "qmtl_build_info":
            continue
        has = set().union(*(sample.labels for sample in family.samples)) - {"processor", "le"}
        assert {part.strip() for part in listed[name].split(",") if part.strip()} == has, name


def test_the_document_says_of_every_alert_what_to_do() -> None:
    listed = re.findall(r"^\| `(Qmtl[A-Za-z]+)` \| [^|]+ \| [^|]+ \|$", operations(), re.MULTILINE)
    assert listed == [rule["alert"] for rule in rules("alerts.yml")]


def test_the_documents_of_the_graph_and_of_live_orders_list_their_metrics_with_their_labels(
    seen: Scrape, graph: Scrape
) -> None:
    files = ("docs/dagmanager.md", "docs/live.md")
    text = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]*)\| ", text, re.MULTILINE))
    ours = {name: one for name, one in graph.families.items() if name not in seen.families}
    full = {f"{name}_total" if one.type == "counter" else name: one for name, one in ours.items()}
    assert listed.keys() == full.keys()
    for name, one in full.items():
        has = set().union(*(sample.labels for sample in one.samples)) - {"le"}
        assert {part.strip() for part in listed[name].split(",") if part.strip()} == has, name
