"""What authors of processors and strategies test with; everything is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmtl.testing.nodes import outputs_of
    from qmtl.testing.simulation import (
        Close,
        Mark,
        Moment,
        Outcome,
        Simulated,
        crash,
        simulate,
        simulate_strategy,
    )

__all__ = [
    "Close",
    "Mark",
    "Moment",
    "Outcome",
    "Simulated",
    "crash",
    "outputs_of",
    "simulate",
    "simulate_strategy",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"qmtl.testing.{'nodes' if name == 'outputs_of' else 'simulation'}"), name)
