"""The processes of a check, from the side of whoever asks them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from qmtl.backtest.honesty.conditions import Conditions
from qmtl.backtest.honesty.program import Program
from qmtl.backtest.honesty.subject import Place, Refused, Setup
from qmtl.backtest.honesty.told import Trace
from qmtl.backtest.honesty.trial import Trial
from qmtl.foundation.common.errors import CodeMissing, TrialLost, UsageError

_SHOWN = 300
_INSIDE = "QMTL_CHECK_PROCESS"
"""Said in the environment of these processes, so that a module which begins a check while it is imported begins no more of them."""


def places_of(program: Program, packages: Sequence[str] = ()) -> tuple[Place, ...]:
    """Where the functions of a program are.

    Args:
        packages: that may be imported. What was imported before, as the strategy itself, may be imported again.

    Raises:
        CodeMissing: one that lies elsewhere: no message makes anybody import a module.
    """
    found = []
    for one in program.nodes:
        if not one.is_python:
            continue
        module = one.code.partition(":")[0]
        known = sys.modules.get(module)
        if known is None and not any(module == name or module.startswith(f"{name}.") for name in packages):
            raise CodeMissing(
                f"the function {one.code} of {one.name!r} is in no package that was named.",
                f"Name it, such as --code {module.partition('.')[0]}.",
            )
        file = getattr(known, "__file__", None)
        found.append(
            Place(one.node_id, one.code, one.node.code_hash, None if file is None else os.path.abspath(file))
        )
    return tuple(found)


class Process:
    """One process under conditions; it runs each trial where nothing has run before."""

    def __init__(
        self, setup: Path, conditions: Conditions, directory: Path, modules: Sequence[str] = ()
    ) -> None:
        """
        Args:
            setup: a file with what is checked.
            directory: one that is there and empty.
            modules: what is imported before the conditions hold.
        """
        self._answer = directory / "answer"
        self._errors = directory / "errors"
        paths = [os.path.abspath(one) for one in sys.path]
        said = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONHASHSEED": str(conditions.hash_seed),
            "OPENBLAS_NUM_THREADS": "1",  # a process with threads can't be copied whole
            "OMP_NUM_THREADS": "1",
            _INSIDE: "1",
        }
        if conditions.elsewhere:
            said |= {"TZ": "Pacific/Kiritimati", "LANG": "C", "LC_ALL": "C", "HOME": str(directory)}
        with self._errors.open("wb") as errors:
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "qmtl.backtest.honesty.child",
                    str(setup),
                    pickle.dumps(conditions).hex(),
                    *modules,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=said,
                cwd=directory if conditions.elsewhere else None,
                start_new_session=True,  # so that what it makes of itself ends with it
            )

    def ask(self, request: object) -> None:
        """Let it begin; `answer` waits for its end."""
        self._answer.unlink(missing_ok=True)
        assert self._popen.stdin is not None
        try:
            pickle.dump((str(self._answer), request), self._popen.stdin)
            self._popen.stdin.flush()
        except BrokenPipeError:
            raise self._lost() from None

    def answer(self) -> Any:
        """What it was asked for last.

        Raises:
            CodeMissing, CodeDiffers: a function is not found in a process of its own.
            TrialLost: it died, or raised what it should not.
        """
        assert self._popen.stdout is not None
        if not self._popen.stdout.readline() or not self._answer.exists():
            raise self._lost()
        found: Any = pickle.loads(self._answer.read_bytes())
        if isinstance(found, Refused):
            if found.error is not None:
                raise found.error
            raise TrialLost(
                f"a run of a check failed: {found.trace.strip().splitlines()[-1][:_SHOWN]}.",
                "It is a bug: keep the strategy and the data.",
            )
        return found

    def run(self, trial: Trial) -> Sequence[Trace]:
        """A trial, from beginning to end."""
        self.ask(trial)
        traces: Sequence[Trace] = self.answer()
        return traces

    def _lost(self) -> TrialLost:
        said = self._errors.read_text(errors="replace").strip().splitlines()
        why = f": {said[-1][:_SHOWN]}" if said else ""
        return TrialLost(
            f"a process of a check ended before its answer{why}.",
            "A function, or what it calls, ends its process; or the machine has too little memory.",
        )

    def close(self) -> None:
        """End it, and what it has made of itself."""
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        with suppress(ProcessLookupError, PermissionError):  # it has ended already
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


@contextmanager
def processes(
    setup: Setup, conditions: Sequence[Conditions], modules: Sequence[str] = (), count: int = 0
) -> Iterator[Sequence[Process]]:
    """One process under each of these conditions. They start beside each other.

    Args:
        modules: what the first `count` of them import before their conditions hold.

    Raises:
        UsageError: this is one of them already.
    """
    if _INSIDE in os.environ:
        raise UsageError(
            "a check was begun while the module of a strategy was imported.",
            "Put it behind `if __name__ == '__main__':`.",
        )
    with tempfile.TemporaryDirectory(prefix="qmtl-check-") as directory, ExitStack() as stack:
        path = Path(directory) / "setup"
        path.write_bytes(pickle.dumps(setup, protocol=pickle.HIGHEST_PROTOCOL))
        made = []
        for place, one in enumerate(conditions):
            own = Path(directory) / str(place)
            own.mkdir()
            process = Process(path, one, own, modules if place < count else ())
            stack.callback(process.close)
            made.append(process)
        yield made
