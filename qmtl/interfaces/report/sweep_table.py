"""The results of a sweep as a table, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qmtl.backtest.sweep.space import Value
from qmtl.backtest.sweep.sweep import Swept
from qmtl.interfaces.report.export import Kind, Table
from qmtl.runtime.performance.kpi import Figure, Unit

PREFIX: Final = "param_"
"""What the columns of parameters begin with, so that none is taken for a figure's."""

_KINDS: Final[dict[Unit, Kind]] = {
    Unit.MONEY: "money",
    Unit.SHARE: "float",
    Unit.NUMBER: "float",
    Unit.COUNT: "integer",
    Unit.DURATION: "integer",
    Unit.INSTANT: "integer",
}


def results_of(swept: Swept, figures: Sequence[Figure]) -> Table:
    """One row of each combination, in their order: its strategy's id, its parameters, all figures, orders, fills and rejections, and what was wrong.

    Args:
        figures: those that a row has, whose values don't count here.
    """
    rows = swept.rows
    columns: dict[str, list[Any]] = {"strategy_id": [one.strategy_id for one in rows]}
    kinds: dict[str, Kind] = {}
    for place, parameter in enumerate(swept.plan.space.parameters):
        name = f"{PREFIX}{parameter.name}"
        columns[name] = [one.combination.values[place][1] for one in rows]
        kinds[name] = _kind(parameter.values[0])
    for figure in figures:
        name = f"{figure.name}_ms" if figure.unit is Unit.INSTANT else figure.name
        columns[name] = [_as(one.amount(figure.name), _KINDS[figure.unit]) for one in rows]
        kinds[name] = _KINDS[figure.unit]
    for name, counts in (
        ("orders", [one.done.orders for one in rows]),
        ("fills", [one.done.fills for one in rows]),
        ("rejections", [one.done.rejections for one in rows]),
    ):
        columns[name] = [None if one.done.code else count for one, count in zip(rows, counts, strict=True)]
        kinds[name] = "integer"
    columns["code"] = [one.done.code or None for one in rows]
    columns["fault"] = [one.done.fault or None for one in rows]
    return Table("results", columns, kinds)


def _as(value: Any, kind: Kind) -> Any:
    return float(value) if kind == "float" and value is not None else value


def _kind(value: Value) -> Kind:
    match value:
        case bool():
            return "truth"
        case int():
            return "integer"
        case float():
            return "float"
        case str():
            return "text"
