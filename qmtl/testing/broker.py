"""A real Apache Kafka broker for tests and for trying things out: found, started, killed, restarted, stopped.

    with start_broker() as broker:
        AdminClient({"bootstrap.servers": broker.bootstrap})

The broker is one KRaft node on 127.0.0.1 with free ports. It ends with the program that started it, however that
ends. `python -m qmtl.testing.broker start` starts one that stays until `stop`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from types import TracebackType
from typing import IO, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from qmtl.foundation.common.errors import NoBroker, QmtlError
from qmtl.testing import broker_guard
from qmtl.testing.broker_parts import REMEDY, Containers, Jvm, Parts, cache_dir, find_parts, last_line, recipe

JVM_OPTIONS = ("-XX:+UseSerialGC",)
QUICK_JVM_OPTIONS = ("-XX:TieredStopAtLevel=1",)
"""Up sooner, since nothing is compiled but simply; slower once it has run for long."""

HEAP_MB = 512
START_SECONDS = 60.0
STOP_SECONDS = 15.0
START_TRIES = 3
# Below every system's range for outgoing connections: a client that keeps dialling a dead broker's port from that
# very range can connect to itself, and then the broker can't come back to its port.
PORTS = range(20_000, 32_000)


class Broker:
    """One broker, with the ports and the data it keeps over `kill()`, `stop()` and `restart()`.

    `bootstrap` is `127.0.0.1:port`, `pid` the broker's process id (0 while it doesn't run), `log_file` its own log.
    Leaving the context, or `close()`, stops it and removes a data directory that was made for it.

    Args:
        advertise_at: the port of a proxy. The broker then has a second listener (`behind_proxy`), whose clients are told
            to come to that port: none of them goes past the proxy.
        heap_mb: of the JVM, at most.
        cluster_id: of an empty data directory; a new one by itself.
        features: levels that an empty data directory is given instead of the newest ones, as `{"transaction.version": 0}`.
        lasting: it runs for long and is measured, so that what it does often is compiled as well as in production.
    """

    def __init__(
        self,
        parts: Parts,
        data_dir: Path | None,
        extra: Mapping[str, str],
        *,
        guarded: bool,
        advertise_at: int | None = None,
        heap_mb: int = HEAP_MB,
        cluster_id: str = "",
        features: Mapping[str, int] | None = None,
        lasting: bool = False,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="qmtl-broker-") if data_dir is None else None
        self._directory = Path(self._temporary.name) if self._temporary else (data_dir or Path()).absolute()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._parts = parts
        self._extra = dict(extra)
        self._guarded = guarded
        self._process: subprocess.Popen[bytes] | None = None
        self._advertise_at = advertise_at
        self._heap_mb = heap_mb
        self._cluster_id = cluster_id or new_cluster_id()
        self._features = dict(features or {})
        self._jvm_options = (*JVM_OPTIONS, *(() if lasting else QUICK_JVM_OPTIONS))
        self.choose_other_ports()
        self._project = f"qmtl-broker-{uuid.uuid4().hex[:12]}"
        self.pid = 0

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def controller(self) -> str:
        """Where the node's controller listens."""
        return f"127.0.0.1:{self._controller_port}"

    @property
    def behind_proxy(self) -> str:
        """Where the proxy at `advertise_at` forwards to."""
        return f"127.0.0.1:{self._second_port}"

    @property
    def data_dir(self) -> Path:
        """Where its partitions lie."""
        return self._directory / "data"

    @property
    def log_file(self) -> Path:
        return self._directory / "server.log"

    @property
    def properties_file(self) -> Path:
        return self._directory / "server.properties"

    @property
    def mark(self) -> str:
        """What stands in this broker's command line and in no other's."""
        return str(self.properties_file) if isinstance(self._parts, Jvm) else self._project

    @property
    def clean_up(self) -> list[list[str]]:
        """Command lines to run once the process has ended; containers and their volumes outlive the client."""
        return [[*self._compose_prefix(), "down", "--volumes"]] if isinstance(self._parts, Containers) else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts on the same ports and data and returns when an AdminClient got an answer.

        Raises:
            NoBroker: it ended or stayed silent; the text carries the last lines it wrote.
        """
        if self.running():
            return
        if isinstance(self._parts, Jvm):
            self._write_properties()
            self._format(self._parts)
        self._launch()
        try:
            wait_until_it_answers(self.bootstrap, START_SECONDS, self.running)
        except NoBroker as silent:
            written = self._last_words()
            self.kill()
            raise NoBroker(f"{silent.what} It wrote:\n{written}", silent.remedy) from silent

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """SIGTERM, patience, SIGKILL; returns when the process is gone. The data stays for `restart()`."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)
            if not self._gone_within(STOP_SECONDS):
                self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL, as a power cut would: nothing is flushed or handed over. Returns when the process is gone."""
        if isinstance(self._parts, Containers):
            run_quietly([*self._compose_prefix(), "kill", "kafka"])
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
            self._gone_within(STOP_SECONDS)
        self._forget()

    def restart(self) -> None:
        """Stops it if it runs and starts it on the same ports and data, so that clients find it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stops it and removes the data directory if it was made for this broker."""
        self.stop()
        for command in self.clean_up:
            run_quietly(command)
        if self._temporary is not None:
            self._temporary.cleanup()

    # ---- parts of it ------------------------------------------------------------------------------------------

    def choose_other_ports(self) -> None:
        """For a first start that failed: another program may have taken a port between its choice and its use."""
        self._port, self._controller_port, self._second_port = free_ports(3)

    def configure(self, more: Mapping[str, str]) -> None:
        """Add lines of `server.properties`; they count from the next start."""
        self._extra.update(more)

    def _command(self) -> list[str]:
        if isinstance(self._parts, Jvm):
            return [*self._java(self._parts), "kafka.Kafka", str(self.properties_file)]
        # The compose client reads the port from its environment, which `env` sets for the guard as well.
        return ["env", f"QMTL_KAFKA_PORT={self._port}", *self._compose_prefix(), "up", "--no-color", "kafka"]

    def _java(self, jvm: Jvm) -> list[str]:
        return [
            *(str(jvm.java), f"-Xms{min(128, self._heap_mb)}m", f"-Xmx{self._heap_mb}m", *self._jvm_options),
            f"-Dlog4j2.configurationFile={recipe() / 'log4j2.properties'}",
            f"-Dkafka.log.file={self.log_file}",
            *("-cp", f"{jvm.libs}/*"),
        ]

    def _write_properties(self) -> None:
        more = {**self._second_listener(), **self._extra}
        lines = "".join(f"{key}={value}\n" for key, value in sorted(more.items()))
        text = Template((recipe() / "server.properties.template").read_text(encoding="utf-8") + lines)
        filled = text.substitute(
            port=self._port, controller_port=self._controller_port, data_dir=self._directory / "data"
        )
        self.properties_file.write_text(filled, encoding="utf-8")

    def _second_listener(self) -> dict[str, str]:
        if self._advertise_at is None:
            return {}
        first = f"PLAINTEXT://{self.bootstrap}"
        return {
            "listeners": f"{first},PROXIED://{self.behind_proxy},CONTROLLER://{self.controller}",
            "advertised.listeners": f"{first},PROXIED://127.0.0.1:{self._advertise_at}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }

    def _format(self, jvm: Jvm) -> None:
        """Gives an empty data directory its cluster id; one that has an id keeps it."""
        if (self._directory / "data" / "meta.properties").exists():
            return
        # `--cluster-id=` in one word, since an id may begin with a dash.
        command = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={self._cluster_id}",
            "-c",
            str(self.properties_file),
            *(f"--feature={name}={level}" for name, level in sorted(self._features.items())),
        ]
        said = subprocess.run(
            [*self._java(jvm), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode != 0:
            raise NoBroker(
                f"The broker's storage could not be formatted: {last_line(said.stderr or said.stdout)}.",
                REMEDY,
            )

    def _launch(self) -> None:
        output = self._directory / "output.log"
        if not self._guarded:
            with output.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self.pid = self._process.pid
            return
        spec = {
            "command": self._command(),
            "log": str(output),
            "parent": os.getpid(),
            "remove": [self._temporary.name] if self._temporary else [],
            "afterwards": self.clean_up,
        }
        # A session of its own: Ctrl-C reaches the tests, whose end stops the broker, and not the broker at once.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", broker_guard.__file__, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        first = read_line(self._process.stdout)
        if not first:
            self._process.wait()
            raise NoBroker(f"The broker's process could not be started: {spec['command']}.", REMEDY)
        self.pid = int(first)

    def _gone_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _forget(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None
        self.pid = 0

    def _last_words(self) -> str:
        files = [file for file in (self._directory / "output.log", self.log_file) if file.exists()]
        lines = [
            line for file in files for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        ]
        return "\n".join(lines[-20:])

    def _compose_prefix(self) -> list[str]:
        assert isinstance(self._parts, Containers)
        return [*self._parts.compose, "--project-name", self._project, "--file", str(self._parts.file)]


def start_broker(
    data_dir: Path | None = None,
    *,
    extra: Mapping[str, str] | None = None,
    guarded: bool = True,
    advertise_at: int | None = None,
    features: Mapping[str, int] | None = None,
    lasting: bool = False,
) -> Broker:
    """A broker of one's own, running and answering.

    Args:
        data_dir: where its data, configuration and log lie; without one a temporary directory that `close()` removes.
            A directory of an earlier broker is continued.
        extra: lines of `server.properties` that are added and win over the recipe's; `$port` and `$controller_port` stand for
            the broker's own, `$$` for a dollar sign.
        guarded: False lets it outlive this process.
        advertise_at: the port of a proxy (`qmtl.testing.proxy`) that a second listener sends its clients to.
        features: levels of features that an empty data directory is formatted with; the newest ones by themselves.
        lasting: for measurements: it takes longer to start, and is as fast as in production after a minute or two.

    Raises:
        NoBroker: no way to a broker is open here, or QMTL_TEST_BROKER=none forbids one.
    """
    if os.environ.get("QMTL_TEST_BROKER") == "none":
        raise NoBroker("QMTL_TEST_BROKER=none forbids to start a broker.", "Unset it to run one.")
    parts = find_parts(os.environ)
    if advertise_at is not None and not isinstance(parts, Jvm):
        raise NoBroker("A second listener needs a local JVM; a container engine was found.", REMEDY)
    if features and not isinstance(parts, Jvm):
        raise NoBroker("Levels of features need a local JVM; a container engine was found.", REMEDY)
    broker = Broker(
        parts,
        data_dir,
        extra or {},
        guarded=guarded,
        advertise_at=advertise_at,
        features=features,
        lasting=lasting,
    )
    try:
        for _ in range(START_TRIES - 1):
            try:
                broker.start()
                return broker
            except NoBroker as failed:
                if "BindException" not in failed.what and "Address already in use" not in failed.what:
                    raise
                broker.choose_other_ports()
        broker.start()
    except BaseException:
        broker.close()
        raise
    return broker


def find_bootstrap() -> str | None:
    """The address in QMTL_TEST_BOOTSTRAP, once a broker answered there; None if it is not set.

    Raises:
        NoBroker: it is set and nothing answers: a test run never falls back from a broker that was asked for.
    """
    named = os.environ.get("QMTL_TEST_BOOTSTRAP")
    if not named:
        return None
    wait_until_it_answers(named, 10.0, lambda: True)
    return named


@contextmanager
def any_broker(*, lasting: bool = False) -> Iterator[str]:
    """The address of a broker: the one that is named in QMTL_TEST_BOOTSTRAP, else one that lives as long as the context.

    Args:
        lasting: as in `start_broker`.
    """
    named = find_bootstrap()
    if named is not None:
        yield named
        return
    with start_broker(lasting=lasting) as broker:
        yield broker.bootstrap


def wait_until_it_answers(bootstrap: str, seconds: float, alive: Callable[[], bool]) -> None:
    """Returns when the port listens and an AdminClient got the list of brokers.

    Raises:
        NoBroker: not within `seconds`, or `alive` says no before that.
    """
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    if not host or not port.isdecimal():
        raise NoBroker(f"{bootstrap!r} is no address.", "Write host:port.")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive():
            raise NoBroker(f"The broker for {bootstrap} ended before it answered.", REMEDY)
        try:
            # The port first: a client that is refused waits longer and longer between its tries.
            socket.create_connection((host, int(port)), timeout=1.0).close()
            admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
            if admin.list_topics(timeout=5.0).brokers:
                return
        except (OSError, KafkaException):
            pass
        time.sleep(0.05)
    raise NoBroker(f"No broker answered at {bootstrap} within {seconds:.0f} s.", REMEDY)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise NoBroker(f"No free port on 127.0.0.1 from {PORTS.start} to {PORTS.stop - 1}.", REMEDY)


def new_cluster_id() -> str:
    """22 characters of base64, as Kafka's storage tool wants them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")


