"""Cells of a table: what stands in them can't be mistaken for something else."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from qmtl.foundation.wire.keys import encode_key
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


NODES_KEY = f"blake3:{'ab' * 32}:60:1700000040:{'cd' * 16}"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (NODES_KEY.encode(), NODES_KEY),
        (encode_key(("alpha", 7)), ["alpha", 7]),
        (b"\x1b[31m", {"base64": "G1szMW0="}),  # what a terminal would obey
        (b"alpha", {"base64": "YWxwaGE="}),
        (NODES_KEY.encode() + b"\n", {"base64": b64encode(NODES_KEY.encode() + b"\n").decode()}),
    ],
)
def test_a_nodes_key_is_shown_as_its_text_and_no_other_text_is(key: bytes, shown: Any) -> None:
    assert records.key_json(key) == shown


def test_the_key_of_a_nodes_value_is_one_cell() -> None:
    assert records.key_text(NODES_KEY) == NODES_KEY


def test_every_topic_says_what_it_carries_in_one_sentence() -> None:
    for spec in CATALOGUE:
        text = schema.about(spec)
        assert all(message.__name__ in text for message in spec.messages)
        assert "\n" not in text
        assert "(" not in text
    assert schema.about(topic("trade.fills")) == "Fill: One execution"
