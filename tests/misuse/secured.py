"""A broker that asks who somebody is, and lets nobody do what no rule allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from qmtl.testing.broker import free_ports, start_broker
from tests.contract.driving import until

PASSWORDS: Final = {"ann": "ann-s3cret-pass", "ben": "ben-s3cret-pass"}


class Secured:
    """A running broker with two listeners: one for its keeper, who may do everything, and one that asks for a name."""

    def __init__(self, bootstrap: str, port: int) -> None:
        self.keeper = bootstrap
        self.bootstrap = f"127.0.0.1:{port}"
        self._admin: Any = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def allow(
        self, who: str, kind: str, name: str, operations: Sequence[str], *, prefixed: bool = True
    ) -> None:
        """Adds rules; `kind` is topic, group, transactional_id or broker."""
        self._add(self._rules(who, kind, name, operations, prefixed))

    def forbid(self, who: str, kind: str, name: str, operations: Sequence[str]) -> None:
        """Adds rules that win over what is allowed."""
        rules = self._rules(who, kind, name, operations, False, AclPermissionType.DENY)
        self._add(rules)

    def forbid_no_more(self, who: str, kind: str, name: str, operations: Sequence[str]) -> None:
        """Takes back what `forbid` added."""
        rules = set(self._rules(who, kind, name, operations, False, AclPermissionType.DENY))
        filters = [
            AclBindingFilter(
                one.restype,
                one.name,
                one.resource_pattern_type,
                one.principal,
                one.host,
                one.operation,
                one.permission_type,
            )
            for one in rules
        ]
        for future in self._admin.delete_acls(filters).values():
            future.result(60)
        until(lambda: not rules & self._every())

    def _add(self, rules: list[Any]) -> None:
        """Returns when the broker goes by them."""
        for future in self._admin.create_acls(rules).values():
            future.result(60)
        until(lambda: set(rules) <= self._every())

    def _every(self) -> set[Any]:
        anything: Any = None  # what the package's own types do not know
        every = AclBindingFilter(
            ResourceType.ANY,
            anything,
            ResourcePatternType.ANY,
            anything,
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        return set(self._admin.describe_acls(every).result(60))

    def _rules(
        self,
        who: str,
        kind: str,
        name: str,
        operations: Sequence[str],
        prefixed: bool,
        permission: Any = AclPermissionType.ALLOW,
    ) -> list[Any]:
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        return [
            AclBinding(
                ResourceType[kind.upper()],
                name,
                pattern,
                f"User:{who}",
                "*",
                AclOperation[operation.upper()],
                permission,
            )
            for operation in operations
        ]


@contextmanager
def secured_broker() -> Iterator[Secured]:
    """Runs one for as long as the context lasts."""
    (port,) = free_ports(1)
    users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
    extra = {
        "listeners": f"PLAINTEXT://127.0.0.1:$port,SASL://127.0.0.1:{port},CONTROLLER://127.0.0.1:$controller_port",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:$port,SASL://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with start_broker(extra=extra) as broker:
        yield Secured(broker.bootstrap, port)


def login(place: Path, who: str, password: str | None = None) -> Path:
    """A file with which a client of that name gets in."""
    place.write_text(
        "# how to get in\n"
        "security.protocol=SASL_PLAINTEXT\n"
        "sasl.mechanism = PLAIN\n"
        f"sasl.username={who}\n"
        f"sasl.password={PASSWORDS[who] if password is None else password}\n",
        encoding="utf-8",
    )
    return place
