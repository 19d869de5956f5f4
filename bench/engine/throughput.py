"""Records a second of every engine on the same input, in turns, and each output judged before its figure counts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.engine import gauge, peers
from bench.engine.gauge import Committed, Failed
from bench.engine.rows import Expected, expected, judge, row
from bench.engine.topics import committed_records, last_values, pour
from bench.engine.work import CODEC, HEADER_BYTES, Names, Snapshot, header, make_trade, schemas, trades
from qmtl.bootstrap import open_log
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.wire.keys import encode_key, is_reserved, partition_for

Say = Callable[[str], None]

FILLS: Final = "fills"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done.

    Attributes:
        records: the batch.
        rounds, slow_rounds: how often it is processed, and how often by Faust, which takes minutes for it.
        commit_ms: the transactions of the main comparison; `short_ms` those of the second, which 0 leaves out.
    """

    records: int
    keys: int
    partitions: int
    rounds: int
    slow_rounds: int
    commit_ms: float
    short_ms: float


@dataclass(frozen=True, slots=True)
class Contender:
    """One engine with one setting."""

    name: str
    kind: str
    commit_ms: float


def contenders(parts: Sequence[str], sizes: Sizes) -> list[Contender]:
    """Who takes part, in the order of one round; those whose ratio counts stand beside each other."""
    long, short = f"{sizes.commit_ms:g}ms", f"{sizes.short_ms:g}ms"
    everybody = [
        ("raw", Contender(f"raw-{long}", "loop", sizes.commit_ms)),
        ("ours", Contender(f"ours-{long}", "engine", sizes.commit_ms)),
        ("raw", Contender(f"raw-{short}", "loop", sizes.short_ms)),
        ("ours", Contender(f"ours-{short}", "engine", sizes.short_ms)),
        ("embedded", Contender("ours-embedded", "embedded", sizes.commit_ms)),
        ("quix", Contender("quix", "quix", sizes.commit_ms)),
        ("faust", Contender("faust", "faust", sizes.commit_ms)),
    ]
    return [one for part, one in everybody if part in parts and one.commit_ms > 0]