def run_quietly(command: list[str]) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def read_line(pipe: IO[bytes] | None) -> bytes:
    return pipe.readline() if pipe is not None else b""


# ---- python -m qmtl.testing.broker -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """The broker that `start` left running, as `run.json` names it."""

    pid: int
    bootstrap: str
    mark: str
    clean_up: list[list[str]]


def prepare_command(directory: Path) -> int:
    """Finds the way that tests will take, and fetches what it needs, so that no test's time limit counts a download."""
    if os.environ.get("QMTL_TEST_BROKER") == "none":
        print("broker: none (QMTL_TEST_BROKER=none)")
    elif (named := find_bootstrap()) is not None:
        print(f"broker: {named} (QMTL_TEST_BOOTSTRAP)")
    else:
        match find_parts(os.environ):
            case Jvm(java, libs):
                print(f"broker: {java} with the jars in {libs}")
            case Containers(compose, file):
                print(f"broker: {' '.join(compose)} with {file}")
    return 0


def start_command(directory: Path) -> int:
    run_file = directory / "run.json"
    run = read_run(run_file)
    if run is None:
        broker = start_broker(directory / "data", guarded=False)
        run = Run(broker.pid, broker.bootstrap, broker.mark, broker.clean_up)
        run_file.write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")
    print(f"broker: {run.bootstrap} (process {run.pid}, files in {directory / 'data'})")
    print(f"next:   qmtl demo --log kafka://{run.bootstrap}")
    return 0


