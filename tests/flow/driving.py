"""Drives the real command line as processes of its own, and reads what they say."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from qmtl.bootstrap import open_log
from qmtl.foundation.wire.registry import codec
from qmtl.replay.digest import digests

ROOT = Path(__file__).resolve().parents[2]
MARKET = ROOT / "qmtl" / "runtime" / "data" / "market"
SHIPPED = {
    "BTC-USD": MARKET / "coinbase_btc-usd_1m_2018-04-04_06.csv.gz",
    "ETH-USD": MARKET / "coinbase_eth-usd_1m_2018-04-04_05.csv.gz",
}
WORKERS = ("dagmanager", "topicadmin", "worldservice", "nodes", "trading", "oms", "egress")
MINUTES = 400
NO_ENV: Final[Mapping[str, str]] = {}

Result = dict[str, Any]
"""The JSON object that `qmtl demo --json` prints."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a demo runs and on what.

    Attributes:
        log: its address.
        bars: files by symbol; none for the data that is shipped.
    """

    log: str
    state: Path
    bars: Mapping[str, Path]

    def end_ms(self) -> int:
        """When the last bar of the files closes."""
        last = (path.read_text(encoding="utf-8").splitlines()[-1] for path in self.bars.values())
        return max(int(row.split(",")[0]) for row in last) + 60_000

    def demo(self, *more: str) -> list[str]:
        """The command line of the demo."""
        files = [part for symbol, path in self.bars.items() for part in ("--bars", f"{symbol}={path}")]
        return ["demo", "--json", "--log", self.log, "--state-dir", str(self.state), *files, *more]


def embedded(directory: Path, bars: Mapping[str, Path]) -> Place:
    """A place with a log of its own in a directory."""
    return Place(f"embedded:{directory / 'log'}", directory, bars)


@contextmanager
def on_kafka(bootstrap: str, directory: Path, bars: Mapping[str, Path]) -> Iterator[Place]:
    """A place in a namespace of its own, whose topics go at the end: a broker with thousands of them gets slow."""
    namespace = f"flow-{uuid.uuid4().hex[:12]}"
    try:
        yield Place(f"kafka://{bootstrap}/{namespace}", directory, bars)
    finally:
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        names = [name for name in admin.list_topics(timeout=60).topics if name.startswith(f"{namespace}.")]
        for done in admin.delete_topics(names).values() if names else ():
            done.result()


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: this one's, without what would change where it runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QMTL_")}
    path = os.pathsep.join(part for part in (str(ROOT), kept.get("PYTHONPATH", "")) if part)
    return {**kept, "PYTHONPATH": path, **more}


def begin(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    script: Path | None = None,
    env: Mapping[str, str] = NO_ENV,
) -> subprocess.Popen[str]:
    """Start `qmtl …`, or a script with the same arguments."""
    entry = ["-m", "qmtl"] if script is None else [str(script)]
    return subprocess.Popen(
        [sys.executable, *entry, *arguments],
        cwd=cwd,
        env=environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def end(process: subprocess.Popen[str], timeout_s: float = 300) -> Said:
    """Wait for the end of a command; one that does not end is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(
            f"{process.args!r} did not end within {timeout_s} s: {out[-500:]} {err[-2000:]}"
        ) from None
    return Said(process.returncode, out, err)


def qmtl(
    *arguments: str, cwd: Path | None = None, timeout_s: float = 300, env: Mapping[str, str] = NO_ENV
) -> Said:
    """Run one command to its end."""
    return end(begin(arguments, cwd=cwd, env=env), timeout_s)


def result_of(said: Said) -> Result:
    """What a demo printed, which is one JSON object on one line and nothing else."""
    assert said.code == 0, said
    assert said.out.endswith("\n"), said.out[-200:]
    assert said.out.count("\n") == 1, said.out[:500]
    found: Result = json.loads(said.out)
    return found


def run_demo(place: Place, *more: str, cwd: Path | None = None, env: Mapping[str, str] = NO_ENV) -> Result:
    """Run a demo that nothing disturbs."""
    return result_of(qmtl(*place.demo(*more), cwd=cwd, env=env))


def wait_for_line(process: subprocess.Popen[str]) -> None:
    """Wait for the end of the next line on stderr, or of the process; what comes after it stays to be read."""
    assert process.stderr is not None
    while os.read(process.stderr.fileno(), 1) not in (b"\n", b""):
        pass


def kill_at(process: subprocess.Popen[str], delay_s: float) -> Said | None:
    """SIGKILL after a delay; None where it met the process alive, else how the process had ended by itself."""
    try:
        out, err = process.communicate(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None if process.returncode == -signal.SIGKILL else Said(process.returncode, "", "")
    return Said(process.returncode, out, err)


def digests_of(address: str) -> dict[str, str]:
    """The digest of every topic of a log, read from outside."""
    log = open_log(address, read_only=True)
    try:
        return digests(log, codec)
    finally:
        log.close()


def write_bars(directory: Path, minutes: int = MINUTES) -> dict[str, Path]:
    """The first bars of the shipped files, as plain CSV."""
    directory.mkdir(parents=True, exist_ok=True)
    out = {}
    for symbol, source in SHIPPED.items():
        with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
            head, *rows = file.read().splitlines()
        first = int(rows[0].split(",")[0])
        kept = [row for row in rows if int(row.split(",")[0]) < first + minutes * 60_000]
        out[symbol] = directory / f"{symbol.lower()}.csv"
        out[symbol].write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    return out


def differences(found: Result, wanted: Result) -> list[str]:
    """The topics and tables in which two runs differ."""
    out = [
        f"tables.{name}" for name in wanted["tables"] if found["tables"].get(name) != wanted["tables"][name]
    ]
    names = sorted({*found["digests"], *wanted["digests"]})
    return out + [name for name in names if found["digests"].get(name) != wanted["digests"].get(name)]
