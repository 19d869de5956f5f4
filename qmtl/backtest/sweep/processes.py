"""Engines of one machine: this process, or several of its own."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import current_thread, main_thread
from typing import Final

from qmtl.backtest.sweep.bar_files import BarFile, map_bars, write_bars
from qmtl.backtest.sweep.dispatch import Gone, Heard, Ready, dispatched
from qmtl.backtest.sweep.job import Done, Job, Setting
from qmtl.backtest.sweep.running import JobRunner, prepare
from qmtl.foundation.common.errors import EngineFailed, QmtlError
from qmtl.runtime.columns import BarColumns

_GRACE_S: Final = 5.0
"""So long a process that was told to end may take to."""


class Here:
    """This process alone."""

    def __init__(self, setting: Setting, bars: Mapping[str, BarColumns]) -> None:
        self._runner = JobRunner(setting, bars)

    def map(self, jobs: Sequence[Job]) -> Iterator[Done]:
        for job in jobs:
            yield from self._runner.run(job)

    def close(self) -> None:
        return None


class Processes:
    """Processes of this machine, begun anew and not forked, so that they share nothing but files.

    Bars are written into files once, and mapped by all.
    """

    def __init__(self, setting: Setting, bars: Mapping[str, BarColumns], count: int) -> None:
        self._setting = setting
        self._count = count
        self._directory = tempfile.TemporaryDirectory(prefix="qmtl-sweep-")
        self._crew: _Processes | None = None
        try:
            self._files = write_bars(Path(self._directory.name), bars)
        except OSError as error:
            self.close()
            raise EngineFailed(
                f"the bars can't be written for the processes of the sweep: {error.strerror}.",
                "Make room where TMPDIR is, or run it with --processes 1.",
            ) from None

    def map(self, jobs: Sequence[Job]) -> Iterator[Done]:
        self._crew = _Processes(self._setting, self._files)
        try:
            yield from dispatched(jobs, self._crew, self._count)
        finally:
            self._crew.close()

    def close(self) -> None:
        if self._crew is not None:
            self._crew.close()
        self._directory.cleanup()


@dataclass(frozen=True, slots=True)
class _One:
    process: SpawnProcess
    connection: Connection


class _Processes:
    """The crew of `Processes`: one pipe each."""

    def __init__(self, setting: Setting, files: tuple[BarFile, ...]) -> None:
        self._setting = setting
        self._files = files
        self._ones: dict[int, _One] = {}

    def start(self, worker: int) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, self._setting, self._files), name=f"qmtl-sweep-{worker}", daemon=True
        )
        with _uninterrupted():
            process.start()
            theirs.close()  # so that its end is heard when it dies
            self._ones[worker] = _One(process, ours)

    def give(self, worker: int, job: Job) -> None:
        try:
            self._ones[worker].connection.send(job)
        except OSError:
            return  # it is gone, which is heard

    def hear(self) -> Sequence[tuple[int, Heard]]:
        by_connection = {one.connection: worker for worker, one in self._ones.items()}
        heard = []
        for ready in wait(list(by_connection)):
            assert isinstance(ready, Connection)
            worker = by_connection[ready]
            heard.append((worker, self._said(worker, ready)))
        return heard

    def _said(self, worker: int, connection: Connection) -> Heard:
        try:
            said: object = connection.recv()
        except (EOFError, OSError):
            return self._ended(worker)
        if isinstance(said, Gone):
            self._ended(worker)
            return said
        assert isinstance(said, Ready | Done)
        return said

    def _ended(self, worker: int) -> Gone:
        one = self._ones.pop(worker)
        one.connection.close()
        one.process.join(_GRACE_S)
        code = one.process.exitcode
        if code is None:
            return Gone("it closed its pipe")
        return Gone(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def close(self) -> None:
        """End all of them, whatever they are at."""
        for one in self._ones.values():
            one.process.terminate()
            one.connection.close()
        for one in self._ones.values():
            one.process.join(_GRACE_S)
            if one.process.is_alive():
                one.process.kill()
                one.process.join()
        self._ones.clear()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until a process is begun, and is nothing to that one, from its first moment on: it inherits what is blocked.

    Blocking alone is not enough here, as other threads of this process hear the signal, and Python raises it in the main one.
    """
    came: list[int] = []
    is_main = current_thread() is main_thread()
    usual = signal.signal(signal.SIGINT, lambda number, frame: came.append(number)) if is_main else None
    try:
        resource_tracker.ensure_running()  # before: where it is begun, it lets the signal through again
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    finally:
        if usual is not None:
            signal.signal(signal.SIGINT, usual)
        if came:
            raise KeyboardInterrupt


def serve(connection: Connection, setting: Setting, files: tuple[BarFile, ...]) -> None:
    """What a process of a sweep does: runs jobs as long as somebody gives them."""
    try:
        prepare(setting)
        runner = JobRunner(setting, map_bars(files))
        connection.send(Ready())
        while True:
            job: object = connection.recv()
            assert isinstance(job, Job)
            for done in runner.run(job):
                connection.send(done)
    except QmtlError as refused:  # before it was ready: of a combination it would be a `Done`
        connection.send(Gone(str(refused)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody asks any more
