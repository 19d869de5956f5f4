"""What went out to a venue and what came back: the evidence by which "it was not done" is told from "nobody knows".

ccxt's own classes of errors follow texts and codes, and one class stands for both (`ExchangeNotAvailable` is a 404 and a 503). Here the status of the
answer decides, and whether there was an answer at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

MAX_SAID: Final = 200
"""Characters of what a venue says that an error repeats."""

UNTAKEN_STATUS: Final = frozenset({403, 418, 429})
"""Refused before anything is done with them, whatever the body says: the firewall, the ban and the limit of requests.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/http-return-codes, which also says of every 5xx that what became of the request
is unknown, and may be a success.
"""

UNTOLD_STATUS: Final = frozenset({408, 409})
"""Of 4xx those that say of no request that it was refused: its time was over somewhere, or a part of it was done."""

UNTOLD_CODES: Final = frozenset({-1000, -1001, -1006, -1007, -1008})
"""Binance's codes for an outcome that is unknown: an unknown error, disconnected, unexpected answer, time-out, overloaded.

https://developers.binance.com/docs/binance-spot-api-docs/errors
"""

DUPLICATE: Final = re.compile(r"duplicate", re.IGNORECASE)
"""-2010 `Duplicate order sent.`: an open order has the id. It says that the order is there, which is no refusal of it."""


class Outcome(Enum):
    """What an error of ccxt, with what is known of its request, says of the request."""

    REFUSED = "refused"
    """It was not done."""
    UNREACHED = "unreached"
    """It never left: no connection was made."""
    UNTOLD = "untold"
    """It may have been done."""


class Wire:
    """The session that ccxt sends through: it follows no redirection, and remembers what became of the last request."""

    def __init__(self, session: Any, secrets: tuple[str, ...]) -> None:
        """Wrap a session of requests.

        Args:
            secrets: never repeated in what is told of an answer.
        """
        self._session = session
        self._secrets = tuple(sorted({one for one in secrets if one}, key=len, reverse=True))
        self.cookies = session.cookies
        self.headers = session.headers
        self.begin()

    def begin(self) -> None:
        """Forget: a new question begins."""
        self.sent, self.status, self.body = False, 0, ""

    def request(self, method: str, url: str, **settings: Any) -> Any:
        """Send it once. A redirection is an answer: followed, it would send an order twice, and the key to another host."""
        self.sent, self.status, self.body = True, 0, ""
        return self._session.request(method, url, **{**settings, "allow_redirects": False})

    def heard(
        self, status: int, reason: str, url: str, method: str, headers: object, body: str, *rest: object
    ) -> str:
        """In the place of ccxt's `on_rest_response`."""
        self.status, self.body = status, body
        return body.strip()

    def close(self) -> None:
        self._session.close()

    def outcome(self, error: BaseException) -> Outcome:
        """What an error that came of asking says of the last request."""
        if not self.sent:
            return Outcome.REFUSED
        if not self.status:
            return Outcome.UNREACHED if is_unreached(error) else Outcome.UNTOLD
        if self.status in UNTAKEN_STATUS:
            return Outcome.REFUSED
        code, said = self.code()
        if not 400 <= self.status < 500 or self.status in UNTOLD_STATUS or code is None:
            return Outcome.UNTOLD
        if code in UNTOLD_CODES or DUPLICATE.search(said):
            return Outcome.UNTOLD
        return Outcome.REFUSED

    def code(self) -> tuple[int | None, str]:
        """The code and the message of the last answer, where it is an error as the venue documents them: `{"code": -1013, "msg": "…"}`."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None, self.body
        if not isinstance(found, Mapping):
            return None, self.body
        code, said = found.get("code"), found.get("msg")
        if isinstance(code, bool) or not isinstance(code, int):
            return None, self.body
        return code, said if isinstance(said, str) else ""

    def told(self, error: BaseException) -> str:
        """What is known of the last request, in a few words without a secret or an address."""
        if not self.sent:
            return self.clean(str(error))
        kind = type(error).__name__
        if not self.status:
            return f"no answer ({kind})"
        code, said = self.code()
        what = f"HTTP {self.status}"
        if code is not None:
            return f"{what}, code {code}: {self.clean(said)}"
        return f"{what}, no error that can be read: {self.clean(said) or 'an empty body'}"

    def clean(self, text: str) -> str:
        """One line of at most `MAX_SAID` characters, without what is secret."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        line = " ".join("".join(one if one.isprintable() else " " for one in text[: 20 * MAX_SAID]).split())
        return line[:MAX_SAID]


def is_unreached(error: BaseException) -> bool:
    """Whether an error proves that no connection was made, so that no byte of the request has left."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    return any(isinstance(one, NewConnectionError | ConnectTimeoutError) for one in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those under it: of Python by `__cause__`, of requests as its first argument, of urllib3 as its `reason`."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left:
        one = left.pop()
        if not isinstance(one, BaseException) or any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        left += (one.__cause__, one.args[0] if one.args else None, getattr(one, "reason", None))
