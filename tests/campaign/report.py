"""What a campaign has found, as a table on the terminal and as figures in a file, with the commit and the versions they are of."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import confluent_kafka

from qmtl.foundation.common.errors import NoBroker
from qmtl.testing.broker_parts import Jvm, find_parts
from tests.campaign.crew import ROOT
from tests.campaign.trial import Row, Scale, parts

RULE_OF_THREE: Final = 300.0
"""After n trials without a finding at most 300 / n percent of them fail, by 95 %."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """The trials in which a planted bug was looked for; the last one found it, or none did."""

    sabotage: str
    rows: tuple[Row, ...]

    @property
    def found(self) -> bool:
        return bool(self.rows[-1].wrong)

    @property
    def wrong(self) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in self.rows[-1].wrong.items())


def judged(rows: Sequence[Row]) -> list[Row]:
    """Those that say something about the engine: of a trial that was set aside, only what counts nevertheless."""
    return [row for row in rows if not row.undone and (row.wrong or not row.broker)]


def bound(rows: Sequence[Row]) -> float | None:
    """How many percent of trials fail at most, by 95 %; None where one did, or none was judged."""
    count = len(judged(rows))
    return None if not count or any(row.wrong for row in rows) else min(100.0, RULE_OF_THREE / count)


def tell(rows: Sequence[Row]) -> None:
    """The table of a campaign, and how to run again what is to be looked at."""
    heads = ("trials", "kills", "undone", "broker", "wrong")
    print(f"\n{'fault':26} {' '.join(f'{head:>6}' for head in heads)} {'silence s':>9}")
    for name, one in parts(rows).items():
        print(f"{name:26} {' '.join(f'{one[head]:6}' for head in heads)} {one['silence_s']:9.1f}")
    bad, most = [row for row in rows if row.wrong], bound(rows)
    last = "" if most is None else f"; at most {most:.1f} % fail, by 95 %"
    protocols = ", ".join(
        f"{count} {name}" for name, count in sorted(Counter(r.protocol for r in rows).items())
    )
    print(f"{len(judged(rows))} trials judged ({protocols}), {len(bad)} with a finding{last}")
    for row in rows:
        if row.broker:
            print(f"set aside: {row.again}: the broker broke its word: {row.broker}")
        if row.wrong or row.undone:
            print(f"look at: {row.again}: {row.wrong or row.undone}")


def tell_of_hunts(hunts: Sequence[Hunt]) -> None:
    """The table of planted bugs."""
    print(f"\n{'planted bug':22} {'trials':>6}  found by")
    for one in hunts:
        by = f"{one.rows[-1].fault}: {one.wrong}" if one.found else "NOBODY"
        print(f"{one.sabotage:22} {len(one.rows):6}  {by}")


def of_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of a campaign."""
    return {
        "trials": len(rows),
        "kills": sum(row.kills for row in rows),
        "judged": len(judged(rows)),
        "undone": sum(bool(row.undone) for row in rows),
        "set_aside": [_told(row, row.broker) for row in rows if row.broker],
        "findings": [_told(row, row.wrong) for row in rows if row.wrong],
        "bound_percent_95": bound(rows),
        "protocols": dict(Counter(row.protocol for row in rows)),
        "seeds": [min(row.seed for row in rows), max(row.seed for row in rows)] if rows else [],
        "seconds": round(sum(row.seconds for row in rows), 1),
        "faults": parts(rows),
    }


def of_hunts(hunts: Sequence[Hunt]) -> dict[str, Any]:
    """The figures of a search for planted bugs."""
    return {
        "planted": len(hunts),
        "found": sum(one.found for one in hunts),
        "bugs": {
            one.sabotage: {
                "found": one.found,
                "trials": len(one.rows),
                "fault": one.rows[-1].fault if one.found else "",
                "wrong": one.rows[-1].wrong,
                "again": one.rows[-1].again,
            }
            for one in hunts
        },
    }


def _told(row: Row, what: object) -> dict[str, object]:
    return {"again": row.again, "what": what}


def surroundings(scale: Scale, transaction_version: int | None) -> dict[str, Any]:
    """When, of which code, with which programs and how much."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "versions": {
            "python": platform.python_version(),
            "confluent-kafka": confluent_kafka.version(),
            "librdkafka": confluent_kafka.libversion()[0],
            "kafka": _kafka(),
        },
        "transaction_version": "newest" if transaction_version is None else transaction_version,
        "scale": asdict(scale),
    }


def _git(*words: str) -> str:
    try:
        said = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return said.stdout.strip()


def _kafka() -> str:
    """The version in the name of the broker's jar; empty where it comes in a container."""
    try:
        found = find_parts(os.environ)
    except NoBroker:
        return ""
    jars = sorted(found.libs.glob("kafka-clients-*.jar")) if isinstance(found, Jvm) else []
    return jars[0].stem.removeprefix("kafka-clients-") if jars else ""


def keep(file: Path | None, figures: Mapping[str, Any]) -> None:
    """Write figures to a file, if one is named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
