"""A topic with too few replicas shows wherever topics are shown, for as long as it has too few, whoever made it and when."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import TopicStanding
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.foundation.contracts.dag import Queue, TopicClass
from qmtl.foundation.wire.topics import CATALOGUE, node_topic
from qmtl.interfaces import replicas
from qmtl.interfaces.cli.dagmanager.queues import as_row, cells
from qmtl.interfaces.dag_queues import queue_stats
from qmtl.interfaces.dag_survey import LOOKS_A_CHECK, Surveyor
from qmtl.interfaces.replicas import ReplicaCheck
from tests.contract.driving import events
from tests.replay.logs import commit, row, tombstone

QUEUE = Queue("q", "n", TopicClass.INDICATOR, 1, 60, 1, 1, 0, ("crypto",), ready=True)


class Clustered(SimulatedLog):
    """A log over connections, some topics of which have fewer replicas than they were made with."""

    def __init__(self) -> None:
        super().__init__()
        self.has: dict[str, int] = {}
        self.asked: list[int] = []

    def client_errors(self) -> Mapping[str, int]:
        return {}

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        self.asked.append(len(names))
        found = super().look_up(names)
        return {
            name: one
            if one.found is None or name not in self.has
            else replace(one, found=replace(one.found, replication=self.has[name]))
            for name, one in found.items()
        }


NAMES = st.sampled_from([f"t{at}" for at in range(6)])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("has"), NAMES, st.integers(1, 3)),
        st.tuples(st.just("wanted"), NAMES, st.integers(1, 3)),
        st.tuples(st.just("gone"), NAMES, st.just(0)),
        st.tuples(st.just("look"), st.just(""), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(ACTS)
def test_after_a_look_at_each_part_every_topic_with_too_few_is_counted_and_no_other(
    acts: Sequence[tuple[str, str, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(replicas, "PART", 2)
        log = Clustered()
        log.ensure_topics([events(f"t{at}") for at in range(5)])  # one of the names is no topic
        log.has = {f"t{at}": 3 for at in range(5)}
        check, wanted = ReplicaCheck(log), dict[str, int]()
        for act, name, count in acts:
            match act:
                case "has":
                    log.has[name] = count
                case "wanted":
                    wanted[name] = count
                case "gone":
                    wanted.pop(name, None)
                case _:
                    assert check.look(wanted) <= len(wanted)
        *_, found = [check.look(wanted) for _ in range(6)]  # wherever it stands, this is all around
        thin = [name for name, count in wanted.items() if name != "t5" and log.has[name] < count]
        assert found == len(thin)
        assert max(log.asked) <= 2


def test_a_log_that_is_the_only_copy_of_itself_lacks_none() -> None:
    log = SimulatedLog()
    log.ensure_topics([events("t")])
    assert ReplicaCheck(log).look({"t": 99}) == 0


def surveyed(surveyor: Surveyor) -> int:
    """Once it has looked at them again, which it does with one of so many looks."""
    return [surveyor.look().thin for _ in range(LOOKS_A_CHECK)][-1]


def test_a_survey_counts_those_of_the_catalogue_and_of_nodes_until_they_have_more() -> None:
    log = Clustered()
    specs = [*CATALOGUE, *(node_topic(name, TopicClass.INDICATOR) for name in ("q", "old"))]
    log.ensure_topics(specs)
    log.has = whole = {spec.name: spec.replication for spec in specs}
    commit(log, [row("dag.queues", replace(QUEUE, topic=name)) for name in ("q", "old", "not made yet")])
    surveyor = Surveyor(log, lambda seconds: None)
    assert surveyor.look().thin == 0
    log.has = whole | {"q": 1, "old": 1, "trade.fills": 2, "dag.nodes": 1}
    assert surveyed(surveyor) == 4
    commit(log, [tombstone("dag.queues", "old")])
    log.has["dag.nodes"] = 3
    assert surveyed(surveyor) == 2
    log.has = whole
    assert surveyed(surveyor) == 0


@pytest.mark.parametrize(("has", "thin", "cell"), [(1, True, "1!"), (2, False, 2), (3, False, 3)])
def test_queue_stats_show_how_many_replicas_a_queue_has_and_whether_these_are_too_few(
    has: int, thin: bool, cell: object
) -> None:
    log = Clustered()
    log.ensure_topics([*CATALOGUE, node_topic("q", TopicClass.INDICATOR)])
    commit(log, [row("dag.queues", QUEUE), row("dag.queues", replace(QUEUE, topic="z not made"))])
    log.has = {"q": has}
    (found, not_made), _ = queue_stats(log, (), None, None)
    shown = as_row(found)
    assert (shown["replicas"], shown["replicas_wanted"], shown["under_replicated"]) == (has, 2, thin)
    assert cell in cells(found)
    assert as_row(not_made)["under_replicated"] is None
    (quick, _), _ = queue_stats(log, (), None, None, count=False)
    assert quick.replicas is None
