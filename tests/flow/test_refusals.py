"""What is refused: one screen, a stable code, an exit code that is not 0, and nothing half done."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from qmtl.bootstrap import open_log
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.view import all_partitions
from qmtl.services.dagmanager.faults import MAX_REASONS
from tests.contract.driving import settled
from tests.flow.driving import Place, Said, digests_of, embedded, on_kafka, qmtl, run_demo, write_bars
from tests.interfaces.cli.running import call

CODE = {"log": 3, "dag": 5, "world": 6, "bars": 7, "usage": 2, "run": 8}


def assert_refused(said: Said, code: str, exit_code: int, *words: str) -> None:
    """One coded screen on stderr, nothing on stdout."""
    assert said.code == exit_code, said
    assert said.out == ""
    lines = said.err.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("[QMTL-"))
    assert lines[first].startswith(f"[{code}] "), said.err
    several = "faults:" in lines[first]  # then each has a line
    assert 1 <= len(lines) - first <= (MAX_REASONS + 2 if several else 2)  # what was wrong, and what to do
    assert len(lines) < 25
    assert len(said.err) < 3500
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    for word in words:
        assert word in said.err, (word, said.err)


Command = Callable[..., Said]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Command:
    """`qmtl …` in this process, for tables of refusals; of each family of commands one more is refused as a program."""
    return lambda *arguments: Said(*call(capsys, *arguments))


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few bars: what is refused is refused whatever a run has done."""
    return write_bars(tmp_path_factory.mktemp("few"), 20)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, bars: dict[str, Path]) -> Place:
    """A place on which a demo has run."""
    place = embedded(tmp_path_factory.mktemp("used"), bars)
    run_demo(place)
    return place


@pytest.fixture(scope="module")
def before(used: Place) -> dict[str, str]:
    """What lies there, and goes on to lie there whatever is refused."""
    return digests_of(used.log)


@pytest.fixture
def mine(tmp_path: Path, used: Place, bars: dict[str, Path]) -> Place:
    """The same place, for what takes down that it was asked."""
    shutil.copytree(used.state, tmp_path / "mine")
    return embedded(tmp_path / "mine", bars)


# ---- DAG messages ---------------------------------------------------------------------------------------------

PRICE: dict[str, Any] = {
    "name": "price",
    "node_type": "price",
    "interval": 60,
    "params": {"symbols": ["BTC-USD"]},
}
FAST: dict[str, Any] = {"name": "fast", "node_type": "sma", "interval": 60, "period": 5, "inputs": ["price"]}
SLOW: dict[str, Any] = {**FAST, "name": "slow", "period": 9}
CROSS: dict[str, Any] = {"name": "cross", "node_type": "cross", "interval": 60, "inputs": ["fast", "slow"]}
TARGET: dict[str, Any] = {
    "name": "target",
    "node_type": "position_target",
    "interval": 60,
    "inputs": ["cross"],
    "params": {"long_percent": 0.5, "short_percent": -0.5},
}


def message(*nodes: dict[str, Any], **more: Any) -> bytes:
    whole = {"schema_version": "v1", "strategy_id": "s", "nodes": list(nodes), "signals": ["target"], **more}
    return json.dumps(whole).encode()


def whole_but(changed: dict[str, Any]) -> bytes:
    """The good strategy with one node changed."""
    nodes = [PRICE, FAST, SLOW, CROSS, TARGET]
    return message(*({**one, **changed} if one["name"] == changed["name"] else one for one in nodes))


GOOD = message(PRICE, FAST, SLOW, CROSS, TARGET)

