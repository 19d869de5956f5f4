"""The composition root: from settings to a log and running workers; the only place that names concrete adapters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from qmtl.engine.archive.address import StoreAddress, parse
from qmtl.engine.archive.kept import Archives
from qmtl.engine.archive.port import ObjectStore
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka_settings import DEFAULTS, KafkaSettings
from qmtl.engine.log.port import Log
from qmtl.engine.log.rights import Guarded, Rights
from qmtl.engine.observer import Observer
from qmtl.engine.processor import Processor
from qmtl.engine.schemas import PublishedSchemas
from qmtl.engine.task import TaskSettings
from qmtl.engine.transaction import CUTS
from qmtl.engine.worker import Worker
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.common.errors import InvalidTopology, LogUnreachable, NoCatalogue, UsageError
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.runtime.sdk.functions import Functions
from qmtl.services.clock.edge import GROUP as CLOCK_GROUP
from qmtl.services.clock.edge import Clock, wall_ms
from qmtl.services.clock.rule import EVERY_S
from qmtl.services.dagmanager.naming import is_namespace, namespace_of
from qmtl.services.dagmanager.topic_admin import Archive, BrokerLoad
from qmtl.services.egress.processor import Desk, Egress
from qmtl.topology import NAMES, Outside, problems, stage

LOG_FORMS = "embedded:DIR or kafka://HOST:PORT[/NAMESPACE]"


def open_log(address: str, *, read_only: bool = False, settings: KafkaSettings = DEFAULTS) -> Log:
    """Open a log by its address; on Kafka with the identity that the file in `QMTL_KAFKA_CONFIG` gives.

    Args:
        address: `embedded:DIR`, or `kafka://HOST:PORT[,HOST:PORT][/NAMESPACE]`; a namespace keeps systems on one cluster
            apart, such as those of two worlds (`qmtl.services.dagmanager.naming.namespace_of`).
        read_only: look at an embedded log that another process may hold.
        settings: of a log on Kafka.

    Raises:
        UsageError: another form, or a file of security settings that can't be used.
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
        if (
            all(_is_host(host) for host in hosts)
            and (not namespace or is_namespace(namespace))
            and not parts.query
        ):
            # Who stays on the embedded log needs no client of Kafka.
            from qmtl.engine.log.kafka import KafkaLog
            from qmtl.engine.log.kafka_security import from_environment

            prefix = f"{namespace}." if namespace else ""
            return KafkaLog(parts.netloc, prefix, settings, security=from_environment())
    raise UsageError(f"--log was {address!r}; a log has the form {LOG_FORMS}.", "Give one of these forms.")


def hold_embedded(address: str) -> EmbeddedLog:
    """Hold the embedded log at an address, and leave what lies in it as it is.

    Raises:
        UsageError: another form.
        LogUnreachable: there is none, or it can't be opened.
        LogLocked: another process holds it.
    """
    scheme, _, rest = address.partition(":")
    if scheme != "embedded" or not rest:
        raise UsageError(
            f"--log was {address!r}; an embedded log has the form embedded:DIR.", "Give that form."
        )
    directory = Path(rest)
    if not (directory / "CURRENT").exists():  # or holding it would make one
        raise LogUnreachable(f"there is no embedded log in {directory}.", "Name another --log.")
    return EmbeddedLog(directory)


def address_of(address: str, world_id: str, domain: ExecutionDomain) -> str:
    """The address, on a cluster, of the log that is a world's alone in an execution domain.

    Args:
        address: `kafka://HOST:PORT`, without a namespace.

    Raises:
        UsageError: the address is another; an embedded log is in a directory of its own as it is.
    """
    parts = urlsplit(address)
    if parts.scheme != "kafka" or not parts.netloc or parts.path.strip("/"):
        raise UsageError(
            f"--log was {address!r}; a world and a domain are put behind kafka://HOST:PORT, which has no namespace yet.",
            "Leave the namespace away, or the world and the domain.",
        )
    return f"kafka://{parts.netloc}/{namespace_of(world_id, domain)}"


ARCHIVE: Final = "QMTL_ARCHIVE"
"""The environment's name for the object store in which topics are archived before they go."""


def archive_of(log: Log, url: str | None = None) -> Archive | None:
    """Where topics of a log are archived before they are removed, as it is given or else as the environment says; None where neither
    says anything, and then no topic goes that has to be archived first.

    Raises:
        UsageError: it says something else than a store, or the client is not installed.
    """
    url = url or os.environ.get(ARCHIVE, "")
    return Archives(log, open_store(parse(url))) if url else None


