"""Which rows there are by the written rules, out of what was said and done, and no table of ours but which queues there are.

The rules. The row of a node comes with the first version that has it. From the first tick that finds no version and no queue that has it
its time runs, and begins anew where one has it meanwhile; once it is over, the row goes with the tick that finds no row of a node that reads
it, of which the tick may just have dropped the last. What was decided on a message goes with the tick at which that is as long ago; of
what is not known, and says no later time than anything that went, nobody knows whether it comes again: it is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tests.services.dagmanager.oracle import canonical

KEPT_MS = 30 * 24 * 60 * 60 * 1000
TOO_LATE = "QMTL-607"


def id_of(message: Any) -> str:
    """Of a submission or a command, or its outcome; empty of all else."""
    return str(getattr(message, "submission_id", "") or getattr(message, "command_id", ""))


@dataclass
class Keeping:
    """Attributes:
    nodes: since when nobody needs each of them, None where somebody does or no tick has come since.
    reads: by node, what it reads; of all nodes that there ever were.
    decided: when what was decided, by the id of the message.
    forgotten_ms: the latest that anything was decided which is forgotten.
    """

    nodes: dict[str, int | None] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)
    decided: dict[str, int] = field(default_factory=dict)
    forgotten_ms: int = -1

    def learn(self, message: dict[str, Any]) -> None:
        """What its nodes read, whether they ever come to be or not."""
        ids = canonical(message)["nodes"]
        for one in message["nodes"]:
            self.reads[ids[one["name"]]] = {ids[name] for name in one.get("inputs", [])}

    def decide(self, name: str, now_ms: int) -> None:
        self.decided.setdefault(name, now_ms)

    def is_late(self, name: str, said_ms: int) -> bool:
        return name not in self.decided and said_ms <= self.forgotten_ms

    def see(self, needed: Collection[str]) -> None:
        """From now on versions and queues have these."""
        self.nodes.update(dict.fromkeys(needed))

    def tick(self, now_ms: int, needed: Collection[str]) -> None:
        self.see(needed)
        for node, since_ms in self.nodes.items():
            if since_ms is None and node not in needed:
                self.nodes[node] = now_ms
        while gone := [node for node in self.nodes if self._is_over(node, now_ms)]:
            for node in gone:
                del self.nodes[node]
        for name, at_ms in list(self.decided.items()):
            if now_ms - at_ms >= KEPT_MS:
                self.forgotten_ms = max(self.forgotten_ms, self.decided.pop(name))

    def _is_over(self, node: str, now_ms: int) -> bool:
        since_ms = self.nodes[node]
        is_read = any(node in self.reads[other] for other in self.nodes)
        return since_ms is not None and now_ms - since_ms >= KEPT_MS and not is_read
