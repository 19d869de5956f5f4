"""How the log on Kafka waits, and by which group protocol its workers share tasks; the defaults are for production."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from qmtl.foundation.common.errors import InvalidValue

GroupProtocol = Literal["classic", "consumer"]
GROUP_PROTOCOLS: Final[tuple[GroupProtocol, ...]] = ("classic", "consumer")
HEARTBEATS_PER_SESSION: Final = 3
HEARTBEAT_MS: Final = 1000
SHARE_OF_TRANSACTION: Final = 0.8
"""A transaction that has taken so much of what the broker gives it is given up, before the broker ends it for its age and shuts its
writer out as if there were a newer one."""
LEAST_SHARE: Final = 0.05
"""What a call gets however late it is, as the abort of a transaction that is given up; two of them have room before the broker's end."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Time-outs and the group protocol.

    Attributes:
        call_timeout_s: how long one question or one transactional call may take with all its repetitions, seconds; a call
            inside a transaction gets no more than what is left of `transaction_s`.
        transaction_timeout_ms: age at which the broker itself ends a transaction that nobody ends.
        session_timeout_ms: silence after which the classic group gives a member's tasks away; with `consumer` the broker
            decides that (`group.consumer.session.timeout.ms`, or the group's own `consumer.session.timeout.ms`).
        group_protocol: `classic` with static members, so that a killed worker has its tasks back at once; `consumer`
            (KIP-848) with dynamic members, since it refuses a static one until the session of its predecessor has ended; there
            the older of two workers in one slot learns that it has lost it with its next transaction.

    Raises:
        InvalidValue: a time-out that is not positive, or another protocol.
    """

    call_timeout_s: float = 30.0
    transaction_timeout_ms: int = 15_000
    session_timeout_ms: int = 10_000
    group_protocol: GroupProtocol = "classic"

    def __post_init__(self) -> None:
        for name in ("call_timeout_s", "transaction_timeout_ms", "session_timeout_ms"):
            if not getattr(self, name) > 0:
                raise InvalidValue(f"{name} was {getattr(self, name)!r}; a time-out is greater than 0.")
        if self.group_protocol not in GROUP_PROTOCOLS:
            raise InvalidValue(
                f"group_protocol was {self.group_protocol!r}; it is one of {', '.join(GROUP_PROTOCOLS)}."
            )

    @property
    def transaction_s(self) -> float:
        """How long a transaction may take in all, seconds from its begin to the end of its commit."""
        return SHARE_OF_TRANSACTION * self.transaction_timeout_ms / 1e3

    @property
    def least_s(self) -> float:
        """How long a call may take that comes when the transaction's time is almost over, or over, seconds."""
        return LEAST_SHARE * self.transaction_timeout_ms / 1e3

    @property
    def heartbeat_ms(self) -> int:
        """How often a classic member shows that it lives: several times a session, and each second at least."""
        return min(HEARTBEAT_MS, max(1, self.session_timeout_ms // HEARTBEATS_PER_SESSION))


DEFAULTS: Final = KafkaSettings()
