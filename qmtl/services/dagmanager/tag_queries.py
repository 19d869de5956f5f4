"""Which nodes answer the tag queries: memory of the catalogue, by tag and interval, so that a change asks only whom it concerns.

A node answers if its topic carries data, it has any or all of the tags and the interval that are asked for, and it emits numbers. A
tag query answers none, nor does a node that is computed from one: so whatever comes, nothing reads itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.dag import ComputeNode, Queue
from qmtl.foundation.contracts.node import NodeValue
from qmtl.runtime.indicators.registry import BUILTINS, TAG_QUERY
from qmtl.runtime.indicators.tag_query import TagQueryParams
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO
from qmtl.runtime.sdk.python_node import PYTHON
from qmtl.services.dagmanager.indexes import COMPUTE_TAGS
from qmtl.services.dagmanager.kinds import gives_targets

MAX_ANSWERS: Final = 1_000
"""Nodes that answer one query, at most: a plan names them all."""

TagAt = tuple[str, int]
"""A tag, and an interval in seconds."""

StrategyKey = tuple[str, str]
"""World id, strategy id."""


def question_of(node: ComputeNode) -> TagQueryParams | None:
    """What a node asks for; None where it is no tag query."""
    if node.node_type != TAG_QUERY:
        return None
    params = own_params(json.loads(node.params_canon, parse_float=Decimal))
    question: TagQueryParams = BUILTINS[TAG_QUERY].parse(params, node.period)
    return question


def is_number(node: ComputeNode) -> bool:
    """Whether a node emits numbers; one of a type that is not known any more emits nothing."""
    if node.node_type == PYTHON:
        return not gives_targets(node)
    known = BUILTINS.get(node.node_type)
    return node.node_type == PORTFOLIO or (known is not None and known.output is NodeValue)


@dataclass(slots=True)
class TagQueries:
    """Questions and answers, each by what it is looked up by."""

    _questions: dict[str, TagQueryParams] = field(default_factory=dict)
    _asking: dict[str, None] = field(default_factory=dict)
    _answers: dict[TagAt, dict[str, str]] = field(default_factory=dict)
    _asked: dict[TagAt, dict[str, None]] = field(default_factory=dict)
    _askers: dict[str, dict[StrategyKey, int]] = field(default_factory=dict)
    _changed: dict[str, None] = field(default_factory=dict)

    # ---- nodes ---------------------------------------------------------------------------------------------------------

    def learn(self, node: ComputeNode) -> None:
        """Take a node whose inputs were taken before."""
        question = question_of(node)
        if question is not None:
            self._questions[node.node_id] = question
        if question is not None or any(one in self._asking for one in node.dependencies):
            self._asking[node.node_id] = None

    def learn_all(self, nodes: Collection[ComputeNode]) -> None:
        """Take nodes in any order."""
        left = [node for node in nodes if node.node_type == TAG_QUERY]
        readers: dict[str, list[ComputeNode]] = {}
        for node in nodes if left else ():
            for one in node.dependencies:
                readers.setdefault(one, []).append(node)
        for node in left:  # grows while it is read
            self.learn(node)
            left += [one for one in readers.get(node.node_id, ()) if one.node_id not in self._asking]

    def forget(self, node_id: str) -> None:
        """Forget a node that no version has, and no other node reads."""
        self._questions.pop(node_id, None)
        self._asking.pop(node_id, None)

    def can_answer(self, node: ComputeNode) -> bool:
        """Whether a node that carries data answers those who ask for its tags."""
        return node.node_id not in self._asking and is_number(node)

    # ---- questions -------------------------------------------------------------------------------------------------------

    def ask(self, strategy: StrategyKey, node_ids: Iterable[str], by: int) -> None:
        """Count the active versions of a strategy that have its questions."""
        for query in self._questions.keys() & node_ids if self._questions else ():
            askers = self._askers.setdefault(query, {})
            askers[strategy] = askers.get(strategy, 0) + by
            if not askers[strategy]:
                del askers[strategy]
            question = self._questions[query]
            for tag in question.query_tags:
                asked = self._asked.setdefault((tag, question.interval), {})
                if askers:
                    asked[query] = None
                else:
                    asked.pop(query, None)
                if not asked:
                    del self._asked[tag, question.interval]
            if not askers:
                del self._askers[query]

    def changed(self) -> list[StrategyKey]:
        """The strategies that somebody else answers now, or no longer, in their order; once."""
        if not self._changed:
            return []
        found = {strategy for query in self._changed for strategy in self._askers.get(query, ())}
        self._changed.clear()
        return sorted(found)

    # ---- answers ---------------------------------------------------------------------------------------------------------

    def carries(self, queue: Queue, node: ComputeNode, *, carries: bool) -> None:
        """Take note that a queue carries data from now on, or no longer."""
        if not self.can_answer(node):
            return
        for tag in COMPUTE_TAGS.values(node):
            key = (tag, queue.interval)
            topics = self._answers.setdefault(key, {})
            if carries:
                topics[queue.topic] = queue.node_id
            else:
                topics.pop(queue.topic, None)
            if not topics:
                del self._answers[key]
            for query in self._asked.get(key, ()):
                if self._questions[query].is_answered_by(queue.tags):
                    self._changed[query] = None

    def answers(self, question: TagQueryParams) -> tuple[str, ...]:
        """The ids of all nodes that answer, in the order of their topics."""
        found = [self._answers.get((tag, question.interval), {}) for tag in question.query_tags]
        if question.match_mode == "any":
            topics = {topic: node_id for one in found for topic, node_id in one.items()}
        else:
            fewest = min(found, key=len)
            topics = {
                topic: node_id for topic, node_id in fewest.items() if all(topic in one for one in found)
            }
        return tuple([topics[topic] for topic in sorted(topics)])

    def answers_to(self, query: str) -> tuple[str, ...]:
        """As `answers`, to a tag query that exists."""
        return self.answers(self._questions[query])