class Arena:
    """The inputs on one broker, and the oracle's word on each.

    Args:
        prefix: begins every name on the broker, and is no other run's.
        work: where the environments of other libraries lie.

    Raises:
        Failed: an engine did not finish, or gave another output than the oracle.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        place: Path,
        sizes: Sizes,
        say: Say,
        work: Path = peers.WORK,
    ) -> None:
        self.bootstrap, self.place, self.sizes, self.say = bootstrap, place, sizes, say
        self._prefix, self._work = prefix, work
        self.log = open_log(f"kafka://{bootstrap}")
        self._want: Expected | None = None
        self._poured = False
        self._runs = 0

    @property
    def source(self) -> str:
        return self._prefix + FILLS

    def want(self) -> Expected:
        """What the oracle says of the input."""
        if self._want is None:
            self._want = expected(self.sizes.records, self.sizes.keys, header(Snapshot))
        return self._want

    def prepare(self) -> None:
        """Write the input."""
        if self._poured:
            return
        sizes = self.sizes
        self.say(f"writing {sizes.records} fills to {FILLS}")
        self.log.ensure_topics([trades(self.source, sizes.partitions)])
        pour(self.bootstrap, self.source, sizes.partitions, sizes.records, sizes.keys)
        self._poured = True

    def run(self, one: Contender, *, sampled: bool = False) -> dict[str, Any]:
        """One run of one engine, judged; its figures, and what it told itself."""
        self._runs += 1
        names = Names(f"{self._prefix}{one.name}.{self._runs}", self.source, self.sizes.partitions)
        place = self.place / names.run
        if one.kind == "embedded":
            return self._embedded(one, names, place)
        self.prepare()
        self.log.ensure_topics(names.specs())
        group = f"{names.group}.quix" if one.kind == "quix" else names.group
        committed = Committed(self.bootstrap, group, names.source, names.partitions)
        with gauge.started(self._command(one, names, group, place, sampled), one.name) as child:
            course = gauge.follow(child, committed, self.sizes.records)
            told = child.stop()
        committed.close()
        self._judge(one, names)
        return {**course.figures(self.sizes.records), **(told[-1] if sampled and told else {})}

    def _command(self, one: Contender, names: Names, group: str, place: Path, sampled: bool) -> list[str]:
        named = {"run": names.run, "source": names.source, "partitions": names.partitions}
        common: dict[str, Any] = {"names": named, "place": str(place), "commit_ms": one.commit_ms}
        if one.kind == "engine":
            return gauge.role("engine", log=f"kafka://{self.bootstrap}", sampled=sampled, **common)
        if one.kind == "loop":
            return gauge.role("loop", bootstrap=self.bootstrap, sampled=sampled, **common)
        return peer_command(one, names, group, place, self.bootstrap, self._work)

    def _judge(self, one: Contender, names: Names) -> None:
        """Compare every output, and the last row of every key, with the oracle.

        Raises:
            Failed: they differ.
        """
        partitions, want = names.partitions, self.want()
        values = (value for _, value in committed_records(self.bootstrap, names.out, partitions))
        wrong = judge(want, values, HEADER_BYTES)
        if wrong is None and one.kind in ("engine", "loop"):
            rows = last_values(self.bootstrap, names.table, partitions)
            must = {encode_key((symbol,)): value for symbol, value in want.last().items()}
            wrong = None if rows == must else "the table's last rows are not the oracle's"
        self._require(one, wrong)

    def _embedded(self, one: Contender, names: Names, place: Path) -> dict[str, Any]:
        """The engine on the embedded log, which is written here and processed by a process of its own."""
        address, count, keys = f"embedded:{place / 'log'}", self.sizes.records, self.sizes.keys
        pour_embedded(address, names, count, keys)
        named = {"run": names.run, "source": names.source, "partitions": names.partitions}
        tasks = str(place / "tasks")
        command = gauge.role(
            "embedded", log=address, names=named, place=tasks, commit_ms=one.commit_ms, count=count
        )
        with gauge.started(command, one.name) as child:
            told = child.finish(600.0)[-1]
        log = open_log(address, read_only=True)
        found = [
            record for record in read_all(log, all_partitions(log, names.out)) if not is_reserved(record.key)
        ]
        log.close()
        self._require(one, judge(self.want(), (record.value or b"" for record in found), HEADER_BYTES))
        return told

    def _require(self, one: Contender, wrong: str | None) -> None:
        if wrong is not None:
            raise Failed(f"{one.name}: {wrong}; its figure does not count")

    def close(self) -> None:
        self.log.close()


def peer_command(
    one: Contender, names: Names, group: str, place: Path, bootstrap: str, work: Path
) -> list[str]:
    """The command that runs the workload on another library.

    Raises:
        NoEnvironment: the library can't be installed.
    """
    told = {
        **schemas(),
        "bootstrap": bootstrap,
        "group": group,
        "source": names.source,
        "out": names.out,
        "partitions": names.partitions,
        "state": str(place),
        "commit_s": one.commit_ms / 1e3,
    }
    python = peers.environment(one.kind, work)
    return [str(python), str(peers.HERE / f"{one.kind}_app.py"), json.dumps(told)]


def pour_embedded(address: str, names: Names, count: int, keys: int) -> None:
    """Write the input to an embedded log, with the topics of the run."""
    log = open_log(address)
    log.ensure_topics([trades(names.source, names.partitions), *names.specs()])
    writer = log.writer("bench.source")
    for start in range(0, count, 20_000):
        writer.begin()
        for number in range(start, min(start + 20_000, count)):
            trade = make_trade(row(number, keys))
            key = encode_key((trade.symbol,))
            writer.append(names.source, partition_for(key, names.partitions), key, CODEC.encode(trade))
        writer.commit({}, "bench", None)
    writer.close()
    log.close()


def measure(arena: Arena, chosen: Sequence[Contender], left_out: dict[str, str]) -> dict[str, Any]:
    """All rounds of all contenders, taken in turns, with their medians.

    Args:
        left_out: gets the name and the reason of every library that can't be installed.
    """
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(arena.sizes.rounds):
        for one in chosen:
            if one.kind in left_out or (one.kind == "faust" and number >= arena.sizes.slow_rounds):
                continue
            try:
                found = arena.run(one)
            except peers.NoEnvironment as reason:
                left_out[one.kind] = str(reason)
                arena.say(f"LEFT OUT {reason}")
                continue
            rounds.setdefault(one.name, []).append(found)
            arena.say(f"round {number + 1}: {one.name:<14} {found['records_per_s']:>9,.0f} records/s")
    return {
        name: {
            "rounds": found,
            "median": {key: statistics.median(one[key] for one in found) for key in found[0]},
        }
        for name, found in rounds.items()
    }


def ratio(result: Mapping[str, Any], ours: str, other: str) -> float | None:
    """The median over the rounds of ours against another's in the same round; None where one of them was not run."""
    if ours not in result or other not in result:
        return None
    pairs = zip(result[ours]["rounds"], result[other]["rounds"], strict=False)
    return float(statistics.median(one["records_per_s"] / their["records_per_s"] for one, their in pairs))


def ratios(result: Mapping[str, Any], sizes: Sizes) -> dict[str, float | None]:
    """The ratios that the targets are about."""
    long, short = f"{sizes.commit_ms:g}ms", f"{sizes.short_ms:g}ms"
    return {
        "vs_raw_loop": ratio(result, f"ours-{long}", f"raw-{long}"),
        f"vs_raw_loop_{short}": ratio(result, f"ours-{short}", f"raw-{short}"),
        "embedded_vs_raw_loop": ratio(result, "ours-embedded", f"raw-{long}"),
        "vs_quix": ratio(result, f"ours-{long}", "quix"),
        "vs_faust": ratio(result, f"ours-{long}", "faust"),
    }