MESSAGES: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "cycle": (
        message(PRICE, {**FAST, "inputs": ["slow"]}, {**SLOW, "inputs": ["fast"]}, CROSS, TARGET),
        "QMTL-502",
        ("fast", "slow"),
    ),
    "a node that reads itself": (whole_but({"name": "fast", "inputs": ["fast"]}), "QMTL-502", ("fast",)),
    "unknown type": (whole_but({"name": "fast", "node_type": "hull"}), "QMTL-503", ("hull", "sma")),
    "missing input": (message(PRICE, FAST, CROSS, TARGET), "QMTL-504", ("slow",)),
    "missing signal": (message(PRICE, FAST, SLOW, CROSS), "QMTL-504", ("target",)),
    "NaN": (GOOD.replace(b"-0.5", b"NaN"), "QMTL-506", ("NaN",)),
    "infinity": (GOOD.replace(b"-0.5", b"-Infinity"), "QMTL-506", ("Infinity",)),
    "parameter out of its rule": (
        whole_but({"name": "target", "params": {"long_percent": 1.5, "short_percent": -0.5}}),
        "QMTL-506",
        ("long_percent", "1.5"),
    ),
    "over 1 MiB": (GOOD + b" " * (1 << 20), "QMTL-501", ("1048576",)),
    "too deep": (
        GOOD.replace(b'["BTC-USD"]', b"[" * 40 + b'"BTC-USD"' + b"]" * 40),
        "QMTL-501",
        ("32",),
    ),
    "duplicate key": (
        GOOD.replace(b'"strategy_id": "s"', b'"strategy_id": "s", "strategy_id": "t"'),
        "QMTL-500",
        ("strategy_id", "twice"),
    ),
    "node twice": (message(PRICE, PRICE, FAST, SLOW, CROSS, TARGET), "QMTL-507", ("price",)),
    "id without its prefix": (
        whole_but({"name": "price", "node_id": "0" * 64}),
        "QMTL-505",
        ("blake3:",),
    ),
    "id of other content": (
        whole_but({"name": "price", "node_id": "blake3:" + "0" * 64}),
        "QMTL-505",
        ("price", "blake3:000"),
    ),
    "hash of other code": (
        whole_but({"name": "fast", "code_hash": "blake3:" + "1" * 64}),
        "QMTL-505",
        ("code_hash",),
    ),
    "not JSON": (b"strategy: s", "QMTL-500", ("JSON",)),
    "not UTF-8": (b'{"strategy_id": "\xff\xfe"}', "QMTL-500", ("JSON",)),
    "empty": (b"", "QMTL-500", ("JSON",)),
    "unknown field": (GOOD.replace(b'"signals"', b'"signal"'), "QMTL-500", ("signal",)),
    "a world as a parameter": (
        whole_but({"name": "price", "params": {"symbols": ["BTC-USD"], "world_id": "w"}}),
        "QMTL-506",
        ("world_id",),
    ),
    "intervals that differ": (whole_but({"name": "cross", "interval": 120}), "QMTL-500", ("interval", "120")),
    "several faults": (
        message(
            PRICE, {**FAST, "period": 0}, {**SLOW, "node_type": "hull"}, CROSS, TARGET, schema_version="v9"
        ),
        "QMTL-500",
        ("[QMTL-509] schema_version", "[QMTL-500] nodes[1].period", "[QMTL-503] nodes[2].node_type"),
    ),
    "hundreds of faults": (
        message(*({**FAST, "name": "|" + "\u001b[2J" * 50, "period": 0} for _ in range(300))),
        "QMTL-500",
        ("has 901 faults", "more."),
    ),
    "terminal commands in a name": (
        whole_but({"name": "fast", "node_type": "\u001b[2J\u202e"}),
        "QMTL-503",
        ("\\x1b[2J\\u202e",),
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_broken_dag_message_is_refused_before_anything_is_published(
    tmp_path: Path, used: Place, before: dict[str, str], here: Command, name: str
) -> None:
    data, code, words = MESSAGES[name]
    file = tmp_path / "dag.json"
    file.write_bytes(data)
    said = here("dag", "publish", str(file), "--world", "demo", "--log", used.log)
    assert_refused(said, code, CODE["dag"], *words)
    assert digests_of(used.log) == before


def test_a_broken_dag_message_makes_no_log(tmp_path: Path) -> None:
    file = tmp_path / "dag.json"
    file.write_bytes(MESSAGES["cycle"][0])
    log = tmp_path / "log"
    said = qmtl("dag", "publish", str(file), "--world", "demo", "--log", f"embedded:{log}")
    assert_refused(said, "QMTL-502", CODE["dag"])
    assert not log.exists()


def test_a_dag_message_for_an_unknown_world_is_not_published(
    tmp_path: Path, used: Place, before: dict[str, str]
) -> None:
    file = tmp_path / "dag.json"
    file.write_bytes(GOOD)
    said = qmtl("dag", "publish", str(file), "--world", "nowhere", "--log", used.log)
    assert_refused(said, "QMTL-601", CODE["world"], "nowhere", "qmtl world create nowhere")
    assert digests_of(used.log) == before


def test_a_dag_message_that_is_no_file_is_refused(
    tmp_path: Path, used: Place, before: dict[str, str], here: Command
) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        said = here("dag", "publish", str(path), "--world", "demo", "--log", used.log)
        assert_refused(said, "QMTL-500", CODE["dag"], path.name)
    assert digests_of(used.log) == before


# ---- worlds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, code, exit_code, words",
    [
        (("--fee-rate", "lots"), "QMTL-101", 1, ("--fee-rate", "lots")),
        (("--initial-cash", "NaN"), "QMTL-101", 1, ("--initial-cash", "NaN")),
        (("--initial-cash", "-5"), "QMTL-602", 6, ("initial_cash", "-5")),
        (("--slippage-rate", "1"), "QMTL-602", 6, ("slippage_rate",)),
    ],
)
def test_a_world_with_impossible_settings_is_not_created(
    tmp_path: Path, here: Command, options: tuple[str, ...], code: str, exit_code: int, words: tuple[str, ...]
) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    assert_refused(here("world", "create", "w", *options, "--log", log), code, exit_code, *words)
    listed = here("world", "list", "--log", log)
    assert "100000" not in listed.out


