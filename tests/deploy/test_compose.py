"""docker-compose.yml: the official schema accepts it, and it runs exactly the workers that are deployed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from qmtl.bootstrap import VENUE, VENUE_KEY, VENUE_SECRET
from qmtl.engine.archive.address import parse

ROOT = Path(__file__).resolve().parents[2]
BROKER = "kafka"
METRICS = "9464"
WORKERS = frozenset(
    {"dagmanager", "topicadmin", "clock", "worldservice", "nodes", "trading", "oms", "egress"}
)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def workers(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if name != BROKER}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The Compose Specification's own JSON Schema (repository compose-spec/compose-spec, file schema/compose-spec.json,
    Apache-2.0), as the package check-jsonschema of the hashed lock carries it."""
    found: dict[str, Any] = get_builtin_schema("vendor.compose-spec")
    assert found["title"] == "Compose Specification"
    return found


def test_the_official_schema_accepts_the_file(compose: dict[str, Any], schema: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(schema).validate(compose)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"services": {"kafka": {"imagee": "x"}}}, id="a key that doesn't exist"),
        pytest.param(
            {"services": {"kafka": {"depends_on": {"x": {"condition": "service_up"}}}}}, id="a condition"
        ),
        pytest.param({"servicez": {}}, id="a section that doesn't exist"),
    ],
)
def test_the_official_schema_refuses_what_compose_would(
    change: dict[str, Any], schema: dict[str, Any]
) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(change)


def test_every_worker_has_a_service_and_every_service_is_a_worker(workers: dict[str, dict[str, Any]]) -> None:
    assert workers.keys() == WORKERS


def test_every_deployed_file_has_a_service_and_every_service_a_file(
    workers: dict[str, dict[str, Any]],
) -> None:
    deployed = {file.stem for file in (ROOT / "streams").glob("*.py") if not file.stem.startswith("_")}
    assert deployed == workers.keys()


def test_each_worker_runs_itself_on_the_broker_and_waits_until_that_is_healthy(
    workers: dict[str, dict[str, Any]],
) -> None:
    for name, service in workers.items():
        command = ["qmtl", "worker", "run", name, "--log", f"kafka://{BROKER}:9092"]
        assert service["command"] == [*command, "--metrics-host", "0.0.0.0", "--metrics-port", METRICS]
        assert service["depends_on"] == {BROKER: {"condition": "service_healthy"}}


def test_each_worker_serves_its_metrics_inside_the_network_alone_and_is_asked_for_its_health(
    workers: dict[str, dict[str, Any]],
) -> None:
    for service in workers.values():
        assert service["expose"] == [METRICS]
        assert "ports" not in service
        assert f"http://127.0.0.1:{METRICS}/healthz" in service["healthcheck"]["test"][-1]


def test_each_worker_has_a_volume_of_its_own(
    compose: dict[str, Any], workers: dict[str, dict[str, Any]]
) -> None:
    named = [mounted.split(":") for service in workers.values() for mounted in service["volumes"]]
    assert all(service["volumes"][0].endswith(":/var/lib/qmtl") for service in workers.values())
    assert len({volume for volume, _ in named}) == len(named)
    assert {*(volume for volume, _ in named), "kafka-data"} == compose["volumes"].keys()


def test_topics_are_archived_on_a_volume_that_the_worker_may_write_and_by_who_removes_them_alone(
    workers: dict[str, dict[str, Any]],
) -> None:
    said = {name: one["environment"] for name, one in workers.items() if "environment" in one}
    assert said.keys() == {"topicadmin", "egress"}
    assert said["topicadmin"] == {"QMTL_ARCHIVE": "file:///var/lib/qmtl-archive"}
    store = parse(said["topicadmin"]["QMTL_ARCHIVE"])
    (mounted,) = [one for name in workers for one in workers[name]["volumes"] if "archive" in one]
    assert mounted in workers["topicadmin"]["volumes"]
    where = mounted.partition(":")[2]
    assert store.url() == f"file://{where}"
    # A new volume takes the owner of what it covers, and a directory of a store is never made.
    assert re.search(rf"install --directory --owner qmtl {where}$", read("deploy/Dockerfile"), re.MULTILINE)
    packed = re.findall(r"^([a-z]+)==", read("requirements.lock"), re.MULTILINE)
    assert "obstore" in packed


def test_the_venue_and_its_keys_come_from_the_environment_of_who_starts_it_and_to_the_egress_alone(
    workers: dict[str, dict[str, Any]],
) -> None:
    names = (VENUE, VENUE_KEY, VENUE_SECRET)
    assert workers["egress"]["environment"] == {name: f"${{{name}:-}}" for name in names}
    assert read("docker-compose.yml").count("QMTL_VENUE") == 2 * len(names)


def test_the_broker_is_one_kraft_node_of_the_tested_release(compose: dict[str, Any]) -> None:
    broker = compose["services"][BROKER]
    pinned = re.search(
        r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)</version>", read("deploy/broker/pom.xml")
    )
    assert pinned is not None
    assert broker["image"] == f"apache/kafka:{pinned[1]}"
    assert broker["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert broker["healthcheck"]["test"][0] == "CMD"


def test_the_broker_listens_to_the_host_on_the_loopback_address_alone(compose: dict[str, Any]) -> None:
    assert all(published.startswith("127.0.0.1:") for published in compose["services"][BROKER]["ports"])


def test_there_is_no_zookeeper() -> None:
    assert "zookeeper" not in read("docker-compose.yml").lower()


def test_the_image_is_this_version_on_the_oldest_python_with_hashed_packages(
    workers: dict[str, dict[str, Any]],
) -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert {service["image"] for service in workers.values()} == {f"qmtl:{project['version']}"}
    dockerfile = read("deploy/Dockerfile")
    oldest = project["requires-python"].removeprefix(">=")
    assert f"FROM python:{oldest}-slim" in dockerfile
    assert "pip install --require-hashes -r requirements.lock" in dockerfile


def test_what_the_image_copies_is_let_through() -> None:
    let_through = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copied = {
        word
        for line in read("deploy/Dockerfile").splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    }
    assert copied == let_through


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
