"""Who needs the rows of nodes and artifacts, and what is left of nodes whose rows went: memory of the catalogue beside their tables.

The row of a node is needed by every version and every queue that has it; once its time is over it stays as long as the row of another
node reads it, or was given another id because of it. That of an artifact is needed by the rows of nodes that use it. References are counted, and stored nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from qmtl.engine.table import Table
from qmtl.foundation.common.identity import passed_over
from qmtl.foundation.contracts.dag import Artifact, ComputeNode
from qmtl.foundation.contracts.retention import TopicLife
from qmtl.services.dagmanager.counting import add
from qmtl.services.dagmanager.graph import content_of
from qmtl.services.dagmanager.lines import Line
from qmtl.services.dagmanager.naming import life_prefix
from qmtl.services.dagmanager.node_artifacts import used_by


@dataclass(slots=True)
class Needs:
    """Counted as rows come and go.

    Attributes:
        nodes: the rows of nodes, which are the catalogue's to keep.
        needed: by node, versions and queues that have it.
        dependents: by node, rows of nodes that read it, and of those that would have its id if other content had not held it.
        users: by artifact, rows of nodes that use it.
        lives: by the prefix of ids, how far the names of topics went of nodes whose rows are gone.
        idle_nodes: those that nothing has, but not those whose time runs while the row of another one reads them.
        idle_artifacts: those that no row uses.
    """

    tables: Mapping[str, Table] = field(compare=False)
    nodes: Mapping[str, ComputeNode] = field(compare=False)
    needed: Counter[str] = field(default_factory=Counter)
    dependents: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    lives: dict[str, int] = field(default_factory=dict)
    idle_nodes: Line = field(default_factory=Line)
    idle_artifacts: Line = field(default_factory=Line)

    def restore(self) -> None:
        """Judge everything, once all rows were counted."""
        for node_id in self.nodes:
            self._judge(node_id)
        for artifact in self.tables["dag.artifacts"].load():
            self._judge_artifact(artifact)
        self.lives.update({row.prefix: row.generation for row in self.tables["dag.lives"].load()})

    def first_generation(self, node_id: str) -> int:
        """With which generation a node begins whose row is new: no topic of a row that went had the same name."""
        return self.lives.get(life_prefix(node_id), 1)

    # ---- who has nodes ---------------------------------------------------------------------------------------------------

    def count(self, node_ids: Iterable[str], by: int) -> list[str]:
        """Count versions or queues that have these nodes; returns those of which another thing may be true from now on."""
        return add(self.needed, node_ids, by)

    def judge(self, node_ids: Iterable[str]) -> list[ComputeNode]:
        """Find out whether the rows of nodes are needed; returns as they are from now on those that are needed again."""
        found = map(self._judge, node_ids)
        return [one for one in found if one is not None]

    def _judge(self, node_id: str) -> ComputeNode | None:
        node = self.nodes.get(node_id)
        if node is None:
            return None
        since_ms = node.unneeded_since_ms
        if self.needed[node_id]:
            self.idle_nodes.drop(node_id)
            return None if since_ms is None else replace(node, unneeded_since_ms=None)
        if since_ms is not None and self.dependents[node_id]:
            self.idle_nodes.drop(node_id)  # its turn comes with the last one that reads it
        else:
            self.idle_nodes.put(node_id, since_ms)
        return None

    # ---- rows of nodes ---------------------------------------------------------------------------------------------------

    def learn(self, node: ComputeNode) -> list[str]:
        """Count what the row of a new node reads and uses; returns the nodes that are to be judged."""
        for checksum in add(self.users, used_by(node), +1):
            self.judge_artifact(checksum)
        return add(self.dependents, _leans_on(node), +1)

    def forget(self, node: ComputeNode) -> list[str]:
        """Take a row of a node off that is gone, and keep how far its names went; returns the nodes that are to be judged."""
        self.idle_nodes.drop(node.node_id)
        for checksum in add(self.users, used_by(node), -1):
            self.judge_artifact(checksum)
        if node.generation > self.first_generation(node.node_id):
            life = TopicLife(life_prefix(node.node_id), node.generation)
            self.tables["dag.lives"].put(life)
            self.lives[life.prefix] = life.generation
        return add(self.dependents, _leans_on(node), -1)

    # ---- artifacts -------------------------------------------------------------------------------------------------------

    def put_artifact(self, artifact: Artifact) -> None:
        """Write an artifact down."""
        self.tables["dag.artifacts"].put(artifact)
        self._judge_artifact(artifact)

    def drop_artifact(self, checksum: str) -> None:
        """Forget an artifact that no row of a node uses."""
        self.tables["dag.artifacts"].delete(checksum)
        self.idle_artifacts.drop(checksum)

    def judge_artifact(self, checksum: str) -> None:
        """Find out whether an artifact is needed; the time of one that is again will begin anew."""
        artifact: Artifact | None = self.tables["dag.artifacts"].get(checksum)
        if artifact is not None:
            self._judge_artifact(artifact)

    def _judge_artifact(self, artifact: Artifact) -> None:
        if not self.users[artifact.checksum]:
            self.idle_artifacts.put(artifact.checksum, artifact.unneeded_since_ms)
            return
        self.idle_artifacts.drop(artifact.checksum)
        if artifact.unneeded_since_ms is not None:
            self.tables["dag.artifacts"].put(replace(artifact, unneeded_since_ms=None))


def _leans_on(node: ComputeNode) -> dict[str, None]:
    """The nodes whose rows one needs: those that it reads, and those whose ids it was not given, or it would be given one of them later,
    beside the id that it has."""
    return dict.fromkeys((*node.dependencies, *passed_over(node.node_id, lambda: content_of(node))))
