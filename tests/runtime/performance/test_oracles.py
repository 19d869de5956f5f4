"""Each outside value of `kpi_oracles.json` against ours; where ours differs on purpose, `kpi_deviations.json` says so and why.

The values were stated by the tests of empyrical-reloaded (Apache-2.0), Lean (Apache-2.0) and Nautilus Trader (LGPL-3.0): numbers re-typed, no code. Each
row names the commit, file and lines.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.performance.oracle_answers import Answer, NotOffered, Row, answer

HERE = Path(__file__).parent
ROWS: list[Row] = json.loads((HERE / "kpi_oracles.json").read_text())
DEVIATIONS: dict[str, dict[str, Any]] = json.loads((HERE / "kpi_deviations.json").read_text())
FIELDS: dict[str, str] = DEVIATIONS.pop("fields of trade_statistics")


def tolerance(row: Row) -> float:
    words = row["tolerance"].split()
    return float(words[1]) if words[0] == "abs" else 1e-10


def agrees(expected: Any, ours: Answer, within: float) -> bool:
    """NaN and infinity are no values of ours; they agree with none only where the other says NaN."""
    if isinstance(expected, list):
        return len(expected) == len(ours) and all(
            agrees(one, other, within) for one, other in zip(expected, ours, strict=True)
        )
    if isinstance(expected, dict):
        return all(agrees(one, ours[name], within) for name, one in expected.items() if name not in FIELDS)
    if expected == "NaN":
        return ours is None
    return ours is not None and math.isclose(float(ours), float(expected), rel_tol=within, abs_tol=within)


@pytest.mark.parametrize(
    "row", [one for one in ROWS if one["id"] not in DEVIATIONS], ids=lambda one: f"{one['id']}-{one['kpi']}"
)
def test_ours_is_the_outside_value(row: Row) -> None:
    ours = answer(row)
    assert agrees(row["expected"], ours, tolerance(row)), (ours, row)


@pytest.mark.parametrize("row", [one for one in ROWS if one["id"] in DEVIATIONS], ids=lambda one: one["id"])
def test_a_row_that_is_listed_as_other_is_other(row: Row) -> None:
    told = DEVIATIONS[row["id"]]
    assert len(told["reason"]) > 20
    if "ours" not in told:
        with pytest.raises(NotOffered):
            answer(row)
        return
    ours = answer(row)
    assert not agrees(row["expected"], ours, tolerance(row))
    stated = "NaN" if told["ours"] is None else told["ours"]
    if isinstance(stated, dict):
        stated = {name: "NaN" if one is None else one for name, one in stated.items()}
    assert agrees(stated, ours, 1e-9), ours


def test_each_row_is_asked_once_and_nothing_else_is_listed() -> None:
    names = [one["id"] for one in ROWS]
    assert len(ROWS) == len(set(names)) == 178
    assert set(DEVIATIONS) <= set(names)
    stated = {name for one in ROWS if one["kpi"] == "trade_statistics" for name in one["expected"]}
    assert set(FIELDS) <= stated
