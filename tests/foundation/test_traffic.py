"""The split of traffic: a rule of id, key and weight alone, that takes no key back and gives the share that was asked for."""

from __future__ import annotations

import subprocess
import sys
from math import sqrt

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.traffic import BASIS_POINTS, is_canarys, place_of
from qmtl.foundation.contracts.dag import FULL_WEIGHT

CANARY = "w1:s1:v2:0123456789abcdef"
KEYS = 100_000
SIGMAS = 5
"""A count of a fair split is further off once in 1.7 million canaries."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
weights = st.integers(0, BASIS_POINTS)


@pytest.fixture(scope="module")
def places() -> list[int]:
    """Where the keys of one canary lie, as parts of 2^64."""
    return [place_of(CANARY, f"S{number}-USD") for number in range(KEYS)]


@settings(deadline=None)
@given(texts, texts, weights, weights)
def test_a_key_that_is_the_canarys_stays_so_at_every_higher_weight(
    sentinel_id: str, key: str, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    assert is_canarys(sentinel_id, key, low) <= is_canarys(sentinel_id, key, high)


@settings(deadline=None)
@given(texts, texts)
def test_of_no_traffic_a_canary_has_no_key_and_of_all_every_key(sentinel_id: str, key: str) -> None:
    assert not is_canarys(sentinel_id, key, 0)
    assert is_canarys(sentinel_id, key, BASIS_POINTS)
    assert BASIS_POINTS == FULL_WEIGHT


def test_every_key_changes_hands_at_one_weight_and_the_rule_is_the_one_that_is_written_down(
    places: list[int],
) -> None:
    for number in range(0, KEYS, 997):
        first = (
            places[number] * 10_000 // 2**64 + 1
        )  # the least weight whose part of the places reaches past it
        key = f"S{number}-USD"
        assert [is_canarys(CANARY, key, weight) for weight in (first - 1, first)] == [False, True]


@pytest.mark.parametrize("weight", [1, 10, 100, 1000, 2500, 5000, 9000, 9999])
def test_a_canary_gets_the_share_of_the_keys_that_chance_allows(places: list[int], weight: int) -> None:
    share = weight / BASIS_POINTS
    found = sum(place * BASIS_POINTS < weight << 64 for place in places)
    assert abs(found - KEYS * share) <= SIGMAS * sqrt(KEYS * share * (1 - share))


def test_the_keys_of_two_canaries_have_nothing_to_do_with_each_other(places: list[int]) -> None:
    """Of the keys of one, and of the others, the next canary has the same share; also where the ids differ in a digit."""
    for other in (CANARY[:-1] + "e", "w2:s1:v2:0123456789abcdef", "v3"):
        theirs = [place_of(other, f"S{number}-USD") for number in range(KEYS)]
        for weight in (1000, 5000):
            share = weight / BASIS_POINTS
            both = sum(max(pair) * BASIS_POINTS < weight << 64 for pair in zip(places, theirs, strict=True))
            joint = share * share
            assert abs(both - KEYS * joint) <= SIGMAS * sqrt(KEYS * joint * (1 - joint))


def test_id_and_key_are_told_apart() -> None:
    assert place_of("ab", "c") != place_of("a", "bc")
    assert place_of("a", "b") != place_of("b", "a")


@pytest.mark.parametrize(
    "sentinel_id, key, place",
    [
        (CANARY, "BTC-USD", 0x1D9A538FD8E04C29),
        (CANARY, "ETH-USD", 0x97197F2DE53CD5F1),
        ("w1:s1:v3:0123456789abcdef", "BTC-USD", 0xF15581960918BE02),
    ],
)
def test_a_place_is_what_it_was_for_good(sentinel_id: str, key: str, place: int) -> None:
    """Golden: another value would move symbols between versions that run. The bytes are put together by hand once more."""
    texts = b"".join(b"s" + len(text).to_bytes(8, "big") + text.encode() for text in (sentinel_id, key))
    data = b"l" + len(texts).to_bytes(8, "big") + texts
    said = blake3(data, derive_key_context="qmtl canary traffic v1").digest(length=8)
    assert place_of(sentinel_id, key) == place == int.from_bytes(said, "big")


def test_another_process_with_another_hash_seed_gives_the_same_answer() -> None:
    code = (
        "from qmtl.foundation.common.traffic import is_canarys\n"
        f"print([number for number in range(500) if is_canarys({CANARY!r}, f'S{{number}}-USD', 2500)])"
    )
    mine = [number for number in range(500) if is_canarys(CANARY, f"S{number}-USD", 2500)]
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(mine)


@pytest.mark.parametrize("weight", [-1, BASIS_POINTS + 1])
def test_a_weight_that_is_none_is_refused(weight: int) -> None:
    with pytest.raises(InvalidValue, match=f"traffic_weight was the number {weight}; basis points"):
        is_canarys(CANARY, "BTC-USD", weight)