def stop_command(directory: Path) -> int:
    run_file = directory / "run.json"
    run = read_run(run_file)
    if run is None:
        print("broker: none is running")
    else:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            if read_run(run_file) is None:
                break
            os.kill(run.pid, kind)
            deadline = time.monotonic() + STOP_SECONDS
            while read_run(run_file) is not None and time.monotonic() < deadline:
                time.sleep(0.05)
        for command in run.clean_up:
            run_quietly(command)
        print(f"broker: {run.bootstrap} stopped")
    run_file.unlink(missing_ok=True)
    return 0


def status_command(directory: Path) -> int:
    run = read_run(directory / "run.json")
    print("broker: none is running" if run is None else f"broker: {run.bootstrap} (process {run.pid})")
    return 1 if run is None else 0


def read_run(run_file: Path) -> Run | None:
    """What `start` wrote, if that very process still runs: a process id alone may be another program's by now."""
    try:
        run = Run(**json.loads(run_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    return run if run.mark in command_line(run.pid) else None


def command_line(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        try:
            return proc.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""
    said = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return said.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m qmtl.testing.broker", description="A Kafka broker on this machine."
    )
    parser.add_argument("verb", choices=["prepare", "start", "stop", "status"])
    parser.add_argument(
        "--dir", type=Path, default=None, help="where run.json and the data lie (default: .broker)"
    )
    chosen = parser.parse_args(arguments)
    directory: Path = (chosen.dir or cache_dir(os.environ)).absolute()
    verbs = {
        "prepare": prepare_command,
        "start": start_command,
        "stop": stop_command,
        "status": status_command,
    }
    try:
        return verbs[chosen.verb](directory)
    except QmtlError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
