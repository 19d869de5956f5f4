"""The topics are made as often as one likes, written down without a log, and served by a file or by nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

import qmtl.examples
from qmtl.bootstrap import broker_load_of, open_log, outside_of, prepare
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.registry import MESSAGES, codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.cli.dagmanager.server import server as server_verb
from qmtl.interfaces.cli.worker import lacks_archive
from qmtl.interfaces.server_config import MAX_BYTES, ServerConfig, read_config
from qmtl.services.dagmanager.indexes import INDEXES
from tests.contract.driving import until
from tests.interfaces.cli.running import assert_one_screen, call, start
from tests.interfaces.metrics.scraping import ask
from tests.replay.logs import commit, row
from tests.services.graphs import crossing, strategy, submission

SAMPLE = Path(str(qmtl.examples.__file__)).parent / "qmtl.yml"


# ---- topics and schemas ------------------------------------------------------------------------------------------------


def test_topics_are_made_once_however_often_it_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = f"embedded:{tmp_path / 'log'}"
    count = len(CATALOGUE)
    for made in (count, 0, 0):
        ran = call(capsys, "service", "dagmanager", "init", "--log", address)
        assert (ran.code, ran.out) == (0, f"{count} topics are there, {made} of them made now\n")
    other = f"embedded:{tmp_path / 'other'}"
    for made_now in ([spec.name for spec in CATALOGUE], []):
        ran = call(capsys, "service", "dagmanager", "init", "--json", "--log", other)
        assert (ran.code, json.loads(ran.out)) == (
            0,
            {"topics": count, "made": made_now, "log": other},
        )
    log = open_log(address, read_only=True)
    try:
        for spec in CATALOGUE:
            found = log.describe(spec.name)
            assert found is not None
            assert found.partitions == spec.partitions
            assert spec.config().items() <= found.config.items()
    finally:
        log.close()


@pytest.mark.parametrize(
    ("log", "more", "told"),
    [
        ("embedded:log", ("--world", "w", "--domain", "live"), "--log was 'embedded:log'"),
        ("kafka://h:1/w.live", ("--world", "w", "--domain", "live"), "--log was 'kafka://h:1/w.live'"),
        ("kafka://h:1", ("--world", "w"), "--domain ''"),
        ("kafka://h:1", ("--domain", "live"), "--world was ''"),
        ("kafka://h:1", ("--world", "w", "--domain", "production"), "--domain 'production'"),
    ],
)
def test_a_log_of_a_world_and_a_domain_is_made_on_a_cluster_alone(
    capsys: pytest.CaptureFixture[str], log: str, more: tuple[str, ...], told: str
) -> None:
    ran = call(capsys, "service", "dagmanager", "init", "--log", log, *more)
    assert ran.code == 2
    assert told in ran.err


def test_the_schema_is_written_without_a_log_and_is_all_there_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = set()
    for _ in range(2):
        ran = call(capsys, "service", "dagmanager", "export-schema", "--out", "schema.json")
        assert ran.code == 0, ran
        texts.add(Path("schema.json").read_text(encoding="utf-8"))
    (text,) = texts
    found = json.loads(text)
    assert [one["name"] for one in found["topics"]] == [spec.name for spec in CATALOGUE]
    for one, spec in zip(found["topics"], CATALOGUE, strict=True):
        assert (one["config"], tuple(one["key"]), one["partitions"]) == (
            spec.config(),
            spec.key,
            spec.partitions,
        )
        assert set(one["messages"]) <= found["schemas"].keys()
    assert [(one["name"], one["table"], tuple(one["on"]), one["unique"]) for one in found["indexes"]] == [
        (one.name, one.table, one.on, one.unique) for one in INDEXES
    ]
    assert found["schemas"] == {message.__name__: avro_schema(message) for message in MESSAGES}
    assert {name: one["partitions"] for name, one in found["node_topics"].items()} == {
        "raw": 3,
        "indicator": 1,
        "trade_exec": 1,
    }
    assert [one.name for one in tmp_path.iterdir()] == ["schema.json"]


def test_a_file_that_can_not_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ran = call(capsys, "service", "dagmanager", "export-schema", "--out", str(tmp_path / "no" / "file"))
    assert_one_screen(ran, "QMTL-801", 2, says=["--out", "No such file"])


# ---- the configuration -------------------------------------------------------------------------------------------------


def config(tmp_path: Path, text: str | bytes) -> ServerConfig:
    file = tmp_path / "qmtl.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(file)


@pytest.mark.parametrize("text", ["", "{}", "dagmanager:\n", "gateway:\n  port: 1\ndagmanager: {}\n"])
def test_where_nothing_is_said_everything_is_as_without_a_file(tmp_path: Path, text: str) -> None:
    assert config(tmp_path, text) == ServerConfig()


def test_every_key_is_taken(tmp_path: Path) -> None:
    text = (
        "dagmanager:\n  kafka_dsn: a:1,b:2\n  namespace: n\n  state_dir: s\n  slot: '3'\n"
        "  metrics_host: 0.0.0.0\n  metrics_port: 0\n"
        "  broker_load_url: http://p:1\n  broker_capacity_per_s: 5\n  archive: s3://bucket\n"
        "  keep_days: 60\n"
    )
    found = config(tmp_path, text)
    told = ("a:1,b:2", "n", "s", "3", "0.0.0.0", 0, "http://p:1", 5, "s3://bucket", 60)
    assert found == ServerConfig(*told)
    assert config(tmp_path, dedent(text.partition("\n")[2])) == found, (
        "a file without sections is the section"
    )
    assert found.address(Path("s")) == "kafka://a:1,b:2/n"
    assert ServerConfig().address(Path("s")) == "embedded:s/log"
    assert config(tmp_path, "dagmanager:\n  kafka_dsn: a:1\n").address(Path("s")) == "kafka://a:1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dagmanager:\n  neo4j_url: bolt://x\n", ["'neo4j_url'", "unknown", "kafka_dsn"]),
        ("dagmanager:\n  neo4j_dsn: bolt://x\n", ["neo4j_dsn", "nowhere kept", "kafka_dsn"]),
        ("neo4j_password: secret\n", ["neo4j_password", "nowhere kept", "kafka_dsn"]),
        ("kafka_dns: a:1\n", ["'kafka_dns'", "unknown", "kafka_dsn"]),
        ("kafka_dsn: {a: 1}\n", ["kafka_dsn", "keys with values", "a text is required"]),
        ("kafka_dsn: a:1\ndagmanager:\n  slot: a\n", ["'kafka_dsn'", "beside section 'dagmanager'"]),
        ("kafka_dsn: a:1\ndagmanager:\n", ["'kafka_dsn'", "beside section 'dagmanager'"]),
        ("dagmanger:\n  kafka_dsn: a:1\n", ["'dagmanger'", "none that is named 'dagmanager'"]),
        ("unused: []\n", ["'unused'", "unknown"]),
        ("archive: ftp://x\n", ["archive", "s3://BUCKET"]),
        ("dagmanager:\n  1: x\n", ["'1'", "unknown"]),
        ("dagmanager:\n  slot: 1\n", ["slot", "a whole number", "a text is required"]),
        ("dagmanager:\n  slot: ''\n", ["slot", "an empty text"]),
        ("dagmanager:\n  slot:\n", ["slot", "nothing"]),
        ("dagmanager:\n  metrics_port: '1'\n", ["metrics_port", "a whole number is required"]),
        ("dagmanager:\n  metrics_port: true\n", ["metrics_port", "a truth value"]),
        ("dagmanager:\n  metrics_port: 65536\n", ["metrics_port", "65535"]),
        ("dagmanager:\n  tick_s: 3601\n", ["tick_s", "the number 3601", "0 to 3600"]),
        ("dagmanager:\n  tick_s: -1\n", ["tick_s", "0 to 3600"]),
        ("dagmanager:\n  tick_s:\n", ["tick_s", "nothing"]),
        ("dagmanager:\n  keep_days: 1\n", ["keep_days", "the number 1", "2 to 3650"]),
        ("dagmanager:\n  keep_days: 3651\n", ["keep_days", "2 to 3650"]),
        ("dagmanager:\n  keep_days: '30'\n", ["keep_days", "a whole number is required"]),
        ("dagmanager:\n  broker_capacity_per_s: 1.5\n", ["broker_capacity_per_s", "a whole number is"]),
        ("dagmanager:\n  kafka_dsn: [a, b]\n", ["kafka_dsn", "a list"]),
        ("dagmanager: 7\n", ["section 'dagmanager'", "a whole number"]),
        ("- a\n", ["the file", "a list"]),
        ("dagmanager: {\n", ["no YAML", "line 2"]),
        ("a: !!python/object/apply:os.system [true]\n", ["no YAML"]),
        (b"\xff\xfe\xff", ["no YAML"]),
        ("# " + "x" * MAX_BYTES, [f"more than {MAX_BYTES} bytes"]),
        ("[" * 1_000, ["no YAML"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | bytes, says: list[str]
) -> None:
    with pytest.raises(UsageError):
        config(tmp_path, text)
    ran = call(capsys, "service", "dagmanager", "server", "--config", str(tmp_path / "qmtl.yml"))
    assert_one_screen(ran, "QMTL-801", 2, says=says)


NEO4J_AND_KAFKA = """\
neo4j_dsn: bolt://db:7687
neo4j_user: neo4j
neo4j_password: secret
kafka_dsn: localhost:9092
"""


@pytest.mark.parametrize("section", [False, True])
def test_a_file_for_a_graph_database_is_taken_as_it_is(tmp_path: Path, section: bool) -> None:
    text = "dagmanager:\n" + indent(NEO4J_AND_KAFKA, "  ") if section else NEO4J_AND_KAFKA
    found = config(tmp_path, text)
    assert found == ServerConfig("localhost:9092", unused=("neo4j_dsn", "neo4j_user", "neo4j_password"))
    assert found.address(tmp_path) == "kafka://localhost:9092", "and not a log that goes with the server"


def test_a_server_takes_a_file_and_nothing_else() -> None:
    taken = [option for one in server_verb.params for option in (*one.opts, *one.secondary_opts)]
    assert taken == ["--config"]


def test_the_archive_that_a_file_names_comes_before_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    for name in ("said", "around"):
        (tmp_path / name).mkdir()
    log = open_log(f"embedded:{tmp_path / 'log'}")
    try:
        monkeypatch.delenv("QMTL_ARCHIVE", raising=False)
        assert outside_of(log).archive is None
        monkeypatch.setenv("QMTL_ARCHIVE", "ftp://nowhere")
        assert outside_of(log, archive=(tmp_path / "said").as_uri()).archive is not None
        with pytest.raises(UsageError, match="archive"):
            outside_of(log)
    finally:
        log.close()


def test_only_who_sends_live_orders_opens_the_client_of_a_venue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ccxt")
    monkeypatch.setenv("QMTL_VENUE", "ccxt:binance")
    log = open_log(f"embedded:{tmp_path / 'log'}")
    try:
        assert outside_of(log, names=("trading", "oms")).desk is None
        desk = outside_of(log, names=("trading", "egress")).desk
        assert desk is not None
        assert desk.venue is not None
        assert desk.venue.name == "ccxt:binance"
    finally:
        log.close()


@pytest.mark.parametrize(
    ("names", "archived", "lacks"),
    [
        (("dagmanager", "topicadmin"), False, True),
        (("topicadmin",), False, True),
        (("topicadmin",), True, False),
        (("dagmanager", "nodes"), False, False),
    ],
)
def test_who_removes_topics_and_has_nowhere_to_archive_them_is_told_so(
    tmp_path: Path, names: Sequence[str], archived: bool, lacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    monkeypatch.delenv("QMTL_ARCHIVE", raising=False)
    log = open_log(f"embedded:{tmp_path / 'log'}")
    try:
        outside = outside_of(log, archive=tmp_path.as_uri() if archived else None)
        assert lacks_archive(names, outside) == lacks
    finally:
        log.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("  broker_load_url: http://p:1\n", ["broker_load_url is given alone"]),
        ("  broker_capacity_per_s: 5\n", ["broker_capacity_per_s is given alone"]),
        ("  broker_load_url: p\n  broker_capacity_per_s: 5\n", ["the text 'p'", "http://"]),
        ("  broker_load_url: http://p\n  broker_capacity_per_s: 0\n", ["capacity was the number 0"]),
    ],
)
def test_a_load_without_a_measure_ends_the_server_before_it_begins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: list[str]
) -> None:
    config(tmp_path, f"dagmanager:\n{text}")
    ran = call(capsys, "service", "dagmanager", "server", "--config", str(tmp_path / "qmtl.yml"))
    assert_one_screen(ran, "QMTL-801", 2, says=says)


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ran = call(capsys, "service", "dagmanager", "server", "--config", str(tmp_path / "none.yml"))
    assert_one_screen(ran, "QMTL-801", 2, says=["none.yml", "No such file"])


@pytest.mark.parametrize(
    ("url", "capacity", "says"),
    [
        ("http://p:1", "5", None),
        ("", "", ""),
        ("http://p:1", "", "broker_load_url is given alone"),
        ("", "5", "broker_capacity_per_s is given alone"),
        ("http://p:1", "x", "QMTL_BROKER_CAPACITY was the text 'x'"),
        ("http://p:1", "9" * 5000, "QMTL_BROKER_CAPACITY was the text '9999"),
        ("p", "5", "the text 'p'"),
    ],
)
def test_the_environment_says_who_knows_the_load_where_no_file_does(
    monkeypatch: pytest.MonkeyPatch, url: str, capacity: str, says: str | None
) -> None:
    monkeypatch.setenv("QMTL_BROKER_LOAD", url)
    monkeypatch.setenv("QMTL_BROKER_CAPACITY", capacity)
    if says:
        with pytest.raises(UsageError, match=says):
            broker_load_of()
    else:
        assert (broker_load_of() is None) == (says == "")
    assert broker_load_of("http://q:1", 7) is not None


def test_the_sample_is_all_defaults_and_names_every_key(tmp_path: Path) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    assert read_config(SAMPLE) == ServerConfig()
    uncommented = re.sub(r"^  # ([a-z_]+: )", r"  \1", text, flags=re.MULTILINE)
    found = config(tmp_path, uncommented)
    keys = re.findall(r"^  ([a-z_]+): ", uncommented, flags=re.MULTILINE)
    assert sorted(keys) == sorted({one.name for one in fields(ServerConfig)} - {"unused"})
    assert found.kafka_dsn == "localhost:9092"
    defaults = ServerConfig()
    assert (found.slot, found.metrics_host) == (defaults.slot, defaults.metrics_host)


# ---- the server --------------------------------------------------------------------------------------------------------


@contextmanager
def server(cwd: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    process = start(cwd, "service", "dagmanager", "server", *args)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], what: str) -> str:
    """The first line on stderr with this in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if what in line:
            return line
    raise AssertionError(f"the server ended without {what!r}")


