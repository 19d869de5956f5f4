"""The report as one HTML page: no script, no network, charts drawn into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import numpy as np

from qmtl.foundation.common.money import text
from qmtl.foundation.common.wording import counted
from qmtl.interfaces.report import words
from qmtl.interfaces.report.style import CSS
from qmtl.interfaces.report.svg import MAX_MARKS, Line, Marks, chart
from qmtl.interfaces.report.thin import COLUMNS
from qmtl.interfaces.report.words import shown
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.kpi import Figure, MonthReturn, Performance
from qmtl.runtime.performance.result import RunResult
from qmtl.runtime.performance.trades import Trade

TRADES_SHOWN: Final = 500
SYMBOLS_DRAWN: Final = 12

_CARDS: Final = (
    "total_return",
    "net_profit",
    "cagr",
    "sharpe",
    "sortino",
    "max_drawdown",
    "trades",
    "hit_rate",
    "profit_factor",
    "time_in_market",
    "fees",
    "held_return",
)
_SIGNED: Final = {"total_return", "net_profit", "cagr", "held_return"}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HEAT_FULL: Final = 0.1
"""A return of this size has the full colour."""

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(result: RunResult, performance: Performance) -> str:
    """The whole file, UTF-8."""
    title = f"{result.strategy_id} in {result.world_id}"
    sections = (
        ("equity", "Equity and drawdown", _equity(result, performance)),
        ("trades-on-price", "Trades on price", _prices(result, performance)),
        ("exposure", "Exposure", _exposure(result)),
        ("months", "Monthly returns", _months(performance.months)),
        ("figures", "Figures", _figures(performance.figures)),
        ("trades", "Trades", _trades(performance.trades.closed)),
        ("run", "Settings and identity", _identity(result, performance)),
        ("definitions", "How it was computed", _definitions(performance)),
    )
    jumps = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}"{_long(name)}><h2>{heading}</h2>{content}</section>'
        for name, heading, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{shown(title)}: report of a run</title><style>{CSS}</style></head><body>"
        f'<header><h1>{shown(title)}</h1><p class="dim">{_span(result)}</p><nav aria-label="Sections">{jumps}</nav></header>'
        f"<main>{_cards(performance)}{body}</main></body></html>\n"
    )


def _long(name: str) -> str:
    return ' class="long"' if name in ("trades", "figures", "definitions") else ""


def _span(result: RunResult) -> str:
    curve = result.curve
    end = int(curve.bucket_ms[-1]) if len(curve) else curve.start_ms
    names = ", ".join(result.symbols[:8]) + (
        f" and {len(result.symbols) - 8} more" if len(result.symbols) > 8 else ""
    )
    return shown(
        f"{names} · {words.moment(curve.start_ms)} to {words.moment(end)} UTC · bars of "
        f"{words.duration(result.interval * 1000)} · {result.settings.currency}"
    )


def _cards(performance: Performance) -> str:
    return f'<dl class="cards">{"".join(_card(performance[name]) for name in _CARDS)}</dl>'


def _card(figure: Figure) -> str:
    tone = ""
    if figure.name in _SIGNED and figure.value:
        tone = ' class="gain"' if figure.value > 0 else ' class="loss"'
    return (
        f'<div class="card" title="{shown(figure.formula)}"><dt>{shown(figure.title)}</dt>'
        f"<dd{tone}>{shown(words.figure(figure))}</dd></div>"
    )


# ---- charts -----------------------------------------------------------------------------------------------------


def _ends(result: RunResult) -> tuple[int, int]:
    curve = result.curve
    return curve.start_ms, int(curve.bucket_ms[-1]) if len(curve) else curve.start_ms


def _equity(result: RunResult, performance: Performance) -> str:
    curve = result.curve
    if not len(curve):
        return _empty("The run has no bucket, so there is no curve.")
    times, values = curve.times_ms, curve.values
    lines = []
    key = '<span><i class="equity"></i>equity</span>'
    if performance.benchmark is not None:
        held = np.concatenate(([1.0], performance.benchmark)) * float(curve.initial)
        lines.append(Line(times, held, "held"))
        key += '<span><i class="held"></i>buy and hold of all symbols in equal parts, without costs</span>'
    lines.append(Line(times, values, "equity"))
    span = _ends(result)
    depth = performance["max_drawdown"]
    top = chart(
        "Equity",
        f"from {words.money(curve.initial)} to {words.money(curve.final)} {result.settings.currency}",
        lines,
        span=span,
        height=290,
        label=_compact,
    )
    falls = _empty("Equity never fell below an earlier height.")
    if performance["drawdown_from"].value is not None:
        drawn = chart(
            "Drawdown",
            f"share below the highest equity so far; the deepest is {words.figure(depth)}",
            [Line(times, curve.drawdowns(), "fall", True)],
            span=span,
            height=150,
            label=_percent,
            with_zero=True,
        )
        falls = f"<figure>{drawn}<figcaption>{_depth(performance)}</figcaption></figure>"
    return (
        f'<figure><p class="key dim">{key}</p>{top}<figcaption>Equity in {shown(result.settings.currency)}, '
        f"after fees and slippage.</figcaption></figure><h3>Drawdown</h3>{falls}"
    )


def _depth(performance: Performance) -> str:
    begin, end, back = (performance[name] for name in ("drawdown_from", "drawdown_to", "drawdown_recovered"))
    after = "not recovered by the end" if back.value is None else f"recovered {words.figure(back)}"
    return shown(
        f"Deepest {words.figure(performance['max_drawdown'])}: from {words.figure(begin)} to {words.figure(end)}, {after} (UTC)."
    )


def _prices(result: RunResult, performance: Performance) -> str:
    bars = [one for one in result.bars if len(one)]
    if not bars:
        return _empty("The run has no bars.")
    closed = performance.trades.closed
    drawn = [
        _price(one, [trade for trade in closed if trade.symbol == one.symbol], result)
        for one in bars[:SYMBOLS_DRAWN]
    ]
    key = '<p class="key dim"><span><b class="entry">▲</b>bought</span><span><b class="exit">▼</b>sold</span></p>'
    rest = len(bars) - len(drawn)
    more = f'<p class="dim">{rest} more symbols are not drawn.</p>' if rest else ""
    return key + "".join(drawn) + more


def _price(bars: BarColumns, closed: Sequence[Trade], result: RunResult) -> str:
    own = [one for one in result.fills if one.symbol == bars.symbol]
    marks = []
    for side, style, up in (("BUY", "entry", True), ("SELL", "exit", False)):
        of_side = [one for one in own if one.side.value == side]
        marks.append(
            Marks([one.fill_time_ms for one in of_side], [float(one.price) for one in of_side], style, up)
        )
    drawing = chart(
        f"Price of {bars.symbol}",
        f"closes, with {counted(len(own), 'fill')} of {counted(len(closed), 'trade')}",
        [Line(bars.bucket_ms, bars.close.floats(), "price")],
        marks,
        span=_ends(result),
        height=230,
        label=_compact,
    )
    told = f"Fills: {len(own):,}. Trades: {len(closed):,}." if own else "No fills."
    return f"<h3>{shown(bars.symbol)}</h3><figure>{drawing}<figcaption>{told}</figcaption></figure>"


def _exposure(result: RunResult) -> str:
    curve = result.curve
    if not len(curve):
        return _empty("The run has no bucket.")
    held = np.divide(curve.exposure, curve.equity, out=np.zeros(len(curve)), where=curve.equity > 0)
    if not held.any():
        return _empty("Nothing was held at any close.")
    drawing = chart(
        "Exposure",
        "value of all positions as a share of equity",
        [Line(curve.bucket_ms, held, "expo", True)],
        span=_ends(result),
        height=150,
        label=_percent,
        with_zero=True,
    )
    return f"<figure>{drawing}<figcaption>Sum of |quantity × close| of all positions, as a share of equity.</figcaption></figure>"


def _compact(value: float) -> str:
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    return words.quantity_of(value)


def _percent(value: float) -> str:
    return f"{words.quantity_of(round(100 * value, 10))} %"


# ---- tables -----------------------------------------------------------------------------------------------------


def _months(months: Sequence[MonthReturn]) -> str:
    if not months:
        return _empty("There are no returns.")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Year", *_MONTHS, "Year"))
    rows = []
    for year, of_year in groupby(months, key=lambda one: one.year):
        known = {one.month: one.value for one in of_year}
        whole = float(np.prod([1 + value for value in known.values()])) - 1
        cells = [_heat(known.get(month)) for month in range(1, 13)]
        rows.append(f'<tr><th scope="row">{year}</th>{"".join(cells)}{_heat(whole)}</tr>')
    return (
        f'<div class="scroll"><table class="heat"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        '<p class="dim">Percent per month of UTC, compounded; first and last as far as the run goes.</p>'
    )


def _heat(value: float | None) -> str:
    if value is None:
        return "<td></td>"
    strength = min(abs(value) / _HEAT_FULL, 1) * 0.45
    tone = "up" if value >= 0 else "down"
    written = words.share(value).removesuffix(" %")
    return f'<td style="background:rgba(var(--{tone}),{strength:.2f})">{written}</td>'


def _figures(figures: Sequence[Figure]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{shown(one.title)}</th><td class="n">{shown(words.figure(one))}</td>'
        f"<td>{shown(one.formula)}{shown(f' ({one.source})') if one.source else ''}</td></tr>"
        for one in figures
    )
    return (
        '<div class="scroll"><table class="names"><thead><tr><th scope="col">Figure</th><th scope="col" class="n">Value</th>'
        f'<th scope="col">Formula and convention</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="dim">{words.NONE} where a figure is undefined: too few returns or trades, or a division by nothing.</p>'
    )


_TRADE_COLUMNS: Final = (
    *(("#", True), ("Symbol", False), ("Side", False), ("Quantity", True), ("Entry (UTC)", False)),
    *(("Exit (UTC)", False), ("Entry price", True), ("Exit price", True), ("Gross", True), ("Fees", True)),
    *(("Net", True), ("Held", True), ("MAE", True), ("MFE", True)),
)


def _trades(closed: Sequence[Trade]) -> str:
    if not closed:
        return _empty("No trade was closed.")
    head = "".join(f'<th scope="col"{_n(is_number)}>{name}</th>' for name, is_number in _TRADE_COLUMNS)
    rows = "".join(_trade(place, one) for place, one in enumerate(closed[:TRADES_SHOWN], 1))
    told = f"Trades: {len(closed):,}" + (
        f"; the first {TRADES_SHOWN} are shown, all are in the CSV." if len(closed) > TRADES_SHOWN else "."
    )
    return (
        f'<p class="dim">{told}</p><div class="scroll"><table class="trades"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _n(is_number: bool) -> str:
    return ' class="n"' if is_number else ' class="w"'


def _trade(place: int, one: Trade) -> str:
    cells = (
        f"{place:,}",
        one.symbol,
        one.direction.value,
        words.quantity(one.quantity),
        words.short_moment(one.entry_ms),
        words.short_moment(one.exit_ms),
        words.price(one.entry_price),
        words.price(one.exit_price),
        words.money(one.gross),
        words.money(one.fees),
        words.money(one.net),
        words.duration(one.held_ms),
        words.NONE if one.mae is None else words.money(one.mae),
        words.NONE if one.mfe is None else words.money(one.mfe),
    )
    tone = "gain" if one.net > 0 else "loss"
    out = [
        f"<td{_n(is_number)}>{shown(cell)}</td>"
        for cell, (_, is_number) in zip(cells, _TRADE_COLUMNS, strict=True)
    ]
    out[10] = f'<td class="n {tone}">{shown(cells[10])}</td>'
    return f"<tr>{''.join(out)}</tr>"


def _identity(result: RunResult, performance: Performance) -> str:
    settings, curve = result.settings, result.curve
    rows: list[tuple[str, str]] = [
        ("Strategy", result.strategy_id),
        ("World", result.world_id),
        ("Symbols", ", ".join(result.symbols)),
        ("Interval", f"{result.interval} s"),
        ("Bars", f"{sum(len(one) for one in result.bars):,}"),
        ("Orders, fills", f"{len(result.orders):,}, {len(result.fills):,}"),
        ("Initial cash", f"{text(settings.initial_cash)} {settings.currency}"),
        ("Initial equity", text(curve.initial)),
        ("Final equity", text(curve.final)),
        ("Fee rate", text(settings.fee_rate)),
        ("Slippage rate", text(settings.slippage_rate)),
        *(
            (f"Open at the end: {one.symbol}", f"{text(one.quantity)} at a cost of {text(one.cost)}")
            for one in performance.trades.open
        ),
        *sorted(result.identity.items()),
    ]
    return _pairs(rows)


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    made = "".join(
        f'<tr><th scope="row">{shown(name)}</th><td>{shown(value)}</td></tr>' for name, value in rows
    )
    return f'<div class="scroll"><table class="names"><tbody>{made}</tbody></table></div>'


def _definitions(performance: Performance) -> str:
    convention = performance.convention
    told = (
        "Equity is cash plus the value of all positions at the last close, after fees and slippage, at the close of each bucket.",
        "A trade is one order's reduction of a position. What it closed had cost "
        + (
            "what the oldest fills had cost"
            if convention.matching.value == "fifo"
            else "its share of the cost of all that was held"
        )
        + f" ({convention.matching.value}); fees of the entry go with it. An order that flips a position closes all of it and opens the rest.",
        "MAE and MFE are the worst and the best unrealised profit before fees, by the highs and lows of the bars that lie wholly between entry and exit.",
        f"Returns cover {convention.period} s each; {convention.periods_per_year:.10g} of them are a year. The risk-free return is {convention.risk_free:.4g} a year.",
        "Money is computed exactly and rounded where it is shown. Ratios are floats.",
        f"Lines are drawn with the first, lowest, highest and last value of each of {COLUMNS} columns of pixels.",
        f"Of fills that would lie on each other one is drawn, and at most {MAX_MARKS:,} of a kind in a chart.",
        "Where bars are absent the line of a price goes straight on to the next one.",
        "Annual figures say what a year would give if it went on like the run; of a run that is much shorter than a year they say little.",
        "All times are UTC.",
    )
    return "<ul>" + "".join(f"<li>{shown(one)}</li>" for one in told) + "</ul>"


def _empty(told: str) -> str:
    return f'<p class="empty">{shown(told)}</p>'
