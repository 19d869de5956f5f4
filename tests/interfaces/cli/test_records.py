"""Cells of a table: what stands in them can't be mistaken for something else."""

from __future__ import annotations

from typing import Any

import pytest

from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.interfaces.cli import records, schema


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (["demo", "strategy:sma", "BTC-USD"], "demo strategy:sma BTC-USD"),
        (["demo", 7, -1], "demo 7 -1"),
        (["demo", "", "x"], 'demo "" x'),
        (["de mo"], '"de mo"'),
        (['"', "a"], '"\\"" a'),
        ([], ""),
        ({"base64": "/w=="}, '{"base64": "/w=="}'),
    ],
)
def test_the_parts_of_a_key_can_be_told_apart(key: Any, shown: str) -> None:
    assert records.key_text(key) == shown


def test_every_topic_says_what_it_carries_in_one_sentence() -> None:
    for spec in CATALOGUE:
        text = schema.about(spec)
        assert all(message.__name__ in text for message in spec.messages)
        assert "\n" not in text
        assert "(" not in text
    assert schema.about(topic("trade.fills")) == "Fill: One execution"