def outcome_in(address: str, submission_id: str) -> Any:
    try:
        log = open_log(address, read_only=True)
    except QmtlError:
        return None
    try:
        return TableView(log, "dag.diffs", codec).refresh().get(submission_id)
    finally:
        log.close()


def test_a_server_decides_on_submissions_makes_their_topics_and_ends_when_it_is_asked_to(
    tmp_path: Path,
) -> None:
    address = f"embedded:{tmp_path / 'state' / 'log'}"
    one = submission(strategy(crossing()))
    log = open_log(address)
    prepare(log)
    commit(log, [row("dag.submissions", one)])
    log.close()
    # By the wall everything of the submission's time is forgotten, and so it would be refused.
    (tmp_path / "q.yml").write_text(
        "neo4j_user: u\nneo4j_password: p\nstate_dir: state\nmetrics_port: 0\ntick_s: 0\n", "utf-8"
    )
    with server(tmp_path, "--config", "q.yml") as process:
        assert "neo4j_user, neo4j_password: not used" in said(process, "neo4j")
        assert "QMTL_ARCHIVE" in said(process, "[QMTL-326]")
        url = said(process, "metrics on").split()[2].rstrip(",").removesuffix("/metrics")
        until(lambda: ask(f"{url}/healthz").status == 200, 60)
        until(lambda: outcome_in(address, one.submission_id) is not None, 60)
        until(lambda: "queues_total 5.0" in ask(f"{url}/metrics").body, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    log = open_log(address, read_only=True)
    try:
        queues = TableView(log, "dag.queues", codec).refresh().rows()
        assert {one.topic for one in queues} <= set(log.topics())
        assert all(one.ready for one in queues)
    finally:
        log.close()


def test_without_a_file_a_server_leaves_nothing_behind(tmp_path: Path) -> None:
    with server(tmp_path) as process:
        where = Path(said(process, "go with this server").split()[3])
        said(process, "worker topicadmin slot 0 runs on embedded:")
        assert (where / "log").is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert not where.exists()
    assert list(tmp_path.iterdir()) == []
