"""`qmtl data`: brings bars into a catalogue, from files and exchanges, and says what is there and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from qmtl.foundation.common.errors import HistoryUnavailable, QmtlError, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, instant, interval_s, rows_options

if TYPE_CHECKING:
    from qmtl.runtime.data.catalogue import Catalogue, Series
    from qmtl.runtime.data.conformance import Terms
    from qmtl.runtime.data.journal import Commit

DEFAULT_CATALOGUE: Final = ".qmtl/data"

F = TypeVar("F", bound=Callable[..., Any])


def catalogue_option(command: F) -> F:
    """`--catalogue DIR`, given to the command as `directory`."""
    return click.option(
        "--catalogue",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="QMTL_CATALOGUE",
        default=DEFAULT_CATALOGUE,
        show_default=True,
        show_envvar=True,
        help="The directory of the catalogue.",
    )(command)


def as_of_option(command: F) -> F:
    """`--as-of COMMIT`, given to the command as `as_of`; None for the newest."""
    return click.option(
        "--as-of", metavar="COMMIT", default=None, help="A commit's number or digest; by default the newest."
    )(command)


def series_options(command: F) -> F:
    """`--symbol` and `--interval`, given as `symbol` and `interval`; None where nothing was said."""
    symbol = click.option("--symbol", default=None, help="Of this symbol only.")
    return symbol(_interval("Of bars of this length only.", required=False)(command))


def _interval(help_text: str, *, required: bool) -> Callable[[F], F]:
    return click.option(
        "--interval",
        metavar="LENGTH",
        required=required,
        default=None,
        callback=interval_s,
        help=f"{help_text} Seconds, or as 1m, 1h, 1d.",
    )


@click.group()
def data() -> None:
    """Keep market data in a catalogue: every import is a commit, and a backtest bound to a commit reads the same bars for ever.

    Bars that are absent in the market stay absent. Needs the extra `data`; `fetch` needs the extra `edge` too.
    """


@data.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="What the bars are of, such as BTC-USD.")
@_interval("The length of a bar.", required=True)
@catalogue_option
@click.option(
    "--columns",
    default="",
    metavar="OURS=THEIRS,...",
    help="Names in the file of open_time_ms, open, high, low, close, volume where they differ; further columns are then left out.",
)
@click.option(
    "--times",
    type=click.Choice(["ms", "s", "iso"]),
    default="ms",
    show_default=True,
    help="Open times are epoch milliseconds, epoch seconds, or ISO 8601 with an offset from UTC.",
)
@click.option(
    "--floats",
    is_flag=True,
    help="Take the doubles of a Parquet file, each as the shortest decimal that reads back as it.",
)
@format_option
def import_(
    files: tuple[Path, ...],
    symbol: str,
    interval: int,
    directory: Path,
    columns: str,
    times: str,
    floats: bool,
    as_json: bool,
) -> None:
    """Import files of bars, CSV (also gzip) or Parquet, known by their first bytes. Each file is one commit, whole or not at all.

    A file that can't be used is told with its line, and the others are imported. Bars that are there already are left out and counted;
    one that is there with other numbers refuses its file.
    """
    from qmtl.runtime.data.catalogue import writing
    from qmtl.runtime.data.conformance import Conformance
    from qmtl.runtime.data.csv_file import FileForm, Times
    from qmtl.runtime.data.provider import digest_of, read_file

    form = FileForm(_mapping(columns), Times(times), floats)
    rows: list[dict[str, Any]] = []
    problems: list[QmtlError] = []
    with writing(directory) as writer, render.progress() as advance:
        for done, path in enumerate(files):
            advance("files", done, len(files))
            try:
                held = Conformance(symbol, interval)
                source = {"kind": "file", "file": path.name, "digest": digest_of(path)}
                added = writer.add(symbol, interval, read_file(path, symbol, interval, form, held), source)
            except QmtlError as problem:
                problems.append(problem)
                rows.append(
                    {"file": str(path), "imported": False, "code": problem.code, "problem": str(problem)}
                )
                continue
            rows.append(
                {
                    "file": str(path),
                    "imported": True,
                    "bars": added.bars,
                    "known": added.known,
                    "duplicates": held.findings().duplicates,
                    **_named(added.commit),
                }
            )
        advance("files", len(files), len(files))
    _show_rows(
        rows,
        as_json,
        ("FILE", "BARS", "KNOWN", "DUPLICATES", "COMMIT", "AS_OF", "PROBLEM"),
        ("file", "bars", "known", "duplicates", "commit", "as_of", "code"),
    )
    _end(problems)


@data.command(name="list")
@catalogue_option
@as_of_option
@click.option(
    "--fingerprint", "with_fingerprint", is_flag=True, help="Read all bars, and show what they are."
)
@format_option
def list_(directory: Path, as_of: str | None, with_fingerprint: bool, as_json: bool) -> None:
    """List the series of a catalogue as of a commit, with the commit's digest, to which a backtest is bound."""
    catalogue = _opened(directory)
    commit = catalogue.commit(as_of)
    rows = []
    for one in catalogue.series(commit.number):
        row = _told(one, commit)
        if with_fingerprint:
            row["dataset_fingerprint"] = catalogue.fingerprint(
                [one.symbol], one.interval, as_of=commit.number
            )
        rows.append(row)
    heads = ["SYMBOL", "INTERVAL", "BARS", "FROM", "TO", "PARTS", "AS_OF"]
    keys = ["symbol", "interval", "bars", "from", "to", "parts", "as_of"]
    if with_fingerprint:
        heads.append("FINGERPRINT")
        keys.append("dataset_fingerprint")
    _show_rows(rows, as_json, heads, keys)


