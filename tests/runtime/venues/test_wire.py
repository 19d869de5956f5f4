"""Which answers prove that a request was not done, and that what is told of them holds no secret: a table, and a property."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.runtime.venues.wire import MAX_SAID, Outcome, Wire

KEY, SECRET = "the-key-of-somebody", "the-secret-of-somebody"


class Session:
    """A session of requests, that remembers how it was asked."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []

    def request(self, method: str, url: str, **settings: Any) -> None:
        self.asked.append(settings)


def heard(status: int, body: str) -> Wire:
    wire = Wire(Session(), (KEY, SECRET))
    wire.request("POST", "https://exchange/order")
    if status:
        wire.heard(status, "reason", "https://exchange/order?signature=1", "POST", {}, body, {}, "")
    return wire


def said(code: object, text: str = "") -> str:
    return json.dumps({"code": code, "msg": text})


NO_ERROR = [
    "",
    "<html>no</html>",
    '{"code": -2010, "ms',
    "[]",
    "null",
    "-2010",
    said("-2010"),
    said(None),
    said(True),
    said(1.5),
    "{}",
    '"no"',
    "[" * 100_000,
]
"""Bodies that are no error as Binance documents it."""

TABLE = [
    # HTTP return codes of Binance's Spot REST: 5xx says that the outcome is unknown, whatever the body says.
    *(
        (status, body, Outcome.UNTOLD)
        for status in (500, 502, 503, 504, 520, 599)
        for body in ("", said(-2010))
    ),
    # Refused by the firewall or the limits, before anything is done, whatever the body says.
    *((status, body, Outcome.REFUSED) for status in (403, 418, 429) for body in ("", "<html>", said(-1003))),
    # No answer about an order at all.
    *((status, said(-2010), Outcome.UNTOLD) for status in (100, 200, 201, 204, 301, 302, 307, 308, 408, 409)),
    # Rejected by the API or by the matching engine.
    *(
        (400, said(code, "No."), Outcome.REFUSED)
        for code in (-1013, -1021, -1022, -1100, -1102, -1111, -1116, -1121, -2010, -2011, -2013)
    ),
    (401, said(-2015, "Invalid API-key, IP, or permissions for action."), Outcome.REFUSED),
    (404, said(-1121, "Invalid symbol."), Outcome.REFUSED),
    # Of these codes the documents say that the outcome is unknown, or that somebody was overloaded on the way.
    *((400, said(code), Outcome.UNTOLD) for code in (-1000, -1001, -1006, -1007, -1008)),
    # It is there.
    (400, said(-2010, "Duplicate order sent."), Outcome.UNTOLD),
    # Somebody on the way has answered, and who knows what the exchange has done.
    *((status, body, Outcome.UNTOLD) for status in (400, 404) for body in NO_ERROR),
    (0, "", Outcome.UNTOLD),
]


@pytest.mark.parametrize("status, body, outcome", TABLE, ids=lambda one: str(one)[:40])
def test_only_a_proven_refusal_is_one(status: int, body: str, outcome: Outcome) -> None:
    assert heard(status, body).outcome(ValueError("no")) is outcome


def test_what_was_never_sent_is_refused() -> None:
    wire = heard(503, "")
    wire.begin()
    assert wire.outcome(ValueError("no")) is Outcome.REFUSED


def test_the_answer_before_says_nothing_of_a_request_without_one() -> None:
    wire = heard(400, said(-2010, "No."))
    wire.request("POST", "https://exchange/order")
    assert wire.outcome(ValueError("no")) is Outcome.UNTOLD


def test_no_redirection_is_followed() -> None:
    session = Session()
    Wire(session, ()).request("POST", "https://exchange", timeout=1, allow_redirects=True)
    assert session.asked == [{"timeout": 1, "allow_redirects": False}]


around = st.text(max_size=300)


@given(
    before=around,
    after=around,
    secret=st.sampled_from([KEY, SECRET]),
    status=st.sampled_from([0, 200, 400, 401, 403, 503]),
    code=st.sampled_from([-2010, None]),
)
def test_what_is_told_is_one_short_line_without_a_secret(
    before: str, after: str, secret: str, status: int, code: int | None
) -> None:
    echo = before + secret + after
    for body in (echo, said(code, echo), json.dumps(echo)):
        wire = heard(status, body)
        for error in (ValueError(echo), KeyError(echo)):
            told = wire.told(error)
            assert KEY not in told
            assert SECRET not in told
            assert len(told) < MAX_SAID + 60
            assert told.isprintable()
            wire.begin()
            assert secret not in wire.told(error)


def test_a_secret_within_another_leaves_nothing_of_it() -> None:
    assert Wire(Session(), ("abc", "abcdef", "")).clean("x abcdef y abc") == "x … y …"
