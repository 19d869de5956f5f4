"""How a client proves who it is to a Kafka cluster: settings from a file, of which no value is ever shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from qmtl.foundation.common.errors import UsageError

VARIABLE: Final = "QMTL_KAFKA_CONFIG"
"""The environment variable that names the file."""

_ALONE: Final = frozenset({"security.protocol", "enable.ssl.certificate.verification"})
_FAMILIES: Final = ("sasl.", "ssl.")
_PROPERTY: Final = re.compile(r"[a-z0-9._]{1,80}")


@dataclass(frozen=True, slots=True)
class Security:
    """The settings of librdkafka that stand in a file; nothing prints them.

    Attributes:
        place: the file, for error messages; empty where there is none.
    """

    place: str = ""
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    def refused(self, error: KafkaException) -> UsageError:
        """What to say where the client does not take the settings: the property's name, never a value."""
        named = [name for name in self.settings if f'"{name}"' in error.args[0].str()]
        return UsageError(
            f"{self.place or 'the Kafka client'}: the client does not take {named[0] if named else 'these settings'}.",
            "The names and values are librdkafka's; see its CONFIGURATION.md.",
        )


OPEN: Final = Security()
"""A cluster that asks nobody for a name."""


def from_environment() -> Security:
    """The settings of the file that `QMTL_KAFKA_CONFIG` names; none where the variable is not set.

    Raises:
        UsageError: as `read`.
    """
    place = os.environ.get(VARIABLE)
    return read(Path(place)) if place else OPEN


def read(path: Path) -> Security:
    """The settings of a properties file: `name=value` lines, `#` begins a comment line.

    Only what proves an identity may stand there (`security.protocol`, `sasl.*`, `ssl.*`): anything else would change what a
    transaction or a read means.

    Raises:
        UsageError: no such file, a line that is none, or another property; a line's number is named, never its value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"{VARIABLE} names {path}, which can't be read: {reason}.", "Name a properties file."
        ) from None
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or _PROPERTY.fullmatch(name) is None:
            raise UsageError(f"{path}, line {number}: that is no `name=value`.", "Write one property a line.")
        if name not in _ALONE and not name.startswith(_FAMILIES):
            raise UsageError(
                f"{path}, line {number}: {name} may not be set.",
                "Only security.protocol, sasl.* and ssl.* may; the others decide what a transaction means.",
            )
        if name in settings:
            raise UsageError(f"{path}, line {number}: {name} is there twice.", "Keep one of them.")
        settings[name] = value.strip()
    return Security(str(path), settings)