def test_an_existing_world_keeps_its_settings(mine: Place, before: dict[str, str]) -> None:
    said = qmtl("world", "create", "demo", "--initial-cash", "5", "--log", mine.log)
    assert_refused(said, "QMTL-602", CODE["world"], "demo", "other settings")
    assert digests_of(mine.log)["world.state"] == before["world.state"]


def test_a_gate_of_an_unknown_world_is_not_opened(mine: Place, before: dict[str, str], here: Command) -> None:
    options = ("--strategy", "s", "--side", "long", "--active", "true")
    said = here("world", "activation", "set", "nowhere", *options, "--log", mine.log)
    assert_refused(said, "QMTL-601", CODE["world"], "nowhere")
    assert digests_of(mine.log)["activation"] == before["activation"]


# ---- bars -----------------------------------------------------------------------------------------------------

HEAD = "open_time_ms,open,high,low,close,volume"
ROW = "1522800000000,10,12,9,11,5"
NEXT = "1522800060000,11,12,10,11,5"
LAST = "1522800120000,11,12,10,12,5"


def csv(*rows: str, head: str = HEAD) -> bytes:
    return ("\n".join((head, *rows)) + "\n").encode()


BARS: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "negative price": (
        csv(ROW, NEXT.replace(",10,", ",-10,"), LAST),
        "QMTL-701",
        ("bars.csv", "line 3", "low", "-10"),
    ),
    "price of nothing": (csv(ROW, NEXT, LAST.replace(",12,5", ",0,5")), "QMTL-701", ("line 4", "close")),
    "high below low": (csv(ROW, "1522800060000,11,9,10,11,5", LAST), "QMTL-701", ("line 3", "high")),
    "close above high": (csv(ROW, "1522800060000,11,12,10,13,5", LAST), "QMTL-701", ("line 3", "close")),
    "time going back": (csv(ROW, LAST, NEXT), "QMTL-701", ("line 4", "open_time_ms")),
    "time twice": (csv(ROW, NEXT, NEXT), "QMTL-701", ("line 4", "open_time_ms")),
    "NaN": (csv(ROW, "1522800060000,11,12,10,NaN,5", LAST), "QMTL-701", ("line 3", "close", "NaN")),
    "infinity": (csv(ROW, "1522800060000,11,inf,10,11,5", LAST), "QMTL-701", ("line 3", "high", "inf")),
    "negative volume": (csv(ROW, "1522800060000,11,12,10,11,-5", LAST), "QMTL-701", ("line 3", "volume")),
    "no number": (csv(ROW, "1522800060000,11,12,10,eleven,5", LAST), "QMTL-701", ("line 3", "eleven")),
    "missing column": (csv(ROW, NEXT, head=HEAD.replace(",volume", "")), "QMTL-702", ("volume",)),
    "unknown column": (csv(ROW, NEXT, head=f"{HEAD},vwap"), "QMTL-702", ("vwap",)),
    "short row": (csv(ROW, "1522800060000,11,12", LAST), "QMTL-702", ("line 3", "3 fields")),
    "one bar": (csv(ROW), "QMTL-702", ("interval",)),
    "no bar": (csv(), "QMTL-702", ("bars.csv",)),
    "empty": (b"", "QMTL-702", ("empty",)),
    "truncated gzip": (gzip.compress(csv(ROW, NEXT, LAST), mtime=0)[:-12], "QMTL-702", ("gzip",)),
    "damaged gzip": (b"\x1f\x8b" + b"\x00" * 40, "QMTL-702", ("bars.csv",)),
    "not UTF-8": (csv(ROW) + b"\xff\xfe\n", "QMTL-702", ("UTF-8",)),
    "endless line": (csv(ROW) + b"1" * 10_000, "QMTL-702", ("4096",)),
}


