"""Every printed scenario of FIX's order state change matrices, step by step: quantities, state, ids and average price."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.money import round_places
from qmtl.foundation.contracts.broker import (
    FillBusted,
    FillCorrected,
    OrderAccepted,
    OrderEnded,
    OrderMarked,
    OrderReplaced,
    OrderReport,
    OrderRestated,
    OrderTriggered,
    RequestPending,
    RequestRejected,
)
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, OrderType, Side, TimeInForce
from qmtl.runtime.orders.aggregate import ask_cancel, ask_replace, is_same, remaining
from qmtl.runtime.orders.fills import Applied, Revised, apply_fill, revise
from qmtl.runtime.orders.ids import accepted_id, origin_of
from qmtl.runtime.orders.reports import told
from qmtl.runtime.orders.states import NEXT

ORACLES = Path(__file__).parents[2] / "oracles"
SCENARIOS: list[dict[str, Any]] = json.loads((ORACLES / "fix_order_states.json").read_text())
DEVIATIONS: list[dict[str, str]] = json.loads((ORACLES / "deviations" / "fix_order_states.json").read_text())
WITHOUT_ID = "by telephone"
NAMED = {"".join(part.capitalize() for part in one.value.split("_")): one for one in OrderStatus}


@dataclass
class Desk:
    """The orders of a scenario, and what was executed of each."""

    is_gtc: bool
    orders: dict[str, Order] = field(default_factory=dict)
    chains: dict[str, str] = field(default_factory=dict)
    fills: dict[tuple[str, int], Fill] = field(default_factory=dict)
    executions: dict[str, tuple[str, int]] = field(default_factory=dict)

    def copy(self) -> Desk:
        return Desk(
            self.is_gtc, dict(self.orders), dict(self.chains), dict(self.fills), dict(self.executions)
        )

    def of(self, message: dict[str, Any]) -> str:
        """The order that a message speaks of, by any id of its chain."""
        for key in ("ClOrdID", "OrigClOrdID"):
            if (found := self.chains.get(message.get(key, WITHOUT_ID))) is not None:
                return found
        return next(iter(self.orders), "") if "ClOrdID" not in message else ""

    # ---- the buyer's side

    def receive(self, message: dict[str, Any]) -> None:
        name = message.get("ClOrdID", WITHOUT_ID)
        match message["msg"]:
            case "NewOrderSingle":
                force = TimeInForce(message.get("TimeInForce", "GTC" if self.is_gtc else "DAY"))
                new = Order(
                    "w", "s", name, "X", Side.BUY, OrderType.LIMIT, force, Decimal(message.get("OrderQty", 0)),
                    OrderStatus.PENDING_NEW, Decimal(0), Decimal(0), 0, False, Decimal(1), 0, 0, 0,
                )  # fmt: skip
                if name in self.chains:
                    known = self.orders[self.chains[name]]
                    assert is_same(known, new) == (message.get("PossResend") == "Y")
                    return
                self.orders[name], self.chains[name] = new, name
            case "OrderCancelRequest":
                self._ask(message, ask_cancel(self.orders[self.of(message)], 0, name))
            case "OrderCancelReplaceRequest":
                order = self.orders[self.of(message)]
                self._ask(message, ask_replace(order, Decimal(message["OrderQty"]), 0, name))
            case "OrderStatusRequest":
                return
            case other:
                raise AssertionError(other)

    def _ask(self, message: dict[str, Any], after: Order) -> None:
        known = self.of(message)
        assert origin_of(self.orders[known]) == message["OrigClOrdID"]
        self.orders[known], self.chains[message["ClOrdID"]] = after, known

    # ---- the seller's side

    def hear(self, message: dict[str, Any]) -> Order | None:
        """The order after a report; None where the report speaks of no order."""
        if not self.orders and "ClOrdID" not in message:
            self.receive({"msg": "NewOrderSingle", "OrderQty": message["OrderQty"]})
        known = self.of(message)
        if not known:
            return None
        for report in self._reports(known, message):
            before = self.orders[known]
            self._apply(known, report)
            after = self.orders[known]
            assert after.status is before.status or after.status in NEXT[before.status]
            if isinstance(report, Fill):
                assert isinstance(apply_fill(after, report), Applied) is False  # said again, it is known
            elif not isinstance(report, FillBusted | FillCorrected):
                assert told(after, report) == after
        return self.orders[known]

    def _apply(self, known: str, report: OrderReport) -> None:
        order = self.orders[known]
        match report:
            case Fill():
                outcome = apply_fill(order, report)
                assert isinstance(outcome, Applied), outcome
                self.orders[known], self.fills[known, report.seq] = outcome.order, report
            case FillBusted() | FillCorrected():
                revised = revise(order, self.fills[known, report.seq], report)
                assert isinstance(revised, Revised), revised
                self.orders[known], self.fills[known, report.seq] = revised.order, revised.fill
            case _:
                self.orders[known] = told(order, report)

    def _reports(self, known: str, message: dict[str, Any]) -> list[OrderReport]:
        order, whose = self.orders[known], ("w", known)
        name = message.get("ClOrdID", known)
        if message["msg"] == "OrderCancelReject":
            return [RequestRejected(*whose, name, "", "", 0)]
        status = NAMED[message["OrdStatus"]]
        kind = {"Cancel": "TradeCancel", "Correct": "TradeCorrect", "Status": "OrderStatus"}.get(
            message.get("ExecTransType", "New"), message["ExecType"]
        )
        quantity = Decimal(message.get("OrderQty", 0))
        match kind:
            case "New":
                sized: list[OrderReport] = []
                if not order.quantity:  # money was ordered, and is shares from here on
                    sized = [OrderRestated(*whose, quantity, None, 0)]
                return [*sized, OrderAccepted(*whose, "", 0)]
            case "Rejected" if status is not OrderStatus.REJECTED:
                return [RequestRejected(*whose, name, "", message["OrdRejReason"], 0)]
            case "Rejected" | "Canceled":
                return [OrderEnded(*whose, status, "", "", 0)]
            case "Trade" | "Fill" | "PartialFill":
                seq = order.last_seq + 1
                if "ExecID" in message:
                    self.executions[message["ExecID"]] = (known, seq)
                one = Fill(
                    *whose[:1], "s", known, seq, "X", Side.BUY, Decimal(message["LastQty"]),
                    Decimal(str(message.get("LastPx", 100))), Decimal(0), "USD", Decimal(0), 0,
                )  # fmt: skip
                ended = [OrderEnded(*whose, status, "", "", 0)] if status is OrderStatus.CANCELED else []
                has_ended = order.status is OrderStatus.CANCELED
                return [one] if has_ended else [one, *ended]
            case "TradeCancel" | "TradeCorrect":
                at = self.executions[message["ExecRefID"]]
                self.executions[message["ExecID"]] = at
                old = self.fills[at]
                if kind == "TradeCancel":
                    return [FillBusted(*whose, at[1], old.revision + 1, 0)]
                price = Decimal(str(message.get("LastPx", old.price)))
                size = Decimal(message["LastQty"])
                return [FillCorrected(*whose, at[1], old.revision + 1, size, price, Decimal(0), 0)]
            case "PendingCancel" | "PendingReplace":
                return [RequestPending(*whose, name, 0)]
            case "Replaced":  # the quantity is ours to find: that of the request, or what is filled
                return [OrderReplaced(*whose, name, None, 0)]
            case "DoneForDay" | "Stopped":
                return [OrderMarked(*whose, status, True, 0)]
            case "Restated":
                filled = Decimal(message["CumQty"])
                restated = None if filled == order.cum_quantity else filled
                return [OrderRestated(*whose, quantity, restated, 0)]
            case "TriggeredOrActivatedBySystem":
                return [OrderTriggered(*whose, 0)]
            case "OrderStatus":
                return []
            case other:
                raise AssertionError(other)


def differs(order: Order | None, message: dict[str, Any]) -> list[str]:
    """The fields in which an order is not as it is printed."""
    seen: dict[str, Any] = {"OrdStatus": "Rejected", "OrderQty": 0, "CumQty": 0, "LeavesQty": 0}
    if order is not None:
        seen = {
            "OrdStatus": "".join(part.capitalize() for part in order.status.value.split("_")),
            "OrderQty": order.quantity,
            "CumQty": order.cum_quantity,
            "LeavesQty": remaining(order),
            "AvgPx": round_places(order.average_price, 9),
        }
    return [name for name, value in seen.items() if name in message and message[name] != value]


def replayed(scenario: dict[str, Any]) -> list[str]:
    """`step:field` of each field that is not as printed, of all paths."""
    desk = Desk(scenario["steps"][0]["n"] != 1)
    out = []
    for step in scenario["steps"]:
        on = desk.copy() if step["path"] == "alt" else desk
        if (message := step["received"]) is not None:
            on.receive(message)
        if (message := step["sent"]) is not None:
            before = on.orders.get(on.of(message))
            after = on.hear(message)
            out += [f"{step['n']}:{name}" for name in differs(after, message)]
            if before is not None and after is not None and "OrigClOrdID" in message:
                assert accepted_id(before) == message["OrigClOrdID"], step
            if message.get("ExecType") == "Replaced":
                assert after is not None
                assert accepted_id(after) == message["ClOrdID"]
    return out


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one["id"])
def test_a_printed_scenario_comes_out_as_printed_but_for_what_is_listed(scenario: dict[str, Any]) -> None:
    listed = [one["id"] for one in DEVIATIONS]
    assert [f"{scenario['id']}/{one}" for one in replayed(scenario)] == [
        one for one in listed if one.split("/")[0] == scenario["id"]
    ]


def test_all_scenarios_are_there_and_each_deviation_is_of_one_and_has_its_reason() -> None:
    ids = [one["id"] for one in SCENARIOS]
    assert len(set(ids)) == len(ids) == 44
    assert {one["id"].split("/")[0] for one in DEVIATIONS} <= set(ids)
    assert all(one["kind"] == "convention" and one["reason"] for one in DEVIATIONS)


def test_a_wrong_machine_is_seen() -> None:
    (scenario,) = (one for one in SCENARIOS if one["id"] == "A.1.a")
    steps = [dict(one) for one in scenario["steps"]]
    steps[-1] = {**steps[-1], "sent": {**steps[-1]["sent"], "LastQty": 6999}}
    assert replayed({**scenario, "steps": steps}) == ["5:OrdStatus", "5:CumQty", "5:LeavesQty"]
