"""The worker processes of a trial, and who starts them again: a supervisor as an init system is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
PAUSE_S: Final = 0.2
"""Between an end by an error and the next start."""


@dataclass(slots=True)
class Slot:
    """A place for one worker.

    Attributes:
        kept: whether a worker that ends is started again.
        once: whether the next end is the last (a twin that lost its slot must not come back).
        endings: how its workers ended, in order: a signal, an error's kind, or `exit N`.
    """

    name: str
    number: str
    state: Path
    bootstrap: str
    more: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    kept: bool = True
    not_before: float = 0.0
    endings: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    lost_to_a_twin: bool = False

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def has_port(self, port: int) -> bool:
        """Whether its process has a connection with this port of 127.0.0.1 at its own end."""
        process = self.process
        if process is None:
            return False
        with suppress(OSError):  # it has ended
            for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
                fields = line.split()
                if fields[1] == f"0100007F:{port:04X}":
                    wanted = f"socket:[{fields[9]}]"
                    files = list(Path(f"/proc/{process.pid}/fd").iterdir())
                    return any(_target(file) == wanted for file in files)
        return False

    def paused(self) -> bool:
        """Whether its process is stopped by a signal."""
        if not self.running():
            return False
        assert self.process is not None
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] == "T"

    def catches(self, kind: signal.Signals) -> bool:
        """Whether its process has a handler for a signal that would end it otherwise."""
        if self.process is None:
            return False
        with suppress(OSError):  # it has ended
            text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            caught = next(line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:"))
            return bool(int(caught, 16) >> (kind - 1) & 1)
        return False


def _target(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:  # closed meanwhile
        return ""


class Crew:
    """Starts workers in slots, sees them end and starts them again."""

    def __init__(self, directory: Path, bootstrap: str, namespace: str, settings: Sequence[str]) -> None:
        self._directory = directory
        self._bootstrap = bootstrap
        self._namespace = namespace
        self._settings = tuple(settings)
        self.slots: dict[str, Slot] = {}
        self.kills = 0

    def start(
        self,
        name: str,
        *,
        number: str | None = None,
        failpoint: str = "",
        bootstrap: str = "",
        more: Sequence[str] = (),
    ) -> Slot:
        """Start the worker of a slot; a new name makes a slot with a state directory of its own.

        Args:
            number: what the worker is told that its slot is; the name by itself. Twins have two names and one number.
        """
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = Slot(
                name,
                number or name,
                self._directory / f"state-{name}",
                bootstrap or self._bootstrap,
                tuple(more),
            )
        slot.kept = True
        command = [sys.executable, "-m", "tests.campaign.worker", "--bootstrap", slot.bootstrap]
        command += ["--namespace", self._namespace, "--state", str(slot.state), "--slot", slot.number]
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
        with self._errors(slot).open("ab") as errors:
            slot.process = subprocess.Popen(
                [*command, *self._settings, *slot.more],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, "QMTL_FAILPOINT": failpoint},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        return slot

    def _errors(self, slot: Slot) -> Path:
        return self._directory / f"{slot.name}.err"

    def tend(self) -> None:
        """See who ended, and start again whom is to be."""
        now = time.monotonic()
        for slot in list(self.slots.values()):
            if slot.process is not None and slot.process.poll() is not None:
                self._ended(slot, slot.process.returncode)
                slot.process = None
            if slot.process is None and slot.kept and now >= slot.not_before:
                self.start(slot.name)

    def _ended(self, slot: Slot, code: int) -> None:
        if code < 0:
            slot.endings.append(signal.Signals(-code).name)
            return
        kind, what = f"exit {code}", ""
        lines = self._errors(slot).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if code and lines:
            try:
                told = json.loads(lines[-1])
                kind, what = told["kind"], told["what"]
            except (ValueError, KeyError, TypeError):
                kind, what = f"exit {code}", lines[-1]
        slot.endings.append(kind)
        if code:
            slot.said.append(f"{slot.name}: {kind}: {what[:300]}")
            slot.not_before = time.monotonic() + PAUSE_S
            if kind == "Fenced" and any(
                one is not slot and one.number == slot.number and one.running() for one in self.slots.values()
            ):
                slot.kept, slot.lost_to_a_twin = False, True

    def kill(self, slot: Slot, kind: signal.Signals = signal.SIGKILL, *, keep: bool = True) -> bool:
        """Send a signal to a slot's process; says whether it met it alive. SIGKILL is waited for."""
        slot.kept = keep
        if not slot.running():
            return False
        assert slot.process is not None
        slot.process.send_signal(kind)
        if kind == signal.SIGKILL:
            slot.process.wait()
            self.kills += 1
        return True

    def lose_disk(self, slot: Slot) -> None:
        """Remove what a slot has on its disk; its process must not run."""
        shutil.rmtree(slot.state, ignore_errors=True)

    def stacks(self) -> list[str]:
        """Where the workers that run stand, innermost line first."""
        out = []
        for slot in self.alive():
            if not slot.catches(signal.SIGUSR1):
                out.append(f"{slot.name} is starting")
                continue
            assert slot.process is not None
            file = self._errors(slot)
            before = file.stat().st_size
            slot.process.send_signal(signal.SIGUSR1)
            deadline = time.monotonic() + 1.0
            while file.stat().st_size == before and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.1)
            lines = file.read_text(encoding="utf-8", errors="replace")[before:].splitlines()
            found = [line.strip().removeprefix("File ") for line in lines if line.startswith("  File")]
            out.append(f"{slot.name} stands at {' < '.join(found[:6])}")
        return out

    def alive(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.running()]

    def stop(self, patience_s: float = 10.0) -> None:
        """SIGTERM to all, and SIGKILL to who does not end."""
        for slot in self.slots.values():
            slot.kept = False
            if slot.running():
                assert slot.process is not None
                slot.process.send_signal(signal.SIGCONT)
                slot.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        for slot in self.slots.values():
            if slot.process is None:
                continue
            while slot.running() and time.monotonic() < deadline:
                if slot.paused():  # it has come to its point just now
                    slot.process.send_signal(signal.SIGCONT)
                with suppress(subprocess.TimeoutExpired):
                    slot.process.wait(0.05)
            if slot.running():
                slot.process.kill()
                slot.process.wait()
                slot.said.append(f"{slot.name}: did not end on SIGTERM within {patience_s:g} s")
                slot.endings.append("hung")
                continue
            self._ended(slot, slot.process.returncode)
            slot.process = None
