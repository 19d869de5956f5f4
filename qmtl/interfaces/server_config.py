"""The configuration file of a server: one section of a YAML file, or the whole of it, every key known and every value checked before
anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from qmtl.engine.archive.address import parse
from qmtl.foundation.common.errors import UsageError
from qmtl.services.clock.rule import EVERY_S, LONGEST_S
from qmtl.services.dagmanager.expiry import KEEP_DAYS, LEAST_DAYS, MOST_DAYS

MAX_BYTES: Final = 65_536
SECTION: Final = "dagmanager"
OF_A_GRAPH_DATABASE: Final = ("neo4j_dsn", "neo4j_user", "neo4j_password")
"""Keys of files that were written for a graph database. There is none: they are taken where the graph is kept otherwise, and told of."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How the DAG Manager's server runs.

    Attributes:
        kafka_dsn: `HOST:PORT[,HOST:PORT]`; None for an embedded log in this process.
        namespace: keeps systems on one cluster apart.
        state_dir: where local stores lie, and the embedded log; None for a directory that goes when the server ends.
        slot: names this server among those that share the work.
        metrics_host, metrics_port: where /metrics and /healthz are served; no port, nowhere.
        broker_load_url: of a Prometheus that scrapes the brokers; None for what the environment says, or nobody.
        broker_capacity_per_s: messages per second that one broker can take.
        archive: URL of the object store in which topics are archived before they go; None for what the environment says, or nowhere.
        keep_days: how long rows stay that nobody needs any more; said on the log when the server starts. None for what was said last.
        tick_s: from tick to tick of the clock; 0 where this server is not to tick.
        unused: keys of the file that say nothing to this server, for it to tell of them.
    """

    kafka_dsn: str | None = None
    namespace: str | None = None
    state_dir: str | None = None
    slot: str = "0"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    broker_load_url: str | None = None
    broker_capacity_per_s: int | None = None
    archive: str | None = None
    keep_days: int | None = None
    tick_s: int = EVERY_S
    unused: tuple[str, ...] = ()

    def address(self, state_dir: Path) -> str:
        """The log, as `--log` takes it."""
        if self.kafka_dsn is None:
            return f"embedded:{state_dir / 'log'}"
        return f"kafka://{self.kafka_dsn}" + (f"/{self.namespace}" if self.namespace else "")


KEYS: Final = {one.name: str(one.type) for one in fields(ServerConfig) if one.name != "unused"}
"""What a file may say, and its kind."""


def read_config(file: Path) -> ServerConfig:
    """What the section of the DAG Manager says; a file without sections is that section.

    Raises:
        UsageError: the file can't be read, is no YAML or too large, has an unknown key or a value of another kind, keys both in the
            section and beside it, or sections without that of the DAG Manager.
    """
    import yaml

    try:
        with file.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--config {file} can't be read: {error.strerror}.", "Name another file.") from None
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"--config {file} has more than {MAX_BYTES} bytes.",
            "Keep the configuration in a file of its own.",
        )
    try:
        loaded = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        at = "" if where is None else f" at line {where.line + 1}"
        raise UsageError(
            f"--config {file} is no YAML{at}.", "`qmtl project init` installs a sample."
        ) from None
    return (
        ServerConfig()
        if loaded is None
        else _checked(_section(_mapping(loaded, file, "the file"), file), file)
    )


def _section(loaded: Mapping[Any, Any], file: Path) -> Mapping[Any, Any]:
    """What is meant for the DAG Manager: nothing of the file is passed over but sections of others."""
    beside = {
        key: value
        for key, value in loaded.items()
        if key != SECTION
        and not (key not in (*KEYS, *OF_A_GRAPH_DATABASE) and isinstance(value, dict | None))
    }
    if SECTION in loaded and beside:
        raise UsageError(
            f"--config {file}: key {str(next(iter(beside)))[:60]!a} stands beside section {SECTION!r}; what is for the server stands"
            " inside.",
            "Indent it below the section, or leave the section's name out.",
        )
    if loaded and SECTION not in loaded and not beside:
        raise UsageError(
            f"--config {file}: there is section {str(next(iter(loaded)))[:60]!a}, and none that is named {SECTION!r}.",
            f"Name it {SECTION!r}; `qmtl project init` installs a sample.",
        )
    section = loaded.get(SECTION, beside)
    return {} if section is None else _mapping(section, file, f"section {SECTION!r}")


def _mapping(value: Any, file: Path, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise UsageError(
            f"--config {file}: {what} was {_kind(value)}; keys with values are required.",
            "`qmtl project init` installs a sample.",
        )
    return value


def _checked(section: Mapping[Any, Any], file: Path) -> ServerConfig:
    unused = tuple(key for key in OF_A_GRAPH_DATABASE if key in section)
    said = {key: value for key, value in section.items() if key not in unused}
    for key, value in said.items():
        if key not in KEYS:
            raise UsageError(
                f"--config {file}: key {str(key)[:60]!a} of section {SECTION!r} is unknown.",
                f"There are {', '.join(KEYS)}.",
            )
        kind = int if KEYS[key].startswith("int") else str
        if value is None and KEYS[key].endswith("None"):
            continue
        if type(value) is not kind or value == "":
            wanted = "a whole number" if kind is int else "a text"
            raise UsageError(
                f"--config {file}: {key} was {_kind(value)}; {wanted} is required.",
                "Put a text between quotation marks, or leave the key out.",
            )
    config = ServerConfig(**said, unused=unused)
    if unused and config.kafka_dsn is None and config.state_dir is None:
        raise UsageError(
            f"--config {file}: {unused[0]} names a graph database, and this server keeps the graph on the log, which is nowhere kept.",
            "Say kafka_dsn for a cluster's log or state_dir for one of this server's own.",
        )
    if config.archive is not None:
        parse(config.archive)
    port = config.metrics_port
    if port is not None and not 0 <= port < 65_536:
        raise UsageError(
            f"--config {file}: metrics_port was the number {port}; 0 to 65535 is required.",
            "0 takes any port that is free.",
        )
    days = config.keep_days
    if days is not None and not LEAST_DAYS <= days <= MOST_DAYS:
        raise UsageError(
            f"--config {file}: keep_days was the number {days}; {LEAST_DAYS} to {MOST_DAYS} is required.",
            f"{KEEP_DAYS} is what holds where nobody says anything.",
        )
    if not 0 <= config.tick_s <= LONGEST_S:
        raise UsageError(
            f"--config {file}: tick_s was the number {config.tick_s}; 0 to {LONGEST_S} is required.",
            f"{EVERY_S} is what holds where nobody says anything; with 0 this server does not tick.",
        )
    return config


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "a truth value"
        case "":
            return "an empty text"
        case str():
            return f"the text {value[:60]!a}"
        case int():
            return "a whole number"
        case dict():
            return "keys with values"
        case _:
            return f"a {type(value).__name__}"