BROKER_LOAD: Final = "QMTL_BROKER_LOAD"
"""The environment's name for the URL of a Prometheus that scrapes the brokers."""
BROKER_CAPACITY: Final = "QMTL_BROKER_CAPACITY"
"""The environment's name for how many messages per second one broker can take."""


def broker_load_of(url: str | None = None, capacity_per_s: int | None = None) -> BrokerLoad | None:
    """Who knows how busy the brokers are, as it is given or else as the environment says; None where neither says anything.

    Raises:
        UsageError: one of the two is missing, or can't be used.
    """
    url = url or os.environ.get(BROKER_LOAD) or None
    said = os.environ.get(BROKER_CAPACITY, "")
    if capacity_per_s is None and said:
        if not (said.isascii() and said.isdecimal() and len(said) <= _DIGITS):
            raise UsageError(
                f"{BROKER_CAPACITY} was the text {said[:40]!a}; a whole number of messages per second is required.",
                "Give what one broker can take.",
            )
        capacity_per_s = int(said)
    if url is None and capacity_per_s is None:
        return None
    if url is None or capacity_per_s is None:
        here = "broker_capacity_per_s" if url is None else "broker_load_url"
        raise UsageError(
            f"{here} is given alone; the brokers' load is measured by a URL and compared with a capacity.",
            f"Give both keys, or {BROKER_LOAD} and {BROKER_CAPACITY}, or none.",
        )
    from qmtl.services.dagmanager.broker_load import (
        PrometheusLoad,
    )  # who measures nothing needs no client of HTTP

    return PrometheusLoad(url, capacity_per_s)


_DIGITS: Final = 12


def open_store(address: StoreAddress) -> ObjectStore:
    """Open the object store of archives; who archives nothing needs no client of one.

    Raises:
        UsageError: the client is not installed, or what the environment says can't be used.
        StoreMissing: there is no such directory.
    """
    try:
        from qmtl.engine.archive.objects import open_objects
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise UsageError(
            "an archive needs the package obstore, which is not installed.",
            "Run `pip install 'qmtl[archive]'`.",
        ) from None
    return open_objects(address)


