"""The hash and its extended output, plain and in a domain, against the published vectors of the BLAKE3 project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.canonical import blake3_hex, derived_hex

PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parent / "blake3_vectors.json").read_text())
CASES = PUBLISHED["cases"]


def filled(length: int) -> bytes:
    """The input of a vector: 0, 1, 2, …, 250, again and again."""
    return bytes(at % 251 for at in range(length))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["input_len"]))
def test_hash_and_extended_output_are_the_published_ones(case: dict[str, Any]) -> None:
    data, whole = filled(case["input_len"]), case["hash"]
    assert blake3_hex(data) == whole[:64]
    for length in (1, 16, 64, 131):
        assert blake3_hex(data, length) == whole[: 2 * length]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["input_len"]))
def test_the_output_in_a_domain_is_the_published_one(case: dict[str, Any]) -> None:
    data, context = filled(case["input_len"]), PUBLISHED["context_string"]
    for length in (16, 32, 64, 131):
        assert derived_hex(data, context, length) == case["derive_key"][: 2 * length]
