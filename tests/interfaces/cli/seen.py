"""What a test knows of a log without the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qmtl.engine.log.port import Record, TopicPartition


@dataclass(frozen=True)
class Seen:
    """A log, all its records by topic (partition by partition), and where it ends."""

    directory: Path
    records: Mapping[str, list[Record]]
    ends: Mapping[TopicPartition, int]

    @property
    def address(self) -> str:
        return f"embedded:{self.directory}"