def _is_host(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


ALL_TOPICS: Final = len(CATALOGUE)
SOME_TOPICS: Final = ALL_TOPICS - 1
"""So many may be missing where a version is newer than what there is, and no more: there is a log, and it is not begun by mistake."""


def require_topics(log: Log, may_lack: int = SOME_TOPICS) -> None:
    """Refuse a log that lacks more topics of the catalogue than it may; nothing is made.

    Raises:
        NoCatalogue: it does.
    """
    there = set(log.topics())
    missing = [spec.name for spec in CATALOGUE if spec.name not in there]
    if len(missing) > may_lack:
        raise NoCatalogue(
            f"of the {ALL_TOPICS} topics that a log of QMTL has, {ALL_TOPICS - len(missing)} are there; {missing[0]!r} is not.",
            "See whether --log is right; `qmtl service dagmanager init` with the same --log makes them.",
        )


def prepare(log: Log, may_make: int = ALL_TOPICS) -> None:
    """Create the topics of the catalogue, compare those that exist, and refuse a topology that contradicts itself.

    What other code has written here has to be readable by this one, which is asked first; its own schemas are published last.

    Args:
        may_make: at most so many topics may be missing, or nothing is made: 0 for who only asks.

    Raises:
        IncompatibleSchema: another version writes values on this log that this one can't read.
        BrokerTooOld: a cluster of a version that is not supported.
        NoCatalogue: more topics are missing than may be made.
        TopicMismatch: a topic has another configuration.
        InvalidTopology: a mistake in the code.
    """
    if found := problems():
        raise InvalidTopology("; ".join(found))
    if isinstance(log, Guarded):
        log.require_version()
    if may_make < ALL_TOPICS:
        require_topics(log, may_make)
    schemas = PublishedSchemas(log, codec)
    schemas.require_readable()
    log.ensure_topics(CATALOGUE)
    schemas.publish()
    schemas.attend()


def learn_schemas(log: Log) -> None:
    """Read what other versions have written on a log that is only looked at, as far as this code can."""
    schemas = PublishedSchemas(log, codec)
    schemas.look()
    schemas.attend()


def rights_of(processor: Processor) -> Rights:
    """What a worker of a processor has to be allowed, by the topics that it names before it has seen a record."""
    reads = {one.topic for one in processor.inputs()} | {*processor.tables, "schemas"}
    closes = {spec.name for spec in processor.closes()}
    return Rights(
        frozenset(reads),
        frozenset({*processor.tables, *processor.emits, *closes, CUTS, "dead.letters", "schemas"}),
        f"qmtl.{processor.name}",
    )


CODE: Final = "QMTL_CODE"
"""The environment's name for the packages that have the functions of Python nodes, with commas between them."""


def functions_of(packages: Sequence[str] = ()) -> Functions:
    """The functions of authors that a worker may run: of these packages, and of those that the environment names.

    Raises:
        UsageError: a package that is no name of one.
    """
    said = (one.strip() for one in os.environ.get(CODE, "").split(","))
    return Functions([*packages, *filter(None, said)])


VENUE: Final = "QMTL_VENUE"
"""The environment's name for the address of the venue of live orders."""
VENUE_KEY: Final = "QMTL_VENUE_KEY"
VENUE_SECRET: Final = "QMTL_VENUE_SECRET"


def desk_of(address: str | None = None) -> Desk:
    """What reaches the venue of live orders, as it is given or else as the environment says; without either none is reached, and every live
    order is refused. Keys come from the environment alone.

    Raises:
        UsageError: no address of a venue.
        LibraryMissing: its client is not installed.
    """
    address = address or os.environ.get(VENUE, "")
    claimant = uuid4().hex  # of this process and its life: what it claims, none after it takes for its own
    if not address:
        return Desk(None, claimant, 0)
    from qmtl.runtime.venues.address import (
        open_venue,
        parse_address,
    )  # who stays on paper needs no client of exchanges

    where = parse_address(address)
    key, secret = os.environ.get(VENUE_KEY, ""), os.environ.get(VENUE_SECRET, "")
    return Desk(open_venue(where, key, secret), claimant, where.max_age_s * 1000)


def outside_of(
    log: Log,
    load: BrokerLoad | None = None,
    archive: str | None = None,
    code: Sequence[str] = (),
    venue: str | None = None,
    names: Sequence[str] = NAMES,
) -> Outside:
    """What the effects of a process reach, and the functions that its nodes run.

    Args:
        load: without one, what the environment says.
        archive: URL of the store of topics that go; without one, what the environment says.
        code: packages with functions of Python nodes, beside those that the environment names.
        venue: address of the venue of live orders; without one, what the environment says.
        names: of the processors that the process runs: only who sends live orders needs the client of a venue.

    Raises:
        UsageError: the environment says what can't be used.
        LibraryMissing: the client of the venue is not installed.
    """
    return Outside(
        log,
        archive_of(log, archive),
        load=load or broker_load_of(),
        functions=functions_of(code),
        desk=desk_of(venue) if Egress.name in names else None,
    )


def make_workers(
    log: Log,
    settings: TaskSettings,
    names: Sequence[str] = NAMES,
    slot: str = "0",
    outside: Outside | None = None,
) -> list[Worker]:
    """One worker per name, joined to its group.

    Args:
        outside: without one, that of the log and the environment.

    Raises:
        UnknownProcessor: a name that the topology doesn't have.
        MissingRight: the cluster does not let this client do what one of them has to.
    """
    outside = outside_of(log, names=names) if outside is None else outside
    chosen = [stage(name) for name in names]
    if isinstance(log, Guarded):
        for one in chosen:
            log.require_rights(rights_of(one.make(outside)))
    workers: list[Worker] = []
    try:
        for one in chosen:
            workers.append(Worker(log, partial(one.make, outside), codec, settings, slot))
            workers[-1].claim()
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    return workers


def make_clock(
    log: Log,
    every_s: int = EVERY_S,
    slot: str = "0",
    config_epoch: int = 1,
    wall: Callable[[], int] = wall_ms,
    observer: Observer | None = None,
) -> Clock:
    """The clock of a deployed system, joined to its group.

    Args:
        wall: gives the time, epoch ms.

    Raises:
        MissingRight: the cluster does not let this client do what it has to.
    """
    if isinstance(log, Guarded):
        log.require_rights(CLOCK_RIGHTS)
    clock = Clock(log, codec, every_s * 1000, slot, config_epoch, wall, observer)
    try:
        clock.claim()
    except BaseException:
        clock.close()
        raise
    return clock


CLOCK_RIGHTS: Final = Rights(
    frozenset({"clock", "schemas"}), frozenset({"clock", "dead.letters", "schemas"}), CLOCK_GROUP
)
"""What a clock has to be allowed; into the dead letters it writes what it aborts, to prove that its slot is its own."""
