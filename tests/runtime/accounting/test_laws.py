"""Laws of the book: it is a function of the set of facts, and loses no digit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import ConflictingFact, FactTooLate, InvalidValue, UnknownInstrument
from qmtl.foundation.common.money import minus, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.accounting.book import Booking
from qmtl.runtime.accounting.facts import (
    Busted,
    Charged,
    Fact,
    Fee,
    Filled,
    Marked,
    Split,
    Transferred,
    deposited,
    in_order,
)
from qmtl.runtime.accounting.fold import fold, rescoped
from qmtl.runtime.accounting.instrument import Costing, Instrument, Settlement, Terms
from qmtl.runtime.accounting.journal import Journal
from tests.runtime.accounting.histories import INSTRUMENTS, SCOPES, differences, told

D = Decimal
costings = st.sampled_from(Costing)
seeds = st.integers(0, 2**32)


def history(seed: int, count: int) -> list[Fact]:
    return [fact for _, fact in told(seed, count, late=0.2, twice=0.2, amended=0.1, reach=10)]


# ---- D8: one set, one book --------------------------------------------------------------------------------------


@given(seeds, costings, st.integers(1, 40), st.integers(1, 9), st.data())
@settings(max_examples=150, deadline=None)
def test_order_repetition_and_batches_make_no_difference(
    seed: int, costing: Costing, count: int, every: int, data: st.DataObject
) -> None:
    facts = history(seed, count)
    terms = Terms(INSTRUMENTS, costing)
    said = fold(facts, terms)
    shuffled = data.draw(st.permutations(facts + data.draw(st.lists(st.sampled_from(facts), max_size=10))))
    journal = Journal(terms, checkpoint_every=every)
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        journal.add(shuffled[:size])
        shuffled = shuffled[size:]
        if data.draw(st.booleans()):
            journal.book()
    assert journal.book() == said
    assert journal.book().digest() == said.digest()
    assert fold(reversed(facts), terms) == said


@given(seeds, st.integers(2, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_a_snapshot_and_the_log_from_its_positions_give_the_same_book(
    seed: int, count: int, data: st.DataObject
) -> None:
    records = [[fact] for fact in history(seed, count)]
    terms = Terms(INSTRUMENTS)
    partitions: dict[int, list[list[Fact]]] = {0: [], 1: []}
    for record in records:
        partitions[data.draw(st.integers(0, 1))].append(record)
    first, second = (data.draw(st.integers(0, len(log))) for log in partitions.values())
    journal = Journal(terms, checkpoint_every=4)
    for partition, until in ((0, first), (1, second)):
        for offset, record in enumerate(partitions[partition][:until]):
            assert journal.take("trade.facts", partition, offset, record)
    again = Journal.restored(journal.snapshot(), terms, checkpoint_every=3)
    assert again.snapshot() == journal.snapshot()
    # From the positions, or from anywhere before them: what is included is passed over.
    start = data.draw(st.integers(0, 5))
    for partition, log in partitions.items():
        since = {one.partition: one.offset for one in again.positions}.get(partition, 0)
        for offset in range(max(0, since - start), len(log)):
            assert again.take("trade.facts", partition, offset, log[offset]) == (offset >= since)
    assert again.book() == fold((fact for record in records for fact in record), terms)


@given(seeds, costings, st.integers(1, 60), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_what_is_closed_is_kept_as_a_book_and_not_as_facts(
    seed: int, costing: Costing, count: int, before_ms: int
) -> None:
    facts = history(seed, count)
    terms = Terms(INSTRUMENTS, costing)
    journal = Journal(terms, checkpoint_every=5)
    journal.add(facts)
    journal.close(before_ms)
    assert journal.book() == fold(facts, terms)
    restored = Journal.restored(journal.snapshot(), terms)
    assert restored.book() == journal.book()
    for fact in facts:
        if fact.at_ms < before_ms:
            with pytest.raises(FactTooLate):
                restored.add([fact])
        else:
            restored.add([fact])
    assert restored.book() == fold(facts, terms)
    assert len(restored) == sum(fact.at_ms >= before_ms for fact in in_order(facts))


# ---- money ------------------------------------------------------------------------------------------------------


@given(seeds, costings, st.integers(1, 120))
@settings(max_examples=150, deadline=None)
def test_a_plain_ledger_counts_the_same_to_the_last_digit(seed: int, costing: Costing, count: int) -> None:
    facts = history(seed, count)
    terms = Terms(INSTRUMENTS, costing)
    book = fold(facts, terms)
    compared = differences(book, in_order(facts), terms)
    assert bool(compared) == bool(book.scopes)


@given(seeds, st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_no_costing_changes_cash_or_quantity_of_what_is_paid(seed: int, count: int) -> None:
    facts = history(seed, count)
    books = [fold(facts, Terms(INSTRUMENTS, costing)) for costing in Costing]
    for scope in books[0].scopes:
        for book in books[1:]:
            one, other = books[0].scope(scope), book.scope(scope)
            assert one.cash.get("USD") == other.cash.get("USD")
            assert one.fees == other.fees
            for symbol, position in one.positions.items():
                assert position.quantity == other.position(symbol).quantity
                assert position.mark == other.position(symbol).mark


@given(seeds, st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_world_is_the_sum_of_its_strategies(seed: int, count: int) -> None:
    """Law C4. Without splits, whose fractions are paid out in each scope for itself."""
    facts = [fact for fact in history(seed, count) if not isinstance(fact, Split)]
    terms = Terms({key: one for key, one in INSTRUMENTS.items() if not one.inverse}, Costing.AVERAGE)
    facts = [fact for fact in facts if getattr(fact, "symbol", "SHARE") in terms.instruments]
    own = fold(facts, terms)
    world = fold(rescoped(facts, dict.fromkeys(SCOPES, "world")), terms).scope("world")
    paid = [one for one in terms.instruments.values() if one.settlement is not Settlement.MARGINED]
    for instrument in terms.instruments.values():
        parts = [scope.position(instrument.symbol) for scope in own.scopes.values()]
        whole = world.position(instrument.symbol)
        assert whole.quantity == total(part.quantity for part in parts)
        assert whole.fills == sum(part.fills for part in parts)
        # What differs is who had gained what when: the sum of gained and of paid is one.
        assert minus(whole.realised, whole.cost) == total(minus(part.realised, part.cost) for part in parts)
    for asset in {"USD", "BNB", "ETH"} & world.cash.keys():
        assert any(one.currency == asset for one in paid) or asset in ("BNB", "ETH")
        assert world.cash[asset] == total(scope.cash.get(asset, D(0)) for scope in own.scopes.values())
    for asset, amount in world.fees.items():
        assert amount == total(scope.fees.get(asset, D(0)) for scope in own.scopes.values())


@given(seeds, costings, st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_nothing_that_enters_state_is_negative_zero_or_no_number(
    seed: int, costing: Costing, count: int
) -> None:
    def walk(value: object) -> None:
        if isinstance(value, Decimal):
            assert value.is_finite()
            assert value or not value.is_signed()
        elif hasattr(value, "items"):
            for one in value.values():  # type: ignore[attr-defined]  # what has items has values
                walk(one)
        elif isinstance(value, tuple):
            for one in value:
                walk(one)
        elif is_dataclass(value):
            for one in fields(value):
                walk(getattr(value, one.name))

    walk(fold(history(seed, count), Terms(INSTRUMENTS, costing)))


# ---- corrections ------------------------------------------------------------------------------------------------


BUY = Filled("f1", 5, "s", "SHARE", Side.BUY, D(10), D(100), (Fee("USD", D(1)),))
SELL = Filled("f2", 9, "s", "SHARE", Side.SELL, D(4), D(110))
TERMS = Terms(INSTRUMENTS)


def test_a_bust_leaves_the_book_as_if_it_had_never_been() -> None:
    journal = Journal(TERMS)
    journal.add([BUY, SELL])
    journal.add([Busted("f1", 5)])
    assert journal.book() == fold([SELL], TERMS)
    assert fold([Busted("f1", 5), BUY, SELL], TERMS) == fold([SELL], TERMS)


def test_a_correction_stands_in_the_place_of_what_it_corrects() -> None:
    right = replace(BUY, price=D(90), revision=1)
    journal = Journal(TERMS)
    journal.add([right])
    journal.add([SELL])
    journal.add([BUY])  # told last, and long replaced
    assert journal.book() == fold([replace(BUY, price=D(90)), SELL], TERMS)
    assert journal.book().scope("s").position("SHARE").realised == D(80)


def test_two_tellings_that_differ_are_refused_and_change_nothing() -> None:
    other = replace(BUY, price=D(90))
    for first, second in ((BUY, other), (other, BUY), (BUY, replace(BUY, at_ms=6, revision=1))):
        journal = Journal(TERMS)
        journal.add([first])
        before = journal.snapshot()
        with pytest.raises(ConflictingFact):
            journal.add([SELL, second])
        assert journal.snapshot() == before
        with pytest.raises(ConflictingFact):
            fold([first, SELL, second], TERMS)


def test_a_batch_with_a_fact_that_cannot_be_booked_changes_nothing() -> None:
    journal = Journal(TERMS, checkpoint_every=1)
    journal.add([SELL])
    before = journal.snapshot()
    stranger = replace(BUY, fact_id="f3", symbol="NOBODY")
    for batch in (
        [BUY, stranger],
        [replace(stranger, at_ms=50)],
        [replace(BUY, at_ms=20), replace(stranger, at_ms=50)],
    ):
        with pytest.raises(UnknownInstrument):
            journal.add(batch)
        assert journal.snapshot() == before
    journal.add([BUY])
    assert journal.book() == fold([BUY, SELL], TERMS)


@pytest.mark.parametrize(
    "fact",
    [
        replace(BUY, quantity=D("NaN")),
        replace(BUY, quantity=D(0)),
        replace(BUY, price=D("Infinity")),
        replace(BUY, price=D(0)),
        replace(BUY, price=D("1e400")),
        replace(BUY, price=D("1e-30")),
        replace(BUY, scope=""),
        replace(BUY, fact_id=""),
        replace(BUY, revision=-1),
        replace(BUY, fees=(Fee("USD", D("NaN")),)),
        replace(BUY, fees=(Fee("", D(1)),)),
        Charged("c", 1, "s", Fee("USD", D("Infinity"))),
        Transferred("t", 1, "s", "s", "USD", D(1)),
        Transferred("t", 1, "s", "r", "USD", D(-1)),
        deposited("d", 1, "s", "USD", D(0)),
        Split("x", 1, "SHARE", 0, 1, D(1), D(1)),
        Busted("b", 1, 0),
        Marked("m", 1, "SHARE", D(0)),
    ],
)
def test_hostile_numbers_are_refused_at_the_door(fact: Fact) -> None:
    with pytest.raises(InvalidValue):
        fold([fact], TERMS)
    with pytest.raises(InvalidValue):
        Journal(TERMS).add([fact])


def test_an_asset_or_an_inverse_contract_is_not_split() -> None:
    for symbol in ("BTC-USD", "INVERSE"):
        with pytest.raises(InvalidValue):
            fold([Split("x", 1, symbol, 2, 1, D(1), D(1))], TERMS)


def test_instruments_that_contradict_themselves_are_refused() -> None:
    contradictions: tuple[Callable[[], Instrument], ...] = (
        lambda: Instrument("", "USD"),
        lambda: Instrument("X", "USD", Settlement.EXCHANGED),
        lambda: Instrument("X", "USD", base="BTC"),
        lambda: Instrument("X", "USD", Settlement.EXCHANGED, "USD"),
        lambda: Instrument("X", "USD", size=D(0)),
        lambda: Instrument("X", "USD", size=D("NaN")),
        lambda: Instrument("X", "BTC", inverse=True),
    )
    for wrong in contradictions:
        with pytest.raises(InvalidValue):
            wrong()


# ---- costing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("costing", "realised", "cost"),
    [(Costing.AVERAGE, D(150), D(450)), (Costing.FIFO, D(200), D(500)), (Costing.LIFO, D(100), D(400))],
)
def test_which_cost_leaves_first(costing: Costing, realised: Decimal, cost: Decimal) -> None:
    """Ten at 40, ten at 50; ten sold at 60, of which five close each: counted by hand."""
    facts = [
        replace(BUY, price=D(40), fees=()),
        replace(BUY, fact_id="f2", price=D(50), fees=()),
        replace(BUY, fact_id="f3", side=Side.SELL, price=D(60), fees=()),
    ]
    position = fold(facts, Terms(INSTRUMENTS, costing)).scope("s").position("SHARE")
    assert (position.realised, position.cost) == (realised, cost)


def test_a_fraction_of_a_split_is_paid_out_with_its_cost() -> None:
    """One for three of 10 shares at 100 dollars: 3 shares and a third of one, for which 330 a share is paid: 110, at a cost of 100."""
    book = fold([replace(BUY, fees=()), Split("x", 6, "SHARE", 1, 3, D(1), D(330))], TERMS)
    position = book.scope("s").position("SHARE")
    assert position.quantity == 3
    assert position.cost == 900
    assert position.realised == 10
    assert book.scope("s").cash["USD"] == D(-890)
    assert position.first_price == 300


def test_the_state_of_a_booking_is_left_whole_by_a_fact_that_fails() -> None:
    booking = Booking(TERMS)
    booking.book(BUY)
    before = booking.frozen()
    with pytest.raises(UnknownInstrument):
        booking.book(replace(SELL, symbol="NOBODY"))
    assert booking.frozen() == before
