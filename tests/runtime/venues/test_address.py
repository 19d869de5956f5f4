"""The address of a venue: a table of what is read, and of what is refused without telling what was in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import UsageError
from qmtl.runtime.venues.address import VenueAddress, open_venue, parse_address
from qmtl.runtime.venues.ccxt_venue import CcxtVenue


@pytest.mark.parametrize(
    "text, address",
    [
        ("ccxt:binance", VenueAddress("binance", "", 10.0, 120)),
        ("ccxt:binanceus?max_age_s=0", VenueAddress("binanceus", "", 10.0, 0)),
        ("ccxt:binance?timeout_s=0.25", VenueAddress("binance", "", 0.25, 120)),
        (
            "ccxt:binance?url=http://127.0.0.1:8080&timeout_s=3&max_age_s=86400",
            VenueAddress("binance", "http://127.0.0.1:8080", 3.0, 86400),
        ),
        (
            "ccxt:binance?url=https://testnet.binance.vision/",
            VenueAddress("binance", "https://testnet.binance.vision"),
        ),
        ("ccxt:binance?url=http://localhost:1", VenueAddress("binance", "http://localhost:1")),
        ("ccxt:binance?url=http://[::1]:9", VenueAddress("binance", "http://[::1]:9")),
        ("ccxt:binance?url=http%3A%2F%2F127.0.0.1%3A8080", VenueAddress("binance", "http://127.0.0.1:8080")),
    ],
)
def test_an_address_says_where_and_how_long(text: str, address: VenueAddress) -> None:
    assert parse_address(text) == address


PASSWORD = "pa55word"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "binance",
        "ccxt:",
        "ccxt:Binance",
        "ccxt:binance/spot",
        "ccxt:binance ",
        "fix:binance",
        f"ccxt:{'a' * 31}",
        f"ccxt:binance?{PASSWORD}",
        "ccxt:binance?timeout_s",
        f"ccxt:binance?key={PASSWORD}",
        f"ccxt:binance?secret={PASSWORD}",
        "ccxt:binance?timeout_s=1&timeout_s=2",
        *(
            f"ccxt:binance?timeout_s={bad}"
            for bad in ("", "0", "-1", "1e1", "nan", "inf", "121", "0.0001", "١", " 1")
        ),
        *(f"ccxt:binance?max_age_s={bad}" for bad in ("", "-1", "1.5", "86401", "1e3", "x", "٢")),
        f"ccxt:binance?url=https://me:{PASSWORD}@host",
        f"ccxt:binance?url=https://{PASSWORD}@host",
        f"ccxt:binance?url=https://host/{PASSWORD}",
        f"ccxt:binance?url=https://host?key={PASSWORD}",
        f"ccxt:binance?url=https://host%23{PASSWORD}",
        "ccxt:binance?url=https://host%3F",
        "ccxt:binance?url=",
        "ccxt:binance?url=127.0.0.1:80",
        "ccxt:binance?url=ftp://host",
        "ccxt:binance?url=https://",
        "ccxt:binance?url=https://host:99999",
        "ccxt:binance?url=https://[::1",
        "ccxt:binance?url=http://api.binance.com",
        "ccxt:binance?url=http://127.0.0.1.evil.com",
        "ccxt:binance?url=https://höst",
        "&".join(["ccxt:binance?timeout_s=1", *["a=1"] * 9]),
    ],
)
def test_another_form_is_refused_without_telling_what_was_in_it(text: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_address(text)
    assert PASSWORD not in str(told.value)


@given(st.text(max_size=60), st.sampled_from(["", "ccxt:", "ccxt:binance?", "ccxt:binance?url=https://"]))
def test_any_text_is_an_address_or_refused(text: str, before: str) -> None:
    try:
        found = parse_address(before + text)
    except UsageError:
        return
    assert found.exchange
    assert 0 < found.timeout_s <= 120
    assert 0 <= found.max_age_s <= 86_400
    assert "@" not in found.url


def test_the_venue_of_an_address_is_opened_and_asks_nothing() -> None:
    venue = open_venue(parse_address("ccxt:binance?url=http://127.0.0.1:1"), "key", "secret")
    assert isinstance(venue, CcxtVenue)
    assert (venue.name, repr(venue)) == ("ccxt:binance", "<ccxt:binance>")
    venue.close()
    with pytest.raises(UsageError, match="nowhere"):
        open_venue(VenueAddress("nowhere"), "key", "secret")
