"""The processors' own booking and this book, each the other's oracle."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.money import ZERO, total
from qmtl.foundation.contracts.trade import Account, Fill, Position, Side
from qmtl.runtime.accounting.facts import Fact, Marked, deposited, fact_of
from qmtl.runtime.accounting.instrument import Instrument, Terms
from qmtl.runtime.accounting.journal import Journal
from qmtl.runtime.accounting.valuation import Rates, valued
from qmtl.runtime.execution import portfolio
from tests.services.trading.samples import CURRENCY, SCOPE, T0, a_fill, an_account

INITIAL = Decimal(10_000)
TERMS = Terms({symbol: Instrument(symbol, CURRENCY) for symbol in ("A", "B")})

quantities = st.integers(1, 3_000_000).map(lambda count: Decimal(count).scaleb(-6))
prices = st.integers(1, 2_000_000).map(lambda ticks: Decimal(ticks).scaleb(-2))
fees = st.integers(-1_000, 100_000).map(lambda units: Decimal(units).scaleb(-4))
fills = st.builds(
    lambda symbol, quantity, price, side, fee: replace(a_fill(1, quantity, price, side, fee), symbol=symbol),
    st.sampled_from(["A", "B"]),
    quantities,
    prices,
    st.sampled_from(Side),
    fees,
)
steps = st.lists(st.one_of(fills, st.tuples(st.sampled_from(["A", "B"]), prices)), max_size=25)


@given(steps)
@settings(deadline=None)
def test_both_have_the_same_positions_and_accounts(sequence: list[Fill | tuple[str, Decimal]]) -> None:
    account = an_account(INITIAL)
    rows: dict[str, Position] = {}
    journal = Journal(TERMS)
    journal.add([deposited("in", 0, SCOPE, CURRENCY, INITIAL)])
    for at, step in enumerate(sequence, 1):
        fact: Fact
        if isinstance(step, Fill):
            fill = replace(step, seq=at, fill_time_ms=T0 + at)
            row, account = portfolio.apply_fill(rows.get(fill.symbol), account, fill, SCOPE)
            rows[fill.symbol] = row
            fact = fact_of(fill, SCOPE)
        else:
            symbol, price = step
            if symbol not in rows:  # the service marks what was traded, and nothing before it
                continue
            rows[symbol] = portfolio.mark(rows[symbol], price, T0)
            account = portfolio.revalue(account, rows.values(), T0)
            fact = Marked(f"mark {at}", T0 + at, symbol, price)
        journal.add([fact])
        assert_same(journal, rows, account)


def assert_same(journal: Journal, rows: dict[str, Position], account: Account) -> None:
    scope = journal.book().scope(SCOPE)
    assert scope.positions.keys() == rows.keys()
    for symbol, row in rows.items():
        instrument = TERMS.instrument(symbol)
        ours = scope.position(symbol)
        assert (ours.quantity, ours.cost, ours.realised) == (row.quantity, row.cost, row.realised)
        assert ours.average_price(instrument) == row.average_cost
        assert ours.fees_in(CURRENCY) == row.fees
        assert (ours.mark, ours.unrealised(instrument), ours.fills) == (row.mark, row.unrealised, row.fills)
    worth = valued([scope], TERMS, Rates(CURRENCY, {}))
    assert scope.cash[CURRENCY] == account.cash
    assert scope.contributed[CURRENCY] == account.initial_cash
    assert (worth.equity, worth.exposure) == (account.equity, account.exposure)
    assert (worth.realised, worth.unrealised, worth.fees) == (
        account.realised,
        account.unrealised,
        account.fees,
    )
    assert worth.equity == total((INITIAL, worth.net, worth.unrealised))


def test_a_fill_row_that_was_corrected_or_busted_is_a_revision() -> None:
    fill = a_fill(1, Decimal(2), Decimal(100), Side.BUY, Decimal(1))
    corrected = replace(fill, price=Decimal(90), revision=1)
    busted = replace(corrected, quantity=ZERO, revision=2)
    symbol = Terms({fill.symbol: Instrument(fill.symbol, CURRENCY)})
    for rows, cost in (([fill], 200), ([corrected, fill], 180), ([busted, fill, corrected], 0)):
        journal = Journal(symbol)
        for row in rows:
            journal.add([fact_of(row, SCOPE)])
        assert journal.book().scope(SCOPE).position(fill.symbol).cost == cost
