"""Who takes part in a group, seen from outside: Kafka tells, the embedded log says that it doesn't know."""

from __future__ import annotations

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import Group, GroupState
from tests.contract.driving import events, join, until


def test_an_embedded_log_does_not_pretend_to_know(embedded_log: EmbeddedLog) -> None:
    embedded_log.ensure_topics([events("a", 2)])
    assert embedded_log.members("g") == Group(GroupState.UNKNOWN)
    join(embedded_log, "g", "a")
    assert embedded_log.members("g") == Group(GroupState.UNKNOWN)


def test_a_group_that_never_was_is_empty(kafka_log: KafkaLog) -> None:
    assert kafka_log.members("g") == Group(GroupState.EMPTY)


@pytest.mark.parametrize("protocol", GROUP_PROTOCOLS)
def test_members_are_told_by_the_names_they_joined_with_and_tasks_by_their_numbers(
    kafka_log: KafkaLog, protocol: GroupProtocol
) -> None:
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(group_protocol=protocol))
    log.ensure_topics([events("a", 3)])
    one = join(log, "g", "a", "one")
    (alone,) = log.members("g").members
    assert (log.members("g").state, alone.member, alone.tasks) == (
        GroupState.RUNNING,
        "g.one",
        frozenset({0, 1, 2}),
    )
    assert alone.host
    two = log.membership("g", "g.two", "a")

    def shared() -> bool:
        mine, other = one.membership.poll(0.02), two.poll(0.02)
        return bool(mine and other) and log.members("g").state is GroupState.RUNNING

    until(shared)
    found = {member.member: member.tasks for member in log.members("g").members}
    assert found == {"g.one": one.membership.poll(), "g.two": two.poll()}
    assert sorted(number for tasks in found.values() for number in tasks) == [0, 1, 2]
    two.close()
    one.membership.close()
    log.close()


def test_another_name_space_has_other_members(kafka_log: KafkaLog, kafka_bootstrap: str) -> None:
    kafka_log.ensure_topics([events("a")])
    joined = join(kafka_log, "g", "a")
    other = KafkaLog(kafka_bootstrap, f"not-{kafka_log.namespace}")
    assert other.members("g") == Group(GroupState.EMPTY)
    other.close()
    joined.membership.close()
