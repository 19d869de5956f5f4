"""The laws of a sheet: its rows count before they are written, and none is taken that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmtl.foundation.common.errors import TooLarge
from qmtl.foundation.contracts.dag import DagOutcome
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.services.dagmanager.sheet import Sheet
from tests.services.dagmanager.desk import Desk


def outcome(name: str, detail: str = "") -> DagOutcome:
    return DagOutcome(name, "w1", "s1", False, "QMTL-500", detail)


def test_rows_count_on_top_of_the_tables_and_reach_them_when_they_are_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.table("dag.diffs").put(outcome("a", "old"))
    sheet = Sheet(desk.table)
    sheet.put("dag.diffs", outcome("b"))
    assert (sheet.get("dag.diffs", "a"), sheet.get("dag.diffs", "b")) == (outcome("a", "old"), outcome("b"))
    assert sheet.get("dag.diffs", "c") is None
    sheet.put("dag.diffs", outcome("a", "new"))
    assert sheet.get("dag.diffs", "a") == outcome("a", "new")
    assert desk.rows("dag.diffs") == [outcome("a", "old")]
    sheet.write()
    assert desk.rows("dag.diffs") == [outcome("a", "new"), outcome("b")]
    desk.close()


def test_a_row_that_cant_be_written_is_not_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    sheet = Sheet(desk.table)
    with pytest.raises(TooLarge):
        sheet.put("dag.diffs", outcome("a", "x" * MAX_VALUE_BYTES))
    sheet.write()
    assert desk.rows("dag.diffs") == []
    desk.close()
