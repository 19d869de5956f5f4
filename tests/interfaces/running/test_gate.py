"""The gate that a run shows is the one that trading asks: what it calls open is let through, and what it does not is not."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import Activation, EffectiveMode, PositionSide
from qmtl.interfaces.running.events import GateState
from qmtl.interfaces.running.gate import OrderGate
from qmtl.runtime.execution.gate import Admitted, Refused, admit


@st.composite
def activations(draw: st.DrawFn, side: PositionSide) -> Activation:
    version = draw(st.integers(1, 5))
    return Activation(
        "w1",
        "s1",
        side,
        draw(st.booleans()),
        draw(st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1)])),
        draw(st.booleans()) and draw(st.booleans()),
        draw(st.booleans()) and draw(st.booleans()),
        draw(st.sampled_from(EffectiveMode)),
        version,
        f"act:w1:s1:{side.value}:{version}",
        0,
    )


def either(side: PositionSide) -> st.SearchStrategy[Activation | None]:
    return st.none() | activations(side)


@given(either(PositionSide.LONG), either(PositionSide.SHORT))
def test_a_side_is_shown_open_if_and_only_if_trading_lets_an_order_of_it_through(
    long: Activation | None, short: Activation | None
) -> None:
    gate = OrderGate()
    for row in (long, short):
        if row is not None:
            assert gate.switch(row)
    for side, target in ((PositionSide.LONG, Decimal("0.4")), (PositionSide.SHORT, Decimal("-0.4"))):
        intent = OrderIntent("w1", "s1", "BTC-USD", 60_000, target, Decimal(100), "n")
        said = admit(intent, long, short, Decimal(0), Decimal(1000), cut_ready=True)
        state = gate.state(side)
        assert (state is GateState.OPEN) is isinstance(said, Admitted)
        stops = {GateState.FROZEN: RejectionReason.FREEZE, GateState.DRAINING: RejectionReason.DRAIN}
        if isinstance(said, Refused):
            assert stops.get(state, said.reason) is said.reason
            assert (said.reason in stops.values()) is (state in stops)


@given(st.lists(activations(PositionSide.LONG), max_size=8))
def test_the_newest_version_wins_whatever_comes_late_or_twice(rows: list[Activation]) -> None:
    gate, newest = OrderGate(), OrderGate()
    switched = [row for row in rows if gate.switch(row)]
    assert [row.version for row in switched] == sorted({row.version for row in switched})
    if rows:
        newest.switch(max(rows, key=lambda row: row.version))
        assert gate.state(PositionSide.LONG) is newest.state(PositionSide.LONG)
    else:
        assert gate.state(PositionSide.LONG) is GateState.CLOSED
