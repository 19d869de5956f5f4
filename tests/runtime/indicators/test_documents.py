"""docs/indicators.md says of every built-in node what it takes, and when it speaks first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.registry import BUILTINS, TAG_QUERY
from tests.runtime.indicators.cases import CASES, Case, bars, stepped

TEXT = (Path(__file__).parents[3] / "docs" / "indicators.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| `") and not line.startswith("| `node_type`")
]
FIRST: dict[str, Callable[[Case, int], int]] = {
    "1": lambda case, period: 1,
    "1, with `turns_only` the first turn": lambda case, period: (
        3 if "turns_only" in case.params else 1  # where the rows below turn
    ),
    "n": lambda case, period: period,
    "n + 1": lambda case, period: period + 1,
    "n, or n + signal - 1 for signal and histogram": lambda case, period: (
        period if case.params["output"] == "value" else period + int(str(case.params["signal"])) - 1
    ),
    "as soon as one ends": lambda case, period: -(-int(str(case.params["every"])) // 60),
}


def row_of(node_type: str) -> list[str]:
    return next(row for row in ROWS if row[0] == f"`{node_type}`")


def test_every_built_in_node_has_its_row_in_the_order_of_the_registry() -> None:
    assert [row[0].strip("`") for row in ROWS] == list(BUILTINS)


@pytest.mark.parametrize("node_type", sorted(BUILTINS))
def test_a_row_tells_inputs_and_parameters(node_type: str) -> None:
    kind = BUILTINS[node_type]
    _, ports, params, *_ = row_of(node_type)
    assert int(ports) == kind.ports
    told = [name.split("`")[1] for name in params.split(",") if name]
    required = [name.split("`")[1] for name in params.split(",") if name and "optional" not in name]
    found = [refused.what for refused in kind.refusals({"none such": 1}, 5)]
    assert f"it takes {', '.join(told) or 'none'}." in found[0] or set(told) == set(
        found[0].split("it takes ")[1].rstrip(".").split(", ")
    )
    for name in required:
        with pytest.raises(InvalidParameter, match="was missing"):
            kind.parse({other: 1 for other in required if other != name}, 5)


@pytest.mark.parametrize("case", [case for case in CASES if case.node_type != TAG_QUERY], ids=str)
@pytest.mark.parametrize("more", [0, 1, 4])
def test_a_row_tells_when_a_node_speaks_first(case: Case, more: int) -> None:
    period = max(2, case.least) + more  # one input alone has no width
    market = [replace(bar, volume=Decimal(1)) for bar in bars(7, 40)]
    rows: list[Inputs] = [(1.0 + at + at % 3, 2.0 + 3 * (at % 2))[: case.ports] for at in range(40)]
    found, _ = stepped(case, period, rows, market)
    spoken = [at for at, value in enumerate(found, 1) if value is not None]
    assert spoken[0] == FIRST[row_of(case.node_type)[4]](case, period)
