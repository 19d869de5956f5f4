"""What the topic admin has found: topics that are there or not, and topics that are gone."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from qmtl.foundation.common.errors import TopicCollision, TopicMismatch
from qmtl.foundation.contracts.dag import (
    AdminAct,
    Queue,
    QueueRole,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicReport,
    VersionSentinel,
)
from qmtl.foundation.contracts.retention import ReportTopicArchived
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.garbage import note_load
from qmtl.services.dagmanager.queues import (
    ask_for,
    forget,
    not_stored,
    queue_for,
    removed,
    renamed,
    spared,
    stored,
)
from qmtl.services.dagmanager.versions import activate, fail


def report(act: Act, message: TopicReport) -> None:
    """Take a report; one that comes again, or of a topic that nobody asked for, changes nothing."""
    queue = act.catalogue.queue(message.topic)
    if queue is None:
        return
    match message:
        case ReportTopicCreated():
            if not queue.ready and not queue.removing:
                _created(act, queue, message)
        case ReportTopicRemoved():
            note_load(act, message.broker_load_percent)
            if queue.removing:
                _removed(act, queue, message)
        case ReportTopicArchived():
            note_load(act, message.broker_load_percent)
            if queue.archiving and queue.archivals == message.number:
                (stored if message.archived else not_stored)(act, queue, message)
        case _:
            assert_never(message)


def _created(act: Act, queue: Queue, message: ReportTopicCreated) -> None:
    waiting = _waiting(act, queue)
    if not message.created:
        act.note(AdminAct.NOT_CREATED, queue.topic, queue.node_id, f"[{message.code}] {message.detail}")
        if message.code == TopicCollision.code:
            renamed(act, queue, wanted=bool(waiting))
            return
        if message.code == TopicMismatch.code:
            forget(act, queue)  # what is there may be somebody else's, and an orphan is removed one day
        for one in waiting:
            fail(act, one, f"topic {queue.topic} could not be made: [{message.code}] {message.detail}")
        return
    act.note(AdminAct.CREATED, queue.topic, queue.node_id)
    act.catalogue.put_queue(replace(queue, ready=True), act.at_ms)
    _activate(act, waiting)


def _removed(act: Act, queue: Queue, message: ReportTopicRemoved) -> None:
    waiting = _waiting(act, queue)
    if not message.removed:
        spared(act, queue, message)
        _activate(act, waiting)
        return
    removed(act, queue, message)
    node = act.catalogue.node(queue.node_id)
    if node is not None and waiting:  # somebody has asked for it meanwhile
        ask_for(act, queue_for(act.catalogue, node, waiting[0].version))


def _waiting(act: Act, queue: Queue) -> list[VersionSentinel]:
    if queue.role is not QueueRole.CURRENT:
        return []
    found = (act.catalogue.sentinel(one) for one in act.catalogue.waiting_for(queue.node_id))
    return [one for one in found if one is not None]


def _activate(act: Act, waiting: list[VersionSentinel]) -> None:
    for one in waiting:
        if act.catalogue.is_complete(one.sentinel_id):
            activate(act, one)
