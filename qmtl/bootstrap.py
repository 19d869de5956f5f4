"""The composition root: from settings to a log and running workers; the only place that names concrete adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import InvalidTopology, UsageError
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.topology import NAMES, Outside, problems, stage

LOG_FORMS = "embedded:DIR or kafka://HOST:PORT[/NAMESPACE]"


def open_log(address: str, *, read_only: bool = False) -> Log:
    """Open a log by its address.

    Args:
        address: `embedded:DIR`, or `kafka://HOST:PORT[,HOST:PORT][/NAMESPACE]`; a namespace keeps systems on one cluster
            apart.
        read_only: look at an embedded log that another process may hold.

    Raises:
        UsageError: another form.
        LogUnreachable, LogLocked: it can't be opened.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "embedded" and rest:
        log = EmbeddedLog(Path(rest), read_only=read_only)
        if not read_only:
            log.clean_if_due()
        return log
    if scheme == "kafka" and rest.startswith("//"):
        parts = urlsplit(address)
        namespace = parts.path.strip("/")
        hosts = parts.netloc.split(",")
        if all(_is_host(host) for host in hosts) and _is_namespace(namespace) and not parts.query:
            from qmtl.engine.log.kafka import (
                KafkaLog,  # who stays on the embedded log needs no client of Kafka
            )

            return KafkaLog(parts.netloc, f"{namespace}." if namespace else "")
    raise UsageError(f"--log was {address!r}; a log has the form {LOG_FORMS}.", "Give one of these forms.")


def _is_host(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def _is_namespace(text: str) -> bool:
    return len(text) <= 40 and all(char.isalnum() or char in "-_" for char in text) and text.isascii()


def prepare(log: Log) -> None:
    """Create the topics of the catalogue, compare those that exist, and refuse a topology that contradicts itself.

    Raises:
        TopicMismatch: a topic has another configuration.
        InvalidTopology: a mistake in the code.
    """
    if found := problems():
        raise InvalidTopology("; ".join(found))
    log.ensure_topics(CATALOGUE)


def make_workers(
    log: Log, settings: TaskSettings, names: Sequence[str] = NAMES, slot: str = "0"
) -> list[Worker]:
    """One worker per name, joined to its group.

    Raises:
        UnknownProcessor: a name that the topology doesn't have.
    """
    outside = Outside(log.ensure_topics)
    chosen = [stage(name) for name in names]
    return [Worker(log, lambda one=one: one.make(outside), codec, settings, slot) for one in chosen]  # type: ignore[misc] # mypy can't type a lambda with a bound default
