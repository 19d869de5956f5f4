"""The rows of one submission: all of them are written, or none where one can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qmtl.engine.table import Table
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import getter, topic


class Sheet:
    """Rows on top of the tables that they are for, where they count as if they were there.

    Args:
        table: the tables by name.
    """

    def __init__(self, table: Callable[[str], Table]) -> None:
        self._table = table
        self._rows: dict[str, dict[Any, Any]] = {}

    def put(self, name: str, row: Any) -> None:
        """Add a row.

        Raises:
            TooLarge: it can't be written.
        """
        codec.encode(row)
        self._rows.setdefault(name, {})[getter(topic(name).key)(row)] = row

    def get(self, name: str, *key: str | int) -> Any:
        """The row with this key, from here or from the table; None where there is none."""
        found = self._rows.get(name, {}).get(key)
        return self._table(name).get(*key) if found is None else found

    def write(self) -> None:
        """Put the rows into their tables, each table's in the order in which they came."""
        for name, rows in self._rows.items():
            for row in rows.values():
                self._table(name).put(row)
