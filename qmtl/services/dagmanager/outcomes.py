"""What was decided on submissions and commands, until its time is over: memory of the catalogue beside `dag.diffs` and `dag.outcomes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, assert_never

from qmtl.engine.table import Table
from qmtl.foundation.contracts.dag import DagCommandOutcome, DagOutcome
from qmtl.services.dagmanager.lines import Line

Outcome: TypeAlias = DagOutcome | DagCommandOutcome

TABLES: Final = ("dag.diffs", "dag.outcomes")
"""Where it lies what became of submissions, and of commands."""


@dataclass(slots=True)
class Outcomes:
    """The outcomes by when they were decided.

    Attributes:
        lines: by table; apart from them stand rows that do not say when that was.
    """

    tables: Mapping[str, Table] = field(compare=False)
    lines: dict[str, Line] = field(default_factory=lambda: {table: Line() for table in TABLES})

    def restore(self) -> None:
        for table in TABLES:
            for row in self.tables[table].load():
                self._note(row)

    def put(self, outcome: Outcome) -> None:
        """Write down what was decided."""
        self.tables[_table_of(outcome)].put(outcome)
        self._note(outcome)

    def drop(self, table: str, key: str) -> None:
        """Forget what was decided."""
        self.tables[table].delete(key)
        self.lines[table].drop(key)

    def _note(self, outcome: Outcome) -> None:
        self.lines[_table_of(outcome)].put(_key_of(outcome), outcome.decided_ms or None)


def _table_of(outcome: Outcome) -> str:
    return TABLES[0] if isinstance(outcome, DagOutcome) else TABLES[1]


def _key_of(outcome: Outcome) -> str:
    match outcome:
        case DagOutcome():
            return outcome.submission_id
        case DagCommandOutcome():
            return outcome.command_id
        case _:
            assert_never(outcome)
