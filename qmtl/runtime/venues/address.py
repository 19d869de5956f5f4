"""Where a venue is, as one text: `ccxt:binance`, `ccxt:binance?url=https://testnet.binance.vision&timeout_s=5`. The key is never in it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from qmtl.foundation.common.errors import UsageError
from qmtl.runtime.venues.port import Venue

MAX_TIMEOUT_S: Final = 120
MAX_AGE_S: Final = 120
MAX_MAX_AGE_S: Final = 86_400

_EXCHANGE: Final = re.compile(r"ccxt:([a-z0-9]{1,30})")
_SECONDS: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_WHOLE: Final = re.compile(r"[0-9]{1,5}")
_FORM: Final = (
    "Write it as ccxt:EXCHANGE?url=https://HOST&timeout_s=10&max_age_s=120; all after the ? may be left out."
)


@dataclass(frozen=True, slots=True)
class VenueAddress:
    """Where orders go.

    Attributes:
        exchange: as ccxt names it.
        url: scheme, host and port to ask in the place of the exchange's own; empty for its own.
        timeout_s: to wait for an answer.
        max_age_s: an order that is older is not sent any more; 0: none is ever too old, as where bars of long ago are played.
    """

    exchange: str
    url: str = ""
    timeout_s: float = 10.0
    max_age_s: int = MAX_AGE_S


def parse_address(text: str) -> VenueAddress:
    """Read an address. What is wrong is told without its values: one may be a key that was put there by mistake.

    Raises:
        UsageError: another form, a parameter that is unknown or there twice, a number outside its bounds, an address with more than scheme,
            host and port, or one that would send a key unencrypted to another machine.
    """
    place, _, query = text.partition("?")
    named = _EXCHANGE.fullmatch(place)
    if named is None:
        raise UsageError("the address of a venue begins with ccxt: and the name of an exchange.", _FORM)
    try:
        pairs = (
            parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=8) if query else []
        )
    except ValueError:
        raise UsageError(
            "the address of a venue has after its ? something that is not name=value.", _FORM
        ) from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise UsageError("the address of a venue says one thing twice.", _FORM)
    unknown = sorted(set(given) - {"url", "timeout_s", "max_age_s"})
    if unknown:
        raise UsageError(
            f"the address of a venue has no parameter {unknown[0][:20]!r}; there are url, timeout_s and max_age_s.",
            _FORM,
        )
    timeout = given.get("timeout_s", "10")
    if not _SECONDS.fullmatch(timeout) or not 0 < float(timeout) <= MAX_TIMEOUT_S:
        raise UsageError(
            f"timeout_s of a venue is a number of seconds above 0, at most {MAX_TIMEOUT_S}.", _FORM
        )
    age = given.get("max_age_s", str(MAX_AGE_S))
    if not _WHOLE.fullmatch(age) or int(age) > MAX_MAX_AGE_S:
        raise UsageError(f"max_age_s of a venue is a whole number of seconds, 0 to {MAX_MAX_AGE_S}.", _FORM)
    url = _checked_url(given["url"]) if "url" in given else ""
    return VenueAddress(named[1], url, float(timeout), int(age))


def open_venue(address: VenueAddress, key: str, secret: str) -> Venue:
    """The venue of an address; nothing is asked yet.

    Raises:
        LibraryMissing: ccxt is not installed.
        UsageError: an exchange that is not known.
    """
    from qmtl.runtime.venues.ccxt_venue import CcxtVenue

    return CcxtVenue(
        address.exchange,
        key,
        secret,
        url=address.url,
        timeout_s=address.timeout_s,
        # On this machine is no exchange that would mind.
        paced=not (address.url and _is_loopback(urlsplit(address.url))),
    )


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError("the url of a venue is no address.", _FORM) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
        raise UsageError("the url of a venue begins with https:// and names a host.", _FORM)
    if "@" in parts.netloc:
        raise UsageError("the url of a venue has a user in it.", "Keys come from the environment.")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "?" in url or "#" in url:
        raise UsageError("the url of a venue is a scheme, a host and a port, and nothing more.", _FORM)
    if parts.scheme == "http" and not _is_loopback(parts):
        raise UsageError(
            "the url of a venue on another machine begins with https://: what is sent there is worth money.",
            _FORM,
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
