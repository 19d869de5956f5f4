"""Where a strategy runs: the address of a log, until there is a gateway to be asked for one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qmtl.foundation.common.errors import NoGateway, UsageError

_HTTP: Final = ("http://", "https://")
_LOGS: Final = ("kafka:", "embedded:")
_SHOWN: Final = 200


def log_address(gateway_url: str | Path) -> str:
    """The address of a log, as `--log` takes it.

    Args:
        gateway_url: `kafka://HOST:PORT[/NAMESPACE]`, `embedded:DIR`, or the directory of an embedded log alone.

    Raises:
        NoGateway: an address of HTTP: this version has no gateway.
        UsageError: it is empty, or of another scheme.
    """
    text = str(gateway_url).strip()
    if text.lower().startswith(_HTTP):
        raise NoGateway(
            f"gateway_url was {text[:_SHOWN]!a}; this version has no gateway to talk to over HTTP.",
            "Give the address of a log: kafka://HOST:PORT, or the directory of an embedded one.",
        )
    if text.startswith(_LOGS):
        return text
    if not text or "://" in text:
        raise UsageError(
            f"gateway_url was {text[:_SHOWN]!a}; the address of a log is required.",
            "Give kafka://HOST:PORT, or the directory of an embedded log.",
        )
    return f"embedded:{text}"
