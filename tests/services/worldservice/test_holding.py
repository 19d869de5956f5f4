"""While hits are uncleared no gate lets a strategy trade more than it did; whatever closes one or takes weight away is never held."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.context import THE_CONTEXT, LogContext, SaidContext
from qmtl.foundation.contracts.world import Activation, EffectiveMode, PositionSide, PromotionHold
from qmtl.foundation.wire.registry import codec
from qmtl.replay.rerun import rerun
from qmtl.services.worldservice.holding import TOWARDS_LIVE, held_by, opens
from qmtl.services.worldservice.processor import WorldService
from qmtl.services.worldservice.rules import decide
from tests.services.worldservice.test_processor import Office
from tests.services.worldservice.test_rules import CREATE, OPEN, WORLD, opened

LOG = LogContext(THE_CONTEXT, SaidContext("w", ExecutionDomain.LIVE, "", "", "", False), 0)
HELD = "QMTL-604"
SIDES = (PositionSide.LONG, PositionSide.SHORT)
HALF = Decimal("0.5")


def rows(side: PositionSide) -> st.SearchStrategy[Activation]:
    return st.builds(
        opened,
        side=st.just(side),
        active=st.booleans(),
        weight=st.sampled_from([Decimal(0), HALF, Decimal(1)]),
        freeze=st.booleans(),
        drain=st.booleans(),
        effective_mode=st.sampled_from(EffectiveMode),
    )


LONGS = rows(PositionSide.LONG)
SHORTS = st.none() | rows(PositionSide.SHORT)


def trades(*sides: Activation | None) -> dict[PositionSide, tuple[Decimal, int]]:
    """Of each side that may open anything the weight and the mode, as the gate's rules have it."""
    known = [one for one in sides if one is not None]
    if any(one.freeze or one.drain for one in known):
        return {}
    return {
        one.side: (one.weight, TOWARDS_LIVE[one.effective_mode]) for one in known if one.active and one.weight
    }


@given(st.none() | LONGS, LONGS, SHORTS)
def test_what_is_not_held_lets_no_side_trade_more_and_what_is_held_would(
    known: Activation | None, fresh: Activation, other: Activation | None
) -> None:
    before, after = trades(known, other), trades(fresh, other)
    none = (Decimal(0), 0)
    more = False
    for side in SIDES:
        weight, mode = after.get(side, none)
        before_weight, before_mode = before.get(side, none)
        more = more or weight > before_weight or mode > before_mode
    assert opens(known, fresh, other) is more


@given(LONGS, SHORTS)
def test_what_only_takes_away_is_never_held(known: Activation, other: Activation | None) -> None:
    for less in (
        replace(known, weight=known.weight / 2),
        replace(known, effective_mode=EffectiveMode.VALIDATE),
        replace(known, active=False),
        replace(known, freeze=True),
        replace(known, drain=True, drain_cancels=True),
    ):
        assert not opens(known, less, other)


@pytest.mark.parametrize(
    ("known", "wish", "code"),
    [
        (None, {}, HELD),
        ({"active": False}, {}, HELD),
        ({"weight": HALF}, {}, HELD),
        ({"freeze": True}, {}, HELD),
        ({"drain": True}, {}, HELD),
        ({"effective_mode": EffectiveMode.SHADOW}, {}, HELD),
        ({}, {"effective_mode": EffectiveMode.LIVE}, HELD),
        ({"weight": HALF}, {"weight": Decimal(1), "effective_mode": EffectiveMode.VALIDATE}, HELD),
        ({}, {}, ""),
        (None, {"active": False}, ""),
        (None, {"weight": Decimal(0)}, ""),
        ({}, {"active": False}, ""),
        ({}, {"weight": HALF}, ""),
        ({"freeze": True}, {"active": False}, ""),
        ({"weight": HALF}, {"active": False, "weight": Decimal(1)}, ""),
        ({"weight": HALF}, {"weight": Decimal(2)}, "QMTL-602"),
    ],
)
def test_a_command_that_opens_or_raises_is_held_with_the_remedy(
    known: dict[str, Any] | None, wish: dict[str, Any], code: str
) -> None:
    before = None if known is None else opened(**known)
    command = replace(OPEN, command_id="c9", **wish)
    row, outcome = decide(command, WORLD, before, None, held_by(PromotionHold(0, 3)))
    assert outcome.code == code
    if code:
        assert (row, outcome.accepted) == (None, False)
    if code == HELD:
        assert "context clear --reason" in outcome.detail
        assert decide(command, WORLD, before, None, held_by(PromotionHold(0, 0)))[1].accepted


def test_a_frozen_side_that_is_closed_is_held_while_it_would_let_the_other_one_trade() -> None:
    known, other = opened(freeze=True), opened(side=PositionSide.SHORT)
    closed = replace(OPEN, active=False)
    assert decide(closed, WORLD, known, other, "held")[1].code == HELD
    assert decide(replace(closed, freeze=True), WORLD, known, other, "held")[1].accepted


# ---- on a log ------------------------------------------------------------------------------------------------------


STORY = [
    "open",
    "hit",
    "half",
    "open",
    "close",
    "open",
    "tick",
    "restart",
    "open",
    "clear",
    "open",
    "tick",
    "hit",
    "hit",
    "half",
    "restart",
    "open",
    "clear",
    "half",
    "open",
]


def test_no_gate_opens_between_a_hit_and_its_clearing_and_a_replay_decides_the_same(tmp_path: Path) -> None:
    office, hits, cleared, tick, weight = Office(tmp_path), 0, 0, 0, Decimal(0)
    office.write(CREATE)
    for number, act in enumerate(STORY):
        wish = replace(OPEN, command_id=f"n{number}")
        match act:
            case "hit" | "clear":
                hits, cleared = (hits + 2, cleared) if act == "hit" else (hits, hits)
                office.hear(replace(LOG, hits=(hits,), cleared=cleared))
            case "tick":
                office.write(tick := tick + 60_000)
            case "restart":
                office.restart()
            case _:
                wish = replace(wish, active=act != "close", weight=HALF if act == "half" else Decimal(1))
                office.write(wish)
                asked = wish.weight if wish.active else Decimal(0)
                is_held = hits > cleared and asked > weight
                (outcome,) = [one for one in office.rows("world.outcomes") if one.command_id == f"n{number}"]
                assert outcome.code == (HELD if is_held else "")
                weight = weight if is_held else asked
        found = [one.weight for one in office.rows("activation") if one.active]
        assert found == [weight] * bool(weight)
        assert [one.uncleared for one in office.rows("world.holds")] == [hits - cleared] * bool(hits)
    assert {row.code for row in office.rows("world.outcomes")} == {"", HELD}
    office.worker.close()
    assert rerun(office.log, codec, WorldService, 0, tmp_path / "again").differences == []
    office.log.close()