@data.command()
@catalogue_option
@rows_options
@format_option
def log(directory: Path, limit: int | None, as_json: bool) -> None:
    """Show the commits of a catalogue, the newest last: what each has brought, and from where."""
    commits = _opened(directory).commits()
    shown = commits if limit is None else commits[-limit:]
    rows = [
        {
            **_named(commit),
            "symbols": sorted({part.symbol for part in commit.parts}),
            "bars": sum(part.bars for part in commit.parts),
            "source": dict(commit.source),
            "importer": commit.importer,
        }
        for commit in shown
    ]
    for row in rows:
        if not as_json:
            row["symbols"] = " ".join(row["symbols"])
            row["source"] = " ".join(f"{key}={value}" for key, value in sorted(row["source"].items()))
    _show_rows(
        rows,
        as_json,
        ("COMMIT", "AS_OF", "SYMBOLS", "BARS", "SOURCE"),
        ("commit", "as_of", "symbols", "bars", "source"),
    )
    render.left_off(len(shown), len(commits), "commits", as_json=as_json, newest=True)


@data.command()
@catalogue_option
@as_of_option
@series_options
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 100),
    default=None,
    help="Percent of the buckets that have a bar.",
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
    help="The instant that --max-age counts from.",
)
@format_option
def verify(
    directory: Path,
    as_of: str | None,
    symbol: str | None,
    interval: int | None,
    min_coverage: float | None,
    max_gap: int | None,
    max_age: int | None,
    now_ms: int | None,
    as_json: bool,
) -> None:
    """Read every file of a catalogue, hold it to its digest and its bars to what bars are, and the series to the terms that are given.

    What is damaged is told, and the rest is read all the same. Exit code 7 where anything is.
    """
    from qmtl.runtime.data.conformance import Terms

    if (max_age is None) != (now_ms is None):
        raise UsageError(
            "one of --max-age and --now was given alone.", "Give both: an age is one at an instant."
        )
    catalogue = _opened(directory)
    commit = catalogue.commit(as_of)
    terms = Terms(min_coverage, max_gap, None if max_age is None else max_age * 1000)
    rows: list[dict[str, Any]] = []
    problems: list[QmtlError] = []
    with render.progress() as advance:
        chosen = _chosen(catalogue, commit, symbol, interval)
        for done, one in enumerate(chosen):
            advance("series", done, len(chosen))
            found, wrong = _verified(catalogue, commit, one, terms, now_ms)
            rows.append(found)
            problems.extend(wrong)
        advance("series", len(chosen), len(chosen))
    _show_rows(
        rows,
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
    _end(problems)


def _verified(
    catalogue: Catalogue, commit: Commit, one: Series, terms: Terms, now_ms: int | None
) -> tuple[dict[str, Any], list[QmtlError]]:
    from qmtl.runtime.data.conformance import Conformance, coverage_of

    problems: list[QmtlError] = []
    for part in one.parts:
        try:
            catalogue.load(part)
        except QmtlError as problem:
            problems.append(problem)
    row = _told(one, commit)
    if not problems:
        held = Conformance(one.symbol, one.interval)
        try:
            times = (
                held.take(chunk).open_time_ms
                for chunk in catalogue.read(one.symbol, one.interval, as_of=commit.number)
            )
            found = coverage_of(times, one.interval)
            row.update(
                coverage_percent=round(found.percent, 4),
                gaps=found.gaps,
                longest_gap=found.longest_gap,
                stale_ms=None if now_ms is None else found.stale_ms(now_ms),
                dataset_fingerprint=catalogue.fingerprint([one.symbol], one.interval, as_of=commit.number),
            )
            terms.require(f"{one.symbol} of {one.interval} s", found, now_ms)
        except QmtlError as problem:
            problems.append(problem)
    row["whole"] = not problems
    if problems:
        row["problems"] = [str(problem) for problem in problems]
    return row, problems


@data.command()
@catalogue_option
@as_of_option
@series_options
@click.option(
    "--from", "from_ms", metavar="INSTANT", default=None, callback=instant, help="From this open time on."
)
@click.option(
    "--to", "to_ms", metavar="INSTANT", default=None, callback=instant, help="Before this open time."
)
@rows_options
@format_option
def gaps(
    directory: Path,
    as_of: str | None,
    symbol: str | None,
    interval: int | None,
    from_ms: int | None,
    to_ms: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the buckets without a bar, as ranges of open times. A gap may be the market's: nobody traded."""
    from qmtl.runtime.data.conformance import gaps_of

    catalogue = _opened(directory)
    commit = catalogue.commit(as_of)
    rows = [
        {
            "symbol": one.symbol,
            "interval": one.interval,
            "from": render.instant(gap.from_ms),
            "to": render.instant(gap.to_ms),
            "from_ms": gap.from_ms,
            "to_ms": gap.to_ms,
            "bars": (gap.to_ms - gap.from_ms) // (one.interval * 1000),
        }
        for one in _chosen(catalogue, commit, symbol, interval)
        for gap in gaps_of(
            catalogue.times(one.symbol, one.interval, from_ms, to_ms, commit.number),
            one.interval,
            from_ms,
            to_ms,
        )
    ]
    shown = rows if limit is None else rows[:limit]
    _show_rows(
        shown,
        as_json,
        ("SYMBOL", "INTERVAL", "FROM", "TO", "BARS"),
        ("symbol", "interval", "from", "to", "bars"),
    )
    render.left_off(len(shown), len(rows), "gaps", as_json=as_json)


@data.command()
@click.option("--exchange", required=True, help="As ccxt names it, such as binance.")
@click.option("--symbol", required=True, help="As ccxt names it, such as BTC/USDT.")
@_interval("The length of a bar.", required=True)
@click.option(
    "--from",
    "from_ms",
    metavar="INSTANT",
    required=True,
    callback=instant,
    help="Open time of the first bar.",
)
@click.option(
    "--to",
    "to_ms",
    metavar="INSTANT",
    required=True,
    callback=instant,
    help="Open time after the last bar; may be in the future.",
)
@catalogue_option
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="A JSON file with settings of ccxt for this exchange: a proxy, other addresses, options.",
)
@click.option("--retries", type=click.IntRange(0, 20), default=6, show_default=True, help="Of each request.")
@click.option(
    "--chunk-bars",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Bars that are asked for per commit.",
)
@format_option
def fetch(
    exchange: str,
    symbol: str,
    interval: int,
    from_ms: int,
    to_ms: int,
    directory: Path,
    settings: Path | None,
    retries: int,
    chunk_bars: int,
    as_json: bool,
) -> None:
    """Fetch history from an exchange by ccxt, at the pace that the exchange allows. Only closed bars are kept.

    Said again after whatever stopped it, the command goes on where the last commit ended.
    """
    from qmtl.runtime.data.backfill import backfill
    from qmtl.runtime.data.catalogue import writing
    from qmtl.runtime.data.ccxt_history import CcxtProvider

    provider = CcxtProvider(exchange, _settings(settings), retries=retries)
    with writing(directory) as writer, render.progress() as advance:
        done = backfill(
            writer,
            provider,
            symbol,
            interval,
            from_ms,
            to_ms,
            chunk_bars=chunk_bars,
            progress=lambda over, total: advance(symbol, over, total),
        )
    row = {
        "symbol": symbol,
        "interval": interval,
        "bars": done.bars,
        "known": done.known,
        "skipped": done.skipped,
        "to": render.instant(done.to_ms),
        **_named(done.commit),
    }
    _show_rows(
        [row],
        as_json,
        ("SYMBOL", "INTERVAL", "BARS", "KNOWN", "SKIPPED", "TO", "COMMIT", "AS_OF"),
        ("symbol", "interval", "bars", "known", "skipped", "to", "commit", "as_of"),
    )


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="Of which gaps are filled.")
@_interval("The length of a bar.", required=True)
@catalogue_option
@format_option
def repair(file: Path, symbol: str, interval: int, directory: Path, as_json: bool) -> None:
    """Fill the gaps of a series with the bars that a file has there. Nothing is made up: what the file lacks, too, stays absent."""
    from qmtl.runtime.data.backfill import repair as fill
    from qmtl.runtime.data.catalogue import writing
    from qmtl.runtime.data.provider import FileProvider

    with writing(directory) as writer:
        done = fill(writer, FileProvider({symbol: file}), symbol, interval)
    row = {
        "symbol": symbol,
        "interval": interval,
        "bars": done.bars,
        "gaps_left": len(done.left),
        **_named(done.commit),
    }
    _show_rows(
        [row],
        as_json,
        ("SYMBOL", "INTERVAL", "BARS", "GAPS_LEFT", "COMMIT", "AS_OF"),
        ("symbol", "interval", "bars", "gaps_left", "commit", "as_of"),
    )