@pytest.mark.parametrize("name", BARS)
def test_broken_bars_are_refused_before_a_log_is_made(tmp_path: Path, here: Command, name: str) -> None:
    data, code, words = BARS[name]
    file = tmp_path / "bars.csv"
    file.write_bytes(data)
    place = embedded(tmp_path / "state", {"BTC-USD": file})
    assert_refused(here(*place.demo()), code, CODE["bars"], *words)
    assert not place.state.exists()


def test_missing_bars_are_refused_before_a_log_is_made(tmp_path: Path) -> None:
    place = embedded(tmp_path / "state", {"BTC-USD": tmp_path / "absent.csv"})
    assert_refused(qmtl(*place.demo()), "QMTL-702", CODE["bars"], "absent.csv")
    assert not place.state.exists()


def test_broken_bars_leave_a_log_that_exists_as_it_was(
    tmp_path: Path, used: Place, before: dict[str, str], here: Command
) -> None:
    file = tmp_path / "bars.csv"
    file.write_bytes(BARS["time going back"][0])
    said = here(*Place(used.log, used.state, {"BTC-USD": file}).demo())
    assert_refused(said, "QMTL-701", CODE["bars"])
    assert digests_of(used.log) == before


# ---- the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("demo", "--speed", "9"), ("--speed", "qmtl demo --help")),
        (("fly",), ("fly", "qmtl --help")),
        (("dag", "burn"), ("burn", "qmtl dag --help")),
        (("demo", "--bars", "BTC-USD"), ("--bars", "SYMBOL=FILE")),
        (("demo", "--poll-records", "0"), ("--poll-records",)),
        (("demo", "--log", "ftp://somewhere"), ("ftp://somewhere", "kafka://HOST:PORT")),
        (("demo", "--log", "kafka://nowhere"), ("kafka://nowhere", "kafka://HOST:PORT")),
        (("demo", "--log", "kafka://h:9092/a/b"), ("kafka://h:9092/a/b",)),
        (("world", "create"), ("WORLD_ID",)),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value, tuple) else None,
)
def test_a_command_line_that_does_not_parse_does_nothing(
    tmp_path: Path,
    here: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(here(*arguments), "QMTL-801", CODE["usage"], *words)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_an_unknown_processor_is_not_started(tmp_path: Path) -> None:
    said = qmtl("worker", "run", "alchemist", "--log", "kafka://127.0.0.1:1", cwd=tmp_path)
    assert_refused(said, "QMTL-403", CODE["usage"], "alchemist", "dagmanager")
    assert list(tmp_path.iterdir()) == []


# ---- logs -----------------------------------------------------------------------------------------------------


def test_an_unreachable_broker_is_told_within_ten_seconds(tmp_path: Path, bars: Mapping[str, Path]) -> None:
    place = Place("kafka://127.0.0.1:1", tmp_path / "state", bars)
    said = qmtl(*place.demo(), timeout_s=10)
    assert_refused(said, "QMTL-301", CODE["log"], "127.0.0.1:1", "make broker")
    assert not place.state.exists()


def test_a_log_directory_that_is_a_file_is_refused(
    tmp_path: Path, bars: Mapping[str, Path], here: Command
) -> None:
    (tmp_path / "log").write_text("mine", encoding="utf-8")
    said = here(*Place(f"embedded:{tmp_path / 'log'}", tmp_path / "state", bars).demo())
    assert_refused(said, "QMTL-301", CODE["log"], "log")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "mine"


def test_an_embedded_log_that_another_process_holds_is_left_alone(
    mine: Place, before: dict[str, str]
) -> None:
    holder = EmbeddedLog(mine.state / "log")
    try:
        assert_refused(qmtl(*mine.demo()), "QMTL-302", CODE["log"], "another process")
    finally:
        holder.close()
    assert digests_of(mine.log) == before


@pytest.fixture
def other_bars(tmp_path: Path, bars: Mapping[str, Path]) -> dict[str, Path]:
    """The bars without their last line."""
    out = {}
    for symbol, path in bars.items():
        out[symbol] = tmp_path / f"other-{path.name}"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        out[symbol].write_text("".join(lines[:-1]), encoding="utf-8")
    return out


def test_the_state_of_a_run_on_other_bars_is_refused(
    used: Place, before: dict[str, str], other_bars: dict[str, Path]
) -> None:
    said = qmtl(*Place(used.log, used.state, other_bars).demo())
    assert_refused(said, "QMTL-802", CODE["run"], "demo", "--state-dir")
    assert digests_of(used.log) == before


def ends_of(address: str) -> dict[TopicPartition, int]:
    """Where each partition of a log ends: a record more, or a transaction that was given up, moves it."""
    log = open_log(address, read_only=True)
    try:
        return dict(settled(log, [where for name in log.topics() for where in all_partitions(log, name)]))
    finally:
        log.close()


def test_a_namespace_of_a_run_on_other_bars_is_refused(
    tmp_path: Path, bars: dict[str, Path], other_bars: dict[str, Path], kafka_bootstrap: str
) -> None:
    with on_kafka(kafka_bootstrap, tmp_path / "state", bars) as place:
        run_demo(place)
        before = ends_of(place.log)
        said = qmtl(*Place(place.log, tmp_path / "other", other_bars).demo())
        assert_refused(said, "QMTL-802", CODE["run"], "demo", "namespace")
        assert ends_of(place.log) == before


def deleted_portfolio(name: str) -> NewTopic:
    return NewTopic(name, num_partitions=1, replication_factor=1, config={"cleanup.policy": "delete"})


def split_graph(name: str) -> NewTopic:
    config = {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": "86400000",
        "delete.retention.ms": "604800000",
        "min.cleanable.dirty.ratio": "0.3",
    }
    return NewTopic(name, num_partitions=3, replication_factor=1, config=config)


@pytest.mark.parametrize(
    "topic, make, words",
    [
        ("trade.portfolio", deleted_portfolio, ("cleanup.policy", "'delete'", "'compact'")),
        ("dag.nodes", split_graph, ("partitions", "3", "1")),
    ],
)
def test_a_topic_with_another_configuration_is_refused_and_no_other_topic_made(
    tmp_path: Path,
    bars: dict[str, Path],
    kafka_bootstrap: str,
    topic: str,
    make: Callable[[str], NewTopic],
    words: tuple[str, ...],
) -> None:
    with on_kafka(kafka_bootstrap, tmp_path / "state", bars) as place:
        namespace = place.log.rsplit("/", 1)[1]
        admin = AdminClient({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
        for made in admin.create_topics([make(f"{namespace}.{topic}")], operation_timeout=10).values():
            made.result()
        said = qmtl(*place.demo())
        assert_refused(said, "QMTL-303", CODE["log"], topic, *words)
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(f"{namespace}.")]
        assert names == [f"{namespace}.{topic}"]
