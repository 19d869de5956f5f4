"""The rule book before the trade, case by case."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import BrokerMode
from qmtl.foundation.contracts.world import Activation, EffectiveMode, PositionSide
from qmtl.runtime.execution.gate import Admitted, Refused, Verdict, admit, mode_of
from tests.services.trading.samples import STRATEGY, T0, WORLD, an_intent, dec

R = RejectionReason
ONE = Decimal(1)


def row(side: PositionSide, **changes: Any) -> Activation:
    given = Activation(
        WORLD,
        STRATEGY,
        side,
        True,
        dec("0.5"),
        False,
        False,
        EffectiveMode.PAPER,
        7,
        f"act:{side.value}:7",
        T0,
    )
    return replace(given, **changes)


LONG, SHORT = row(PositionSide.LONG), row(PositionSide.SHORT)


def asked(
    target: str = "0.4",
    long: Activation | None = LONG,
    short: Activation | None = SHORT,
    held: str = "0",
    equity: str = "10000",
    cut_ready: bool = True,
) -> Verdict:
    return admit(
        an_intent(target),
        long,
        short,
        dec(held),
        dec(equity),
        cut_ready=cut_ready,
        closed_bucket_ms=T0 - 120_000,
        needed_bucket_ms=T0 - 60_000,
    )


OFF: dict[str, Any] = {"active": False}
FROZEN: dict[str, Any] = {"freeze": True}
DRAINING: dict[str, Any] = {"drain": True}


@pytest.mark.parametrize(
    "case, reason",
    [
        # the first rule that refuses is the one that is reported
        ({"target": "1.01", "cut_ready": False}, R.INVALID_INTENT),
        ({"target": "-2"}, R.INVALID_INTENT),
        ({"target": "NaN"}, R.INVALID_INTENT),
        ({"cut_ready": False, "long": None, "short": None}, R.WATERMARK),
        ({"cut_ready": False, "target": "0", "held": "5"}, R.WATERMARK),
        ({"long": None, "short": None}, R.ACTIVATION_MISSING),
        ({"long": None, "short": None, "target": "0", "held": "5"}, R.ACTIVATION_MISSING),
        ({"long": replace(LONG, **FROZEN, **DRAINING)}, R.FREEZE),
        ({"short": replace(SHORT, **FROZEN), "long": replace(LONG, **DRAINING)}, R.FREEZE),
        ({"long": replace(LONG, **FROZEN), "target": "0", "held": "5"}, R.FREEZE),
        ({"short": replace(SHORT, **FROZEN), "long": None}, R.FREEZE),
        ({"long": replace(LONG, **DRAINING, **OFF)}, R.DRAIN),
        ({"long": replace(LONG, **DRAINING), "target": "0", "held": "5"}, R.DRAIN),
        ({"long": replace(LONG, **OFF)}, R.ACTIVATION_INACTIVE),
        ({"long": replace(LONG, weight=dec(0))}, R.ACTIVATION_INACTIVE),
        ({"long": None}, R.ACTIVATION_INACTIVE),
        ({"short": replace(SHORT, **OFF), "target": "-0.4"}, R.ACTIVATION_INACTIVE),
        ({"long": replace(LONG, effective_mode=EffectiveMode.SHADOW)}, R.ACTIVATION_INACTIVE),
    ],
)
def test_an_intent_is_refused_by_the_first_rule_that_it_breaks(case: dict[str, Any], reason: R) -> None:
    verdict = asked(**case)
    assert isinstance(verdict, Refused), verdict
    assert verdict.reason is reason
    assert verdict.detail


@pytest.mark.parametrize("mode", [EffectiveMode.VALIDATE, EffectiveMode.COMPUTE_ONLY, EffectiveMode.SHADOW])
@pytest.mark.parametrize("target", ["0.4", "-0.4", "0"])
def test_a_strategy_that_only_computes_trades_nothing_not_even_an_exit(
    mode: EffectiveMode, target: str
) -> None:
    long, short = replace(LONG, effective_mode=mode), replace(SHORT, effective_mode=mode)
    verdict = asked(target, long, short, held="5")
    assert isinstance(verdict, Refused)
    assert verdict.reason is R.ACTIVATION_INACTIVE
    assert mode.value in verdict.detail


@pytest.mark.parametrize("mode", [EffectiveMode.PAPER, EffectiveMode.LIVE])
@pytest.mark.parametrize("held", ["0", "5", "-5"])
def test_an_open_side_passes_the_target_with_its_own_weight(mode: EffectiveMode, held: str) -> None:
    long = replace(LONG, effective_mode=mode, weight=dec("0.3"))
    assert asked("0.4", long, replace(SHORT, **OFF), held) == Admitted(dec("0.4"), dec("0.3"))
    short = replace(SHORT, effective_mode=mode, weight=dec("0.7"))
    assert asked("-0.4", None, short, held) == Admitted(dec("-0.4"), dec("0.7"))


@pytest.mark.parametrize("target", ["1", "-1"])
def test_all_of_the_equity_may_be_asked_for(target: str) -> None:
    assert asked(target) == Admitted(dec(target), dec("0.5"))


@pytest.mark.parametrize("held", ["0", "5", "-5"])
@pytest.mark.parametrize("long", [LONG, replace(LONG, **OFF), replace(LONG, weight=dec(0)), None])
def test_an_exit_passes_whatever_the_sides_say(held: str, long: Activation | None) -> None:
    assert asked("0", long, replace(SHORT, **OFF), held) == Admitted(dec(0), ONE)


@pytest.mark.parametrize("closed", [OFF, {"weight": dec(0)}, {"effective_mode": EffectiveMode.SHADOW}])
def test_a_turn_to_a_closed_side_goes_to_flat_and_says_what_was_refused(closed: dict[str, Any]) -> None:
    verdict = asked("0.4", replace(LONG, **closed), SHORT, held="-5")
    assert isinstance(verdict, Admitted)
    assert (verdict.target_percent, verdict.weight) == (dec(0), ONE)
    assert verdict.refused is R.ACTIVATION_INACTIVE
    assert "target 0.4 with -5 held; long version 7" in verdict.detail
    verdict = asked("-0.4", LONG, None, held="5")
    assert isinstance(verdict, Admitted)
    assert (verdict.target_percent, verdict.refused) == (dec(0), R.ACTIVATION_INACTIVE)
    assert "no activation of short" in verdict.detail


@pytest.mark.parametrize(
    "held, equity, passes",
    [
        ("50", "10000", True),  # worth 5000, wanted 4000: less
        ("40", "10000", False),  # worth what is wanted
        ("30", "10000", False),  # worth less than is wanted
        ("0.5", "0", True),
        ("0.5", "-10", True),
    ],
)
def test_a_holding_on_a_closed_side_may_only_shrink(held: str, equity: str, passes: bool) -> None:
    expected = Admitted(dec("0.4"), ONE) if passes else None
    verdict = asked("0.4", replace(LONG, **OFF), SHORT, held, equity)
    assert verdict == expected if passes else isinstance(verdict, Refused)
    expected = Admitted(dec("-0.4"), ONE) if passes else None
    verdict = asked("-0.4", LONG, replace(SHORT, **OFF), f"-{held}", equity)
    assert verdict == expected if passes else isinstance(verdict, Refused)


def test_a_watermark_that_lags_is_said_in_buckets() -> None:
    verdict = asked(cut_ready=False)
    assert verdict == Refused(
        R.WATERMARK, f"bucket {T0} needs the portfolio of {T0 - 60_000}, closed is {T0 - 120_000}"
    )


rows = st.none() | st.builds(
    row,
    st.just(PositionSide.LONG),
    active=st.booleans(),
    weight=st.sampled_from([dec(0), dec("0.5"), ONE]),
    freeze=st.booleans(),
    drain=st.booleans(),
    effective_mode=st.sampled_from(EffectiveMode),
)


@given(
    rows,
    rows,
    st.sampled_from(["-1", "-0.4", "0", "0.4", "1"]),
    st.sampled_from(["-80", "-5", "0", "5", "80"]),
    st.booleans(),
)
def test_what_passes_is_the_target_or_flat_and_more_exposure_needs_an_open_side(
    long: Activation | None, short: Activation | None, target: str, held: str, cut_ready: bool
) -> None:
    if short is not None:
        short = replace(short, side=PositionSide.SHORT)
    verdict = asked(target, long, short, held, "10000", cut_ready)
    if isinstance(verdict, Refused):
        return
    assert cut_ready
    known = [one for one in (long, short) if one is not None]
    assert known
    assert not any(one.freeze or one.drain for one in known)
    assert verdict.target_percent in (dec(target), 0)
    assert 0 < verdict.weight <= 1
    assert (verdict.refused is None) == (verdict.target_percent == dec(target))
    wanted = verdict.target_percent * verdict.weight * 10_000
    has = dec(held) * 100
    if abs(wanted) > abs(has) or wanted * has < 0:
        side = long if wanted > 0 else short
        assert side is not None
        assert side.active
        assert side.effective_mode in (EffectiveMode.PAPER, EffectiveMode.LIVE)


LIVE_LONG = replace(LONG, effective_mode=EffectiveMode.LIVE)
COMPUTES = replace(SHORT, effective_mode=EffectiveMode.COMPUTE_ONLY)


@pytest.mark.parametrize(
    ("long", "short", "mode"),
    [
        (None, None, None),
        (None, COMPUTES, None),
        (LONG, None, BrokerMode.PAPER),
        (LONG, COMPUTES, BrokerMode.PAPER),
        (LIVE_LONG, SHORT, BrokerMode.LIVE),
        (SHORT, LIVE_LONG, BrokerMode.LIVE),
        (LIVE_LONG, None, BrokerMode.LIVE),
        (replace(LIVE_LONG, active=False), SHORT, BrokerMode.LIVE),
    ],
)
def test_the_broker_of_a_strategy_follows_from_its_gates(
    long: Activation | None, short: Activation | None, mode: BrokerMode | None
) -> None:
    assert mode_of(long, short) is mode


@pytest.mark.parametrize(
    ("target", "held", "mode", "passes"),
    [
        ("0.4", "0", None, True),
        ("0.4", "0", BrokerMode.LIVE, True),
        ("0.4", "0", BrokerMode.PAPER, False),
        ("-0.4", "0", BrokerMode.LIVE, False),  # still on paper while the other side is live
        ("-0.4", "0", BrokerMode.PAPER, True),
        ("-0.4", "0", None, False),
        ("0.1", "50", BrokerMode.PAPER, True),  # 5000 shrink to 1000
        ("0.9", "50", BrokerMode.PAPER, False),
        ("0", "50", BrokerMode.PAPER, True),
    ],
)
def test_a_side_is_open_in_the_book_of_its_own_mode_alone(
    target: str, held: str, mode: BrokerMode | None, passes: bool
) -> None:
    verdict = admit(an_intent(target), LIVE_LONG, SHORT, dec(held), dec("10000"), cut_ready=True, mode=mode)
    assert isinstance(verdict, Admitted) is passes
