"""The simple fold: a book out of any facts. It is what the incremental form is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qmtl.runtime.accounting.book import Book, Booking
from qmtl.runtime.accounting.facts import (
    Busted,
    Charged,
    Delivered,
    DividendPaid,
    Fact,
    Filled,
    Funded,
    Marked,
    Split,
    Transferred,
    in_order,
)
from qmtl.runtime.accounting.instrument import Terms


def fold(facts: Iterable[Fact], terms: Terms) -> Book:
    """The book of a set of facts: the same for any order and number of tellings.

    Raises:
        ConflictingFact: two tellings of one fact that differ.
        InvalidValue, InexactMoney, UnknownInstrument: a fact that can't be booked.
    """
    booking = Booking(terms)
    for fact in in_order(facts):
        booking.book(fact)
    return booking.frozen()


def rescoped(facts: Iterable[Fact], scopes: Mapping[str, str]) -> list[Fact]:
    """The facts as they are of other scopes: all strategies of a world in one, for a portfolio that they share.

    Args:
        scopes: what a scope is called; one that is not named stays. What then goes from a scope to itself is no fact any more.
    """
    out: list[Fact] = []
    for fact in facts:
        match fact:
            case Filled() | Charged() | Funded():
                out.append(replace(fact, scope=scopes.get(fact.scope, fact.scope)))
            case Transferred() | Delivered():
                source = scopes.get(fact.source, fact.source)
                destination = scopes.get(fact.destination, fact.destination)
                if source != destination:
                    out.append(replace(fact, source=source, destination=destination))
                elif fact.revision:
                    out.append(Busted(fact.fact_id, fact.at_ms, fact.revision))
            case Busted() | Split() | DividendPaid() | Marked():
                out.append(fact)
    return out
