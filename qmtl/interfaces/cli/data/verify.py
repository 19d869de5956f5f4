"""`verify`: whether a catalogue is what was written, and keeps the terms that are agreed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmtl.foundation.common.errors import QmtlError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.data.options import as_of_option, catalogue_option, range_options, series_options
from qmtl.interfaces.cli.data.rows import chosen, end, opened, show_rows, told
from qmtl.interfaces.cli.options import format_option, instant, interval_s

if TYPE_CHECKING:
    from qmtl.runtime.data.catalogue import Catalogue, Series
    from qmtl.runtime.data.conformance import Coverage, Terms
    from qmtl.runtime.data.journal import Commit


@click.command()
@catalogue_option
@as_of_option
@series_options
@range_options
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 100),
    default=None,
    help="Percent of the buckets that have a bar: of the range that is given, else from the first to the last bar.",
)
@click.option("--max-gap", type=click.IntRange(min=0), default=None, help="Buckets of the longest gap.")
@click.option(
    "--max-age",
    metavar="LENGTH",
    default=None,
    callback=interval_s,
    help="Between the end of the newest bar and --now.",
)
@click.option(
    "--now",
    "now_ms",
    metavar="INSTANT",
    default=None,
    callback=instant,
    help="The instant that --max-age counts from; by default that of this machine.",
)
@click.option(
    "--metrics",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write what was found as gauges, for the textfile collector of Prometheus' node exporter.",
)
@format_option
def verify(
    directory: Path,
    as_of: str | None,
    symbol: str | None,
    interval: int | None,
    from_ms: int | None,
    to_ms: int | None,
    min_coverage: float | None,
    max_gap: int | None,
    max_age: int | None,
    now_ms: int | None,
    metrics: Path | None,
    as_json: bool,
) -> None:
    """Read every file of a catalogue, hold it to its digest and its bars to what bars are, and the series to the terms that are given.

    What is damaged is told, and the rest is read all the same. Exit code 7 where anything is, or where a series breaks a term.
    """
    from qmtl.interfaces.cli.session import now_ms as clock_ms
    from qmtl.runtime.data.conformance import Terms

    if max_age is not None and now_ms is None:
        now_ms = clock_ms()
    catalogue = opened(directory)
    problems: list[QmtlError] = []
    commit = catalogue.commit(as_of)
    try:
        catalogue.audit()
    except QmtlError as problem:
        problems.append(problem)
    looked = _Look(
        catalogue,
        commit,
        (from_ms, to_ms),
        Terms(min_coverage, max_gap, None if max_age is None else max_age * 1000),
        now_ms,
    )
    found: list[_Found] = []
    with render.progress() as advance:
        series = chosen(catalogue, commit, symbol, interval)
        for done, one in enumerate(series):
            advance("series", done, len(series))
            found.append(looked.at(one))
        advance("series", len(series), len(series))
    for each in found:
        problems.extend(each.problems)
    if metrics is not None:
        from qmtl.interfaces.metrics.data import DataGauges, write_gauges

        write_gauges(
            metrics,
            DataGauges(commit.number, [(one.series, one.coverage, not one.problems) for one in found]),
        )
    show_rows(
        [each.row for each in found],
        as_json,
        (
            "SYMBOL",
            "INTERVAL",
            "BARS",
            "COVERAGE_%",
            "GAPS",
            "LONGEST_GAP",
            "STALE_MS",
            "WHOLE",
            "FINGERPRINT",
        ),
        (
            "symbol",
            "interval",
            "bars",
            "coverage_percent",
            "gaps",
            "longest_gap",
            "stale_ms",
            "whole",
            "dataset_fingerprint",
        ),
    )
    end(problems)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found of a series; no coverage where it could not be read."""

    series: Series
    row: dict[str, Any]
    coverage: Coverage | None
    problems: list[QmtlError]


@dataclass(frozen=True, slots=True)
class _Look:
    """How the series are looked at."""

    catalogue: Catalogue
    commit: Commit
    bounds: tuple[int | None, int | None]
    terms: Terms
    now_ms: int | None

    def at(self, one: Series) -> _Found:
        problems: list[QmtlError] = []
        for part in one.parts:
            try:
                self.catalogue.load(part)
            except QmtlError as problem:
                problems.append(problem)
        row = told(one, self.commit)
        coverage = None
        if not problems:
            try:
                coverage = self._coverage(one)
                row.update(
                    coverage_percent=round(coverage.percent, 4),
                    gaps=coverage.gaps,
                    longest_gap=coverage.longest_gap,
                    stale_ms=None if self.now_ms is None else coverage.stale_ms(self.now_ms),
                    dataset_fingerprint=self.catalogue.fingerprint(
                        [one.symbol], one.interval, *self.bounds, self.commit.number
                    ),
                )
                self.terms.require(f"{one.symbol} of {one.interval} s", coverage, self.now_ms)
            except QmtlError as problem:
                problems.append(problem)
        row["whole"] = not problems
        if problems:
            row["problems"] = [str(problem) for problem in problems]
        return _Found(one, row, coverage, problems)

    def _coverage(self, one: Series) -> Coverage:
        from qmtl.runtime.data.conformance import Conformance, coverage_of

        held = Conformance(one.symbol, one.interval)
        times = (
            held.take(chunk).open_time_ms
            for chunk in self.catalogue.read(one.symbol, one.interval, *self.bounds, self.commit.number)
        )
        return coverage_of(times, one.interval, *self.bounds)
