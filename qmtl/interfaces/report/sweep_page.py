"""A sweep as one HTML page: no script, no network; a heat map of two parameters, the best combinations, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from qmtl.backtest.sweep.space import Parameter, value_text
from qmtl.backtest.sweep.sweep import Row, Swept
from qmtl.interfaces.report import words
from qmtl.interfaces.report.heat import MAX_SIDE, Cell, heat_map
from qmtl.interfaces.report.page import POLICY
from qmtl.interfaces.report.style import CSS
from qmtl.interfaces.report.words import shown
from qmtl.runtime.performance.kpi import Figure

ROWS_SHOWN: Final = 100
MATRIX_SIDE: Final = 40
"""Values of a parameter up to which the map is written as a table, too."""

SHOWN: Final = ("total_return", "sharpe", "max_drawdown", "trades")
"""Figures of a combination beside that by which they are ranked."""

_CSS: Final = "svg .cell{text-anchor:middle;font-size:10px}svg rect{shape-rendering:crispEdges}"


def sweep_page(
    swept: Swept,
    by: Figure,
    figures: Sequence[Figure],
    settings: Mapping[str, str],
    *,
    ascending: bool = False,
) -> str:
    """The whole file, UTF-8.

    Args:
        by: the figure by which it is ranked.
        figures: those that a row has, whose values don't count here.
        settings: what the sweep was of, by name.
    """
    ranked = swept.ranked(by.name, ascending=ascending)
    name = settings.get("Strategy", "")
    title = f"{name}: sweep of {', '.join(one.name for one in swept.plan.space.parameters)}"
    sections = [
        ("map", "Heat map", _map(swept, by, ascending=ascending)),
        ("best", f"By {by.title}", _best(swept, ranked, by, figures)),
        ("failed", "Failed", _failed(swept)),
        ("run", "Settings and identity", _pairs(settings.items())),
        ("definitions", "How to read it", _definitions(by)),
    ]
    jumps = "".join(f'<a href="#{name}">{shown(heading)}</a>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}" class="long"><h2>{shown(heading)}</h2>{content}</section>'
        for name, heading, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{shown(title)}</title><style>{CSS}{_CSS}</style></head><body>"
        f'<header><h1>{shown(title)}</h1><p class="dim">{_counted(swept)}</p><nav aria-label="Sections">{jumps}</nav></header>'
        f"<main>{body}</main></body></html>\n"
    )


def _counted(swept: Swept) -> str:
    plan = swept.plan
    return shown(
        f"{len(swept.rows):,} combinations, {swept.failed:,} failed · {plan.nodes_unique:,} different nodes of {plan.nodes_asked:,} that were asked for"
    )


# ---- the map ----------------------------------------------------------------------------------------------------


def _map(swept: Swept, by: Figure, *, ascending: bool) -> str:
    varied = [one for one in swept.plan.space.parameters if len(one.values) > 1]
    if len(varied) < 2:
        return _empty("There is a map where two parameters have several values each.")
    across, up = _axes(varied)
    if len(across.values) > MAX_SIDE:
        return _empty(
            f"A map shows {MAX_SIDE} values of a parameter at most; all combinations are in the CSV."
        )
    cells = _cells(swept, by, across, up, ascending=ascending)

    def write(value: float) -> str:
        return words.figure(replace(by, value=value))

    x, y = (tuple(value_text(value) for value in one.values) for one in (across, up))
    drawn = heat_map(by.title, (across.name, x), (up.name, y), cells, write)
    others = [one.name for one in varied if one not in (across, up)]
    told = f"{by.title} by {across.name} and {up.name}."
    if others:
        told += f" Of all values of {', '.join(others)} the {'least' if ascending else 'greatest'} is shown."
    table = _matrix(across.name, x, up.name, y, cells, write) if len(x) <= MATRIX_SIDE else ""
    return f"<figure>{drawn}<figcaption>{shown(told)}</figcaption></figure>{table}"


def _axes(varied: Sequence[Parameter]) -> tuple[Parameter, Parameter]:
    """The two parameters with most values; the one with more of them lies across."""
    ordered = sorted(varied, key=lambda one: -len(one.values))
    return ordered[0], ordered[1]


def _cells(
    swept: Swept, by: Figure, across: Parameter, up: Parameter, *, ascending: bool
) -> dict[tuple[int, int], Cell]:
    """The best combination of each pair of values."""
    places = [{value: at for at, value in enumerate(one.values)} for one in (across, up)]
    cells: dict[tuple[int, int], Cell] = {}
    for row in swept.ranked(by.name, ascending=ascending):
        values = dict(row.combination.values)
        pair = (places[0][values[across.name]], places[1][values[up.name]])
        if pair not in cells:
            amount = row.amount(by.name)
            value = None if amount is None else float(amount)
            cells[pair] = Cell(value, f"{row.combination.told()}: {_told(row, by)}", bool(row.done.code))
    return cells


def _told(row: Row, by: Figure) -> str:
    if row.done.code:
        return f"failed, {row.done.code} {row.done.fault}"
    return f"{by.title} {written(row, by)}, fills {row.done.fills}"


def _matrix(
    across: str,
    x: Sequence[str],
    up: str,
    y: Sequence[str],
    cells: Mapping[tuple[int, int], Cell],
    write: Callable[[float], str],
) -> str:
    head = "".join(f'<th scope="col">{shown(one)}</th>' for one in x)
    rows = []
    for at_y in reversed(range(len(y))):
        row = [_in_matrix(cells.get((at_x, at_y)), write) for at_x in range(len(x))]
        rows.append(f'<tr><th scope="row">{shown(y[at_y])}</th>{"".join(row)}</tr>')
    return (
        f'<details><summary>The map as a table</summary><div class="scroll"><table class="heat"><thead><tr><th scope="col">{shown(f"{up} / {across}")}</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _in_matrix(cell: Cell | None, write: Callable[[float], str]) -> str:
    if cell is None:
        return "<td></td>"
    text = "failed" if cell.failed else words.NONE if cell.value is None else write(cell.value)
    return f"<td>{shown(text)}</td>"


# ---- tables -----------------------------------------------------------------------------------------------------


def shown_figures(by: Figure, figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """The figures that stand in a row for people: the one by which they are ranked first, then `SHOWN`."""
    return (by, *(one for name in SHOWN for one in figures if one.name == name and name != by.name))


def _best(swept: Swept, ranked: Sequence[Row], by: Figure, figures: Sequence[Figure]) -> str:
    names = [one.name for one in swept.plan.space.parameters]
    chosen = shown_figures(by, figures)
    told = [one for one in ranked if not one.done.code]
    heads = ["#", *names, *(one.title for one in chosen), "Fills", "Strategy"]
    head = "".join(f'<th scope="col" class="n">{shown(one)}</th>' for one in heads)
    rows = []
    for place, row in enumerate(told[:ROWS_SHOWN], 1):
        cells = [f"{place:,}", *(value_text(value) for _, value in row.combination.values)]
        cells += [written(row, one) for one in chosen] + [f"{row.done.fills:,}", row.strategy_id]
        rows.append("<tr>" + "".join(f'<td class="n">{shown(one)}</td>' for one in cells) + "</tr>")
    more = f"The first {ROWS_SHOWN} of {len(told):,}; all are in the CSV." if len(told) > ROWS_SHOWN else ""
    return (
        f'<p class="dim">{shown(more)}</p><div class="scroll"><table class="trades"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def written(row: Row, figure: Figure) -> str:
    return words.figure(replace(figure, value=row.amount(figure.name)))


def _failed(swept: Swept) -> str:
    failed = [one for one in swept.rows if one.done.code]
    if not failed:
        return _empty("None.")
    rows = [
        f'<tr><th scope="row">{shown(one.combination.told())}</th><td>{shown(one.done.code)}</td><td>{shown(one.done.fault)}</td></tr>'
        for one in failed[:ROWS_SHOWN]
    ]
    more = (
        f'<p class="dim">The first {ROWS_SHOWN} of {len(failed):,}; all are in the CSV.</p>'
        if len(failed) > ROWS_SHOWN
        else ""
    )
    return f'{more}<div class="scroll"><table class="names"><tbody>{"".join(rows)}</tbody></table></div>'


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    made = "".join(
        f'<tr><th scope="row">{shown(name)}</th><td>{shown(value)}</td></tr>' for name, value in rows
    )
    return f'<div class="scroll"><table class="names"><tbody>{made}</tbody></table></div>'


def _definitions(by: Figure) -> str:
    told = (
        f"{by.title}: {by.formula}.",
        "The best of many is partly chance: it was chosen for how it did on these very bars. Try it on others before it is believed.",
        "A peak among bad neighbours is more likely to be chance than one of a plain of good ones.",
        "Every combination is a strategy of its own with an account of its own, as if it had run alone.",
        f"{words.NONE} is a figure that is undefined, × a combination that failed; a pair without a cell was not tried.",
    )
    return "<ul>" + "".join(f"<li>{shown(one)}</li>" for one in told) + "</ul>"


def _empty(told: str) -> str:
    return f'<p class="empty">{shown(told)}</p>'
