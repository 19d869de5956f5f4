"""One Execution Manager: its supervisor, its file, and what it says in its state directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from qmtl.foundation.common.errors import QmtlError
from qmtl.interfaces.execution.events import ManagerEvent, ReloadRefused, StatusLost
from qmtl.interfaces.execution.plan import RunSpec, read_runs
from qmtl.interfaces.execution.policy import RestartAsked, StartAsked, StopAsked
from qmtl.interfaces.execution.state_dir import Asked, RunStatus, Status, statuses, taken, write
from qmtl.interfaces.execution.supervisor import LOOK_S, Standing, Supervisor

_OF: Final[Mapping[Asked, StopAsked | StartAsked | RestartAsked]] = {
    Asked.START: StartAsked(),
    Asked.STOP: StopAsked(),
    Asked.RESTART: RestartAsked(),
}


class Manager:
    """Keeps runs going until they are over. All but `look` belongs to one thread, the one in which it was made.

    Args:
        file: read again when that is asked for.
        command, tell, said: as of a `Supervisor`.
        state_dir: held by the caller.
    """

    def __init__(
        self,
        file: Path,
        runs: Sequence[RunSpec],
        command: Callable[[RunSpec], Sequence[str]],
        state_dir: Path,
        tell: Callable[[ManagerEvent], None],
        said: Callable[[str, bytes], None],
    ) -> None:
        self._file = file
        self._state_dir = state_dir
        self._tell = tell
        self._supervisor = Supervisor(runs, command, tell, said, _now_ms)
        self._standings: tuple[Standing, ...] = ()
        self._shown: tuple[RunStatus, ...] = ()
        self._is_told = False
        self._lost = False
        self._show()

    def look(self) -> tuple[RunStatus, ...]:
        """How the runs stand; any thread may ask."""
        return self._shown

    def keep(
        self, stopped: Callable[[], bool] = lambda: False, reread: Callable[[], bool] = lambda: False
    ) -> None:
        """Returns when all runs are over.

        Args:
            stopped: asked in every round; True stops them all.
            reread: asked in every round; True reads the file again.
        """
        is_stopping = False
        while not self._supervisor.is_over:
            if stopped() and not is_stopping:
                is_stopping = True
                self._supervisor.stop()
            if reread() and not is_stopping:
                self._reload()
            for run, what in taken(self._state_dir):
                self._supervisor.ask(run, _OF[what])
            self._supervisor.round(LOOK_S)
            self._show()

    def close(self) -> None:
        """Kills what is still there."""
        self._supervisor.close()

    def _reload(self) -> None:
        try:
            runs = read_runs(self._file)
        except QmtlError as error:
            self._tell(ReloadRefused(error.code, error.what, error.remedy))
            return
        self._supervisor.reload(runs)

    def _show(self) -> None:
        standings = self._supervisor.standings()
        if standings == self._standings and self._is_told:
            return
        self._standings = standings
        wall_ms = time.time_ns() // 1_000_000
        self._shown = statuses(standings, wall_ms - _now_ms())
        try:
            write(self._state_dir, Status(os.getpid(), str(self._file.resolve()), wall_ms, self._shown))
        except OSError as error:
            if not self._lost:
                self._tell(StatusLost(error.strerror or str(error)))
            self._is_told, self._lost = False, True
        else:
            self._is_told, self._lost = True, False


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
