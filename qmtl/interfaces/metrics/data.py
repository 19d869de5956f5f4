"""Gauges of a catalogue of bars, in a file that Prometheus' node exporter reads: a catalogue has no process that could be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import Metric, write_to_textfile
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from qmtl.foundation.common.errors import CatalogueUnwritable
from qmtl.runtime.data.catalogue import Series
from qmtl.runtime.data.conformance import Coverage

_LABELS = ("symbol", "interval")


class DataGauges(Collector):
    """Of one look at a catalogue."""

    def __init__(self, commit: int, found: Iterable[tuple[Series, Coverage | None, bool]]) -> None:
        """Take what was found.

        Args:
            commit: number of the commit that was looked at.
            found: each series with its coverage, None where it can't be read, and whether it is whole and keeps its terms.
        """
        self._commit = commit
        self._found = list(found)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("qmtl_data_commit", "Number of the commit that was looked at.", self._commit)
        whole = [(series, float(sound)) for series, _, sound in self._found]
        yield _gauge("whole", "1 where the series is as it was written, and keeps its terms.", whole)
        read = [(series, coverage) for series, coverage, _ in self._found if coverage is not None]
        yield _gauge("bars", "Bars in the range.", [(one, each.bars) for one, each in read])
        yield _gauge("expected_bars", "Buckets in the range.", [(one, each.expected) for one, each in read])
        yield _gauge(
            "coverage_ratio",
            "Share of the buckets with a bar.",
            [(one, each.percent / 100) for one, each in read],
        )
        yield _gauge("gaps", "Ranges without a bar.", [(one, each.gaps) for one, each in read])
        yield _gauge(
            "longest_gap_bars", "Buckets of the longest gap.", [(one, each.longest_gap) for one, each in read]
        )
        yield _gauge(
            "newest_close_timestamp_seconds",
            "When the newest bar closed.",
            [(one, each.last_ms / 1000 + one.interval) for one, each in read if each.last_ms is not None],
        )


def write_gauges(path: Path, gauges: DataGauges) -> None:
    """Write the file, whole or not at all.

    Raises:
        CatalogueUnwritable: no room, no right.
    """
    try:
        write_to_textfile(str(path), gauges)
    except OSError as error:
        raise CatalogueUnwritable(
            f"{path} could not be written: {error.strerror or error}.",
            "Name a file in a directory that is there.",
        ) from error


def _gauge(name: str, about: str, values: Sequence[tuple[Series, float]]) -> Metric:
    family = GaugeMetricFamily(f"qmtl_data_{name}", about, labels=_LABELS)
    for series, value in values:
        family.add_metric((series.symbol, str(series.interval)), value)
    return family
