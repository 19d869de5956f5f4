"""The engine on a cluster of Ray's: each worker an actor, the bars once in the memory of each machine. Loaded only when it is asked for."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from qmtl.backtest.sweep.dispatch import Gone, Heard, Ready, dispatched
from qmtl.backtest.sweep.job import Done, Job, Setting
from qmtl.backtest.sweep.running import JobRunner, prepare
from qmtl.foundation.common.errors import EngineFailed, MissingExtra
from qmtl.runtime.columns import BarColumns

_START_S: Final = 120.0
"""So long the first worker may take to begin."""

_CONNECT_S: Final = 5.0
_SHOWN: Final = 300


class RayCluster:
    """Workers of a cluster.

    Machines of the cluster have the same packages as this one, and the strategy's file at the same place.

    Args:
        address: `HOST:PORT` or `auto`; None for a cluster of this machine alone, which ends with the sweep.

    Raises:
        MissingExtra: Ray is not installed.
        EngineFailed: there is no cluster, or it refuses.
    """

    def __init__(
        self, setting: Setting, bars: Mapping[str, BarColumns], count: int, address: str | None
    ) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise MissingExtra(
                "the engine ray was asked for, and Ray is not installed.",
                "Install it: `pip install 'qmtl[ray]'`; or leave --engine out, processes of this machine need nothing.",
            ) from None
        self._setting = setting
        self._count = count
        self._crew: _Actors | None = None
        own = {"num_cpus": count} if address is None else {"address": address}
        try:
            if address is not None:
                _require_listening(address)
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
            self._bars = self._ray.put(dict(bars))
        except Exception as error:  # of whatever type Ray's are: it is reached, or it is not
            self.close()
            raise EngineFailed(
                f"Ray could not be begun or reached{f' at {address}' if address else ''}: {_line(error)}",
                "Start a cluster with `ray start --head`, or name the address of one.",
            ) from error

    def map(self, jobs: Sequence[Job]) -> Iterator[Done]:
        self._crew = _Actors(self._ray, self._setting, self._bars)
        try:
            yield from dispatched(jobs, self._crew, self._count)
        finally:
            self._crew.close()

    def close(self) -> None:
        if self._crew is not None:
            self._crew.close()
        self._ray.shutdown()


class RayWorker:
    """What an actor is."""

    def __init__(self, setting: Setting, bars: Mapping[str, BarColumns]) -> None:
        prepare(setting)
        self._runner = JobRunner(setting, bars)

    def ready(self) -> bool:
        """Whether it was made."""
        return True

    def run(self, job: Job) -> Iterator[Done]:
        """As `JobRunner.run`; each is sent as it comes."""
        yield from self._runner.run(job)


class _Actors:
    """The crew of `RayCluster`."""

    def __init__(self, ray: Any, setting: Setting, bars: Any) -> None:
        self._ray = ray
        self._make = ray.remote(num_cpus=1, max_restarts=0)(RayWorker)
        self._setting = setting
        self._bars = bars
        self._actors: dict[int, Any] = {}
        self._begins: dict[int, Any] = {}
        self._runs: dict[int, Any] = {}
        self._has_begun = False

    def start(self, worker: int) -> None:
        actor = self._actors[worker] = self._make.remote(self._setting, self._bars)
        self._begins[worker] = actor.ready.remote()

    def give(self, worker: int, job: Job) -> None:
        run = self._actors[worker].run
        self._runs[worker] = run.options(num_returns="streaming").remote(job)

    def hear(self) -> Sequence[tuple[int, Heard]]:
        while True:
            open_ = [(worker, one) for told in (self._begins, self._runs) for worker, one in told.items()]
            limit = None if self._has_begun else _START_S
            there, _ = self._ray.wait(
                [one for _, one in open_], num_returns=1, timeout=limit, fetch_local=False
            )
            if not there:
                raise EngineFailed(
                    f"no worker of the cluster began within {_START_S:.0f} s.",
                    "See whether it has a processor to spare: `ray status`.",
                )
            worker = next(worker for worker, one in open_ if one is there[0])
            heard = self._heard(worker)
            if heard is not None:
                return [(worker, heard)]

    def _heard(self, worker: int) -> Heard | None:
        try:
            if worker in self._begins:
                self._ray.get(self._begins.pop(worker))
                self._has_begun = True
                return Ready()
            said: object = self._ray.get(next(self._runs[worker]))
        except StopIteration:
            del self._runs[worker]
            return None
        except self._ray.exceptions.RayError as error:
            self._runs.pop(worker, None)
            self._actors.pop(worker, None)
            return Gone(_line(error))
        assert isinstance(said, Done)
        return said

    def close(self) -> None:
        """End all of them."""
        for one in self._actors.values():
            self._ray.kill(one)
        self._actors.clear()
        self._begins.clear()
        self._runs.clear()


def _require_listening(address: str) -> None:
    """See whether anybody is there: Ray itself would go on trying for minutes.

    Raises:
        OSError: nobody.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), _CONNECT_S).close()


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_SHOWN]
