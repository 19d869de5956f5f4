"""A process of a check. It imports the author's modules under conditions of its own, and makes a process out of itself for each trial: so every trial
begins where nothing has run yet.

It is started with the path of what is checked, its conditions, and the modules that requests will need. Then it is told one request after the other, each
with a path for the answer, and says with a line when the answer lies there. What an author's module prints is thrown away.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import random
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from qmtl.backtest.honesty.conditions import Conditions
from qmtl.backtest.honesty.subject import Place, Refused, Setup, Subject
from qmtl.foundation.common.errors import CodeMissing, QmtlError
from qmtl.runtime.sdk.functions import Functions
from qmtl.runtime.sdk.python_node import ComputeFn

_MAIN = "__main__"
_MAIN_HERE = "__qmtl_checked__"
_SHOWN = 200


def load(place: Place) -> ComputeFn:
    """The function.

    Raises:
        CodeMissing, CodeDiffers: it is not where it was, or another one lies there.
    """
    module, _, qualname = place.code.partition(":")
    if module != _MAIN:
        try:
            return Functions([module]).find([place.code], place.code_hash)
        except CodeMissing:
            if place.file is None:
                raise
    name = _MAIN_HERE if module == _MAIN else module
    _import_file(name, place)
    return Functions([name]).find([f"{name}:{qualname}"], place.code_hash)


def _import_file(name: str, place: Place) -> None:
    """Run a file as a module of this name, once."""
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == place.file:
        return
    spec = None if place.file is None else importlib.util.spec_from_file_location(name, place.file)
    if spec is None or spec.loader is None:
        raise CodeMissing(
            f"the function {place.code} lies in no file; a check loads it in processes of its own.",
            "Write it into a file.",
        )
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        spec.loader.exec_module(made)
    except Exception as error:  # whatever an author's module does while it is imported
        said = error.what if isinstance(error, QmtlError) else str(error)
        raise CodeMissing(
            f"the module of the function {place.code} could not be imported: {type(error).__name__} ({said[:_SHOWN]}).",
            "Mend it; what it is to do as a program goes behind `if __name__ == '__main__':`.",
        ) from error


def main(arguments: Sequence[str]) -> None:
    path, held, *modules = arguments
    sys.argv[1:] = []  # what an author's module may read
    setup: Setup = pickle.loads(Path(path).read_bytes())
    conditions: Conditions = pickle.loads(bytes.fromhex(held))
    for one in modules:
        importlib.import_module(one)  # while the clock is the real one
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    kept = conditions.hold()
    refused: QmtlError | None = None
    functions: dict[str, ComputeFn] = {}
    try:
        functions = {place.node_id: load(place) for place in setup.places}
    except QmtlError as error:
        refused = error
    _serve(Subject(setup.program, setup.bars, functions), refused, sys.stdin.buffer, answers)
    del kept


def _serve(subject: Subject, refused: QmtlError | None, requests: BinaryIO, answers: BinaryIO) -> None:
    drawn = random.getstate()
    while True:
        try:
            path, request = pickle.load(requests)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            random.setstate(drawn)  # Python lets a copy of a process draw other numbers
            try:
                answer: Any = request.answer(subject) if refused is None else Refused(refused)
            except QmtlError as error:
                answer = Refused(error)
            except BaseException:  # whatever it is, it is told to whoever asked
                answer = Refused(None, traceback.format_exc())
            Path(path).write_bytes(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))
            os._exit(0)
        os.waitpid(child, 0)
        answers.write(b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
