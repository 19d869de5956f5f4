"""What the world service decides, rule by rule, and that its rows follow from the commands alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.contracts.world import (
    Activation,
    CreateWorld,
    EffectiveMode,
    Instrument,
    PositionSide,
    SetActivation,
    World,
    WorldSettings,
    WorldStatus,
)
from qmtl.services.worldservice.rules import decide

BTC = Instrument("BTC-USD", Decimal("0.01"), Decimal("0.0001"), Decimal("0.0001"))
SETTINGS = WorldSettings("USD", Decimal(100), Decimal("0.001"), Decimal(0), (BTC,))
CREATE = CreateWorld("c1", "w", SETTINGS, 7)
WORLD = World("w", WorldStatus.ACTIVE, SETTINGS, 7)
OPEN = SetActivation(
    "c2", "w", "s", PositionSide.LONG, True, Decimal(1), False, False, EffectiveMode.PAPER, 9
)


def opened(**changed: Any) -> Activation:
    row, outcome = decide(replace(OPEN, **changed), WORLD, None)
    assert outcome.accepted
    assert isinstance(row, Activation)
    return row


# ---- worlds --------------------------------------------------------------------------------------------------------


def test_a_world_is_created_active_with_what_was_asked() -> None:
    row, outcome = decide(CREATE, None, None)
    assert row == WORLD
    assert (outcome.world_id, outcome.command_id, outcome.accepted, outcome.code) == ("w", "c1", True, "")


@pytest.mark.parametrize("name", ["", " ", "w 1", "w:1", "w\x00", "w" * 201], ids=ascii)
def test_no_world_gets_a_name_to_which_nothing_can_be_published(name: str) -> None:
    row, outcome = decide(replace(CREATE, world_id=name), None, None)
    assert (row, outcome.accepted, outcome.code) == (None, False, "QMTL-508")
    assert outcome.detail.startswith("world_id was ")
    assert outcome.detail.endswith("Say it under another id.")


def test_the_same_world_again_is_accepted_and_changes_nothing() -> None:
    row, outcome = decide(replace(CREATE, command_id="c9", at_ms=99), WORLD, None)
    assert (row, outcome.accepted) == (None, True)


@pytest.mark.parametrize(
    "changed, refused",
    [
        ({"initial_cash": Decimal(0)}, "initial_cash was 0"),
        ({"initial_cash": Decimal(-1)}, "initial_cash was -1"),
        ({"fee_rate": Decimal("-0.001")}, "fee_rate was -0.001"),
        ({"fee_rate": Decimal(1)}, "fee_rate was 1"),
        ({"fee_rate": Decimal("0.999")}, ""),
        ({"fee_rate": Decimal(0)}, ""),
        ({"slippage_rate": Decimal("-0.1")}, "slippage_rate was -0.1"),
        ({"slippage_rate": Decimal(1)}, "slippage_rate was 1"),
        ({"instruments": (replace(BTC, tick=Decimal(0)),)}, "'BTC-USD' has tick 0"),
        ({"instruments": (replace(BTC, lot=Decimal(-1)),)}, "lot -1"),
        ({"instruments": (replace(BTC, minimum=Decimal(-1)),)}, "minimum -1"),
        ({"instruments": (replace(BTC, minimum=Decimal(0)),)}, ""),
        ({"instruments": ()}, ""),
    ],
)
@pytest.mark.parametrize("known", [None, WORLD])
def test_impossible_settings_are_refused_by_field_and_value(
    changed: dict[str, Any], refused: str, known: World | None
) -> None:
    wish = replace(CREATE, settings=replace(SETTINGS, **changed))
    row, outcome = decide(wish, known, None)
    if refused:
        assert (row, outcome.accepted, outcome.code) == (None, False, "QMTL-602")
        assert refused in outcome.detail
    elif known is None:
        assert row == World("w", WorldStatus.ACTIVE, wish.settings, 7)


@pytest.mark.parametrize(
    "changed",
    [{"currency": "EUR"}, {"initial_cash": Decimal(101)}, {"instruments": ()}, {"dataset_fingerprint": "x"}],
)
def test_a_world_that_exists_keeps_its_settings(changed: dict[str, Any]) -> None:
    row, outcome = decide(replace(CREATE, settings=replace(SETTINGS, **changed)), WORLD, None)
    assert (row, outcome.accepted, outcome.code) == (None, False, "QMTL-602")
    assert "other settings" in outcome.detail


# ---- gates ---------------------------------------------------------------------------------------------------------


def test_the_first_activation_of_a_side_has_version_1_and_says_so_in_its_etag() -> None:
    row = opened()
    assert (row.version, row.etag, row.updated_at_ms, row.active) == (1, "act:w:s:long:1", 9, True)


def test_a_gate_of_no_world_is_refused() -> None:
    row, outcome = decide(OPEN, None, None)
    assert (row, outcome.accepted, outcome.code) == (None, False, "QMTL-601")
    assert "'w'" in outcome.detail


@pytest.mark.parametrize(
    "weight, accepted", [("0", True), ("1", True), ("0.5", True), ("-0.1", False), ("1.01", False)]
)
def test_a_weight_is_from_0_to_1(weight: str, accepted: bool) -> None:
    row, outcome = decide(replace(OPEN, weight=Decimal(weight)), WORLD, None)
    assert outcome.accepted is accepted
    assert (row is not None) is accepted
    assert outcome.code == ("" if accepted else "QMTL-602")


CHANGES: list[dict[str, Any]] = [
    {"active": False},
    {"weight": Decimal("0.5")},
    {"freeze": True},
    {"drain": True},
    {"drain": True, "drain_cancels": True},
    {"effective_mode": EffectiveMode.SHADOW},
]


@pytest.mark.parametrize("changed", CHANGES)
def test_each_change_of_a_gate_is_a_new_version(changed: dict[str, Any]) -> None:
    row, outcome = decide(replace(OPEN, command_id="c3", at_ms=11, **changed), WORLD, opened())
    assert isinstance(row, Activation)
    assert outcome.accepted
    assert (row.version, row.etag, row.updated_at_ms) == (2, "act:w:s:long:2", 11)
    assert all(getattr(row, name) == value for name, value in changed.items())


def test_a_drain_that_begins_to_cancel_is_a_change() -> None:
    wish = replace(OPEN, command_id="c3", drain=True, drain_cancels=True)
    row, _ = decide(wish, WORLD, opened(drain=True))
    assert isinstance(row, Activation)
    assert (row.drain_cancels, row.version) == (True, 2)


@pytest.mark.parametrize("changed", CHANGES)
def test_a_wish_that_is_true_already_is_accepted_without_a_new_version(changed: dict[str, Any]) -> None:
    row, outcome = decide(replace(OPEN, command_id="c3", at_ms=11, **changed), WORLD, opened(**changed))
    assert (row, outcome.accepted) == (None, True)


wishes = st.builds(
    replace,
    st.just(OPEN),
    command_id=st.text("abc", min_size=1, max_size=3),
    active=st.booleans(),
    weight=st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1), Decimal(2)]),
    freeze=st.booleans(),
    drain=st.booleans(),
    drain_cancels=st.booleans(),
    effective_mode=st.sampled_from(EffectiveMode),
    at_ms=st.integers(0, 1000),
)


@given(st.lists(wishes, max_size=12))
def test_a_version_counts_the_changes_and_nothing_but_them(commands: list[SetActivation]) -> None:
    row: Activation | None = None
    seen = []
    for command in commands:
        found, outcome = decide(command, WORLD, row)
        assert outcome.accepted is (command.weight <= 1 and command.drain >= command.drain_cancels)
        if isinstance(found, Activation):
            assert row is None or replace(found, version=0, etag="", updated_at_ms=0) != replace(
                row, version=0, etag="", updated_at_ms=0
            )
            row = found
            seen.append(found.version)
    assert seen == list(range(1, len(seen) + 1))