def _opened(directory: Path) -> Catalogue:
    from qmtl.runtime.data.catalogue import Catalogue

    return Catalogue(directory)


def _chosen(catalogue: Catalogue, commit: Commit, symbol: str | None, interval: int | None) -> list[Series]:
    if symbol is not None and interval is not None:
        return [catalogue.find(symbol, interval, commit.number)]
    return [
        one
        for one in catalogue.series(commit.number)
        if symbol in (None, one.symbol) and interval in (None, one.interval)
    ]


def _told(one: Series, commit: Commit) -> dict[str, Any]:
    return {
        "symbol": one.symbol,
        "interval": one.interval,
        "bars": one.bars,
        "from": render.instant(one.from_ms),
        "to": render.instant(one.to_ms),
        "parts": len(one.parts),
        **_named(commit),
    }


def _named(commit: Commit | None) -> dict[str, Any]:
    return {
        "commit": None if commit is None else commit.number,
        "as_of": None if commit is None else commit.digest,
    }


def _show_rows(rows: list[dict[str, Any]], as_json: bool, heads: Any, keys: Any) -> None:
    if as_json:
        for row in rows:
            render.json_line(row)
        return
    numbers = tuple(
        head
        for head, key in zip(heads, keys, strict=True)
        if any(isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool) for row in rows)
    )
    render.table(tuple(heads), [tuple(_cell(row.get(key)) for key in keys) for row in rows], numbers=numbers)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "-" if value is None else value


def _end(problems: list[QmtlError]) -> None:
    """Every problem is told; the first one ends the command with its exit code."""
    for problem in problems[1:]:
        render.error(problem)
    if problems:
        raise problems[0]


def _mapping(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        ours, sign, theirs = pair.partition("=")
        if not sign or not theirs or ours in found:
            raise UsageError(
                f"--columns had {pair[:60]!r}; each of ours is said once, as open_time_ms=timestamp.",
                "Separate them by commas.",
            )
        found[ours] = theirs
    return found


def _settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict):
            return found
    raise HistoryUnavailable(
        f"{path} holds no JSON object with settings of ccxt.", 'Write one, as {"httpsProxy": "http://…"}.'
    )
