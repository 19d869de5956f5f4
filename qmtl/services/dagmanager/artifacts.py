"""Models and other files that nodes compute with: which there are, and who uses them. Their bytes stay outside of the log.

A file is its checksum: that is the key of its row, and what a node that uses it has among its functional parameters. Where it lies is
only shown; its row has the path that was said last. It goes once no row of a node has used it for long (`expiry`).
"""

from __future__ import annotations

from collections.abc import Iterable

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import Artifact, ComputeNode, Edge, Relation
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.faults import Faults
from qmtl.services.dagmanager.node_artifacts import used_by


def check_same(catalogue: Catalogue, artifacts: Iterable[Artifact], faults: Faults) -> None:
    """Hold artifacts to what is known of them: one checksum is one file, of one size."""
    for place, one in enumerate(artifacts):
        known = catalogue.artifact(one.checksum)
        if known is not None and known.size != one.size:
            rule = f"the artifact {one.checksum} is known with {known.size} bytes"
            faults.add(InvalidDag, f"artifacts[{place}].size", one.size, rule, "Compute its checksum again.")


def write(act: Act, artifacts: Iterable[Artifact], nodes: Iterable[ComputeNode]) -> None:
    """Write down artifacts of which something is new, and which new nodes use them. One that is said again begins its time anew."""
    for one in artifacts:
        if act.catalogue.artifact(one.checksum) != one:
            act.catalogue.needs.put_artifact(one)
    for node in nodes:
        for checksum in used_by(node):
            act.step.table("dag.edges").put(Edge(Relation.USED_BY, checksum, node.node_id))
