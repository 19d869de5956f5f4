"""The graphs of which lives are made: they share nodes with one another, and some ask for nodes by tags."""

from __future__ import annotations

from tests.services.graphs import crossing, price, sma, tag_query, target

GRAPHS = [
    crossing(3, 8),
    crossing(3, 21),
    crossing(5, 8),
    *([price(), sma("fast", period), target(source="fast")] for period in (3, 13, 55)),
    [
        tag_query(tags=("crypto", "nobody"), own_tags=["crypto", "sma"]),
        sma("after", 3, "asked"),
        target(source="after", tags=["crypto"]),
    ],
    [
        tag_query(tags=("sma", "crypto"), match_mode="all"),
        price("other", ("LTC-USD",)),
        sma("own", 5, "other"),
        target(source="asked"),
    ],
]
