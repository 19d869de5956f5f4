"""What every test may ask for: one real broker per session, a name space of its own on it, and no silence about tests left out.

A test that asks for `kafka_bootstrap` or `kafka_namespace` is marked `broker` by itself. One that gets the fixture by
`request.getfixturevalue` carries the mark on its parameter: `pytest.param("kafka", marks=pytest.mark.broker)`.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from qmtl.runtime.sdk import functions
from qmtl.testing.broker import any_broker

# A run that decides over a change looks for the same examples each time; runs by hand look for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "search")

BROKER_FIXTURES = frozenset({"kafka_bootstrap", "kafka_namespace"})
HERE = Path(__file__).parent
FIRST = (
    "testing/test_broker.py",
    "testing/test_cluster.py",
    "testing/test_proxy.py",
    "simulate/test_runs.py",
    "simulate/test_sabotage.py",
    "simulate/test_compaction.py",
)
"""Files that begin before the others, as their tests take long and would come last by their names: a worker gets a whole file, and where
the last one is long the other workers have nothing to do meanwhile."""
LEFT_OUT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """`host:port` of a real Kafka: the one named in QMTL_TEST_BOOTSTRAP, else one that lives as long as the session."""
    with any_broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def kafka_namespace(request: pytest.FixtureRequest) -> str:
    """A prefix for topics, groups and transactional ids that no other test, and no other run on the same broker, has."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    return f"{name}-{uuid.uuid4().hex[:12]}."


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if BROKER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
    first = {HERE / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    config.stash[LEFT_OUT] = []
    if os.environ.get("QMTL_TEST_BROKER") != "none":
        return
    left_out = [item for item in items if item.get_closest_marker("broker")]
    config.stash[LEFT_OUT] = [item.nodeid for item in left_out]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("broker")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(LEFT_OUT, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker collects everything, so that one of them says for all what was left out."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(LEFT_OUT, [])
    if not left_out:
        return
    terminalreporter.section("NOT RUN", sep="!", red=True, bold=True)
    for nodeid in left_out:
        terminalreporter.line(f"NOT RUN {nodeid}")
    terminalreporter.line(
        f"{len(left_out)} tests were not run because QMTL_TEST_BROKER=none: nothing was shown about a real Kafka.",
        red=True,
    )


@pytest.fixture(autouse=True)
def _functions_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone with it: another one may ask for a function that nobody has."""
    monkeypatch.setattr(functions, "_REGISTERED", dict(functions._REGISTERED))
