"""The tables of outside values, and the rule that none of their rows is passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parents[2] / "oracles"


class Table:
    """One table with its deviations.

    Attributes:
        rows: of the table, by id.
        deviations: by id.
    """

    def __init__(self, name: str) -> None:
        rows = json.loads((TABLES / f"{name}.json").read_text())
        listed = json.loads((TABLES / "deviations" / f"{name}.json").read_text())
        self.rows: dict[str, dict[str, Any]] = {row["id"]: row for row in rows}
        self.deviations: dict[str, dict[str, str]] = {row["id"]: row for row in listed}
        assert len(self.rows) == len(rows)
        assert len(self.deviations) == len(listed)

    def run(self) -> list[str]:
        """The ids of the rows that have to come out as they say."""
        return [id_ for id_ in self.rows if id_ not in self.deviations]

    def conventions(self) -> list[str]:
        """The ids of the rows that have to come out otherwise."""
        return [id_ for id_, row in self.deviations.items() if row["kind"] == "convention"]

    def assert_complete(self) -> None:
        assert set(self.run()) | set(self.deviations) == set(self.rows)
        assert all(row["kind"] in ("convention", "out of scope") for row in self.deviations.values())
        assert all(row["reason"] for row in self.deviations.values())
