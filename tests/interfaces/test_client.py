"""What a person asks of the system comes onto the log once, and only if it can be meant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import InvalidDag, NoAnswer, UnknownWorld
from qmtl.foundation.contracts.dag import DagSubmission
from qmtl.foundation.contracts.world import World, WorldStatus
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.client import Client
from tests.replay.logs import SETTINGS, commit, row
from tests.services.dagmanager.test_cases import CASES, submitted
from tests.services.graphs import T0

BAD = ("id_without_its_prefix", "no_json", "cycle_of_two", "everything_at_once")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One that knows a world, and whom nobody answers."""
    log = open_log(f"embedded:{tmp_path_factory.mktemp('client') / 'log'}")
    prepare(log)
    commit(log, [row("world.state", World("w1", WorldStatus.ACTIVE, SETTINGS, T0))])
    yield Client(log, [], 0.01)
    log.close()


def published(client: Client) -> list[object]:
    return [
        codec.decode(one.value)
        for one in read_all(client.log, all_partitions(client.log, "dag.submissions"))
        if one.value is not None
    ]


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_would_be_refused_is_refused_before_anything_is_published(
    client: Client, name: str
) -> None:
    before = published(client)
    with pytest.raises(InvalidDag) as caught:
        client.submit(DagSubmission(name, "w1", submitted(name), T0))
    expected = CASES[name]["refused"]
    assert (caught.value.code, [[one.code, one.path] for one in caught.value.reasons]) == (
        expected["code"],
        expected["reasons"],
    )
    assert published(client) == before


def test_nothing_is_published_to_a_world_that_nobody_made(client: Client) -> None:
    before = published(client)
    with pytest.raises(UnknownWorld):
        client.submit(DagSubmission("s", "w2", submitted("crossing"), T0))
    assert published(client) == before


def test_a_sound_message_is_published_once_however_often_it_is_sent(client: Client) -> None:
    before = published(client)
    sound = DagSubmission("sound", "w1", submitted("crossing"), T0)
    for _ in range(2):
        with pytest.raises(NoAnswer):
            client.submit(sound)
    assert published(client) == [*before, sound]
