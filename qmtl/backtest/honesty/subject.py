"""What is checked, before and after its functions are loaded, and what a process answers that can't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qmtl.backtest.honesty.change import Bars
from qmtl.backtest.honesty.program import Program
from qmtl.foundation.common.errors import QmtlError
from qmtl.runtime.sdk.python_node import ComputeFn


@dataclass(frozen=True, slots=True)
class Place:
    """Where the function of a node is.

    Attributes:
        file: of its module, for one that can't be imported by its name; None where nobody knows.
    """

    node_id: str
    code: str
    code_hash: str
    file: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What is checked, before its functions are loaded."""

    program: Program
    bars: Bars
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """In place of an answer.

    Attributes:
        error: one with a code.
        trace: of any other.
    """

    error: QmtlError | None
    trace: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is checked, in the process in which it runs."""

    program: Program
    bars: Bars
    functions: Mapping[str, ComputeFn]
