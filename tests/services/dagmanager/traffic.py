"""Who has which traffic by the written rules, out of nothing but what was said: versions by their owners, and no table of ours.

The rules. A version waits until the topics of all its nodes are there; then it takes its share, which is all where its strategy has no
version or it asks for all. A strategy has one version or a stable one and a canary. Whatever was said last of a strategy ends the wait
of its other versions, but for a step of a canary or its end. While hits are uncleared nobody gains, but the stable version from its
canary, whoever was stable before by a rollback, and anybody where nobody has traffic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from tests.services.dagmanager.oracle import canonical, hashed

ALL = 10_000
REFUSED, HELD, ROLLOUT = "QMTL-602", "QMTL-604", "QMTL-510"
PENDING, ACTIVE, RETIRED, FAILED = "pending", "active", "retired", "failed"

Owner: TypeAlias = tuple[str, str]
"""A world, and a strategy in it."""


@dataclass(frozen=True)
class Version:
    """Attributes:
    share: that it has or waits for, of `ALL`; whatever it was where it is over.
    was_stable: it can be returned to while promotions are held.
    over_since_ms: the first tick at which it was over.
    """

    owner: Owner
    nodes: tuple[str, ...]
    signals: tuple[str, ...]
    status: str
    share: int
    was_stable: bool = False
    over_since_ms: int | None = None


@dataclass
class Traffic:
    """Each method takes a message and returns the code with which it is refused, empty where it is not."""

    versions: dict[str, Version] = field(default_factory=dict)
    active: dict[Owner, list[str]] = field(default_factory=dict)
    held: bool = False

    # ---- what is said ------------------------------------------------------------------------------------------------

    def submit(self, owner: Owner, message: dict[str, Any], share: int) -> str:
        made = canonical(message)
        label = message["meta"]["version"]
        name = self._id(owner, label, made["commit"])
        return self._publish(name, owner, tuple(made["nodes"].values()), tuple(made["signals"]), share)

    def redo(self, name: str, label: str) -> str:
        one = self.versions.get(name)
        if one is None:
            return REFUSED
        commit = hashed({"nodes": sorted(one.nodes), "signals": list(one.signals), "version": label})
        again = self._id(one.owner, label, commit.removeprefix("blake3:"))
        code = self._publish(again, one.owner, one.nodes, one.signals, ALL)
        return REFUSED if code and code != HELD else code

    def weigh(self, name: str, share: int) -> str:
        one = self.versions.get(name)
        if share > ALL or one is None or one.status not in (PENDING, ACTIVE):
            return REFUSED
        if self._gains(name, one.owner, share):
            return HELD
        if one.status == PENDING:
            self._set(name, share=share, status=PENDING if share else RETIRED)
            return ""
        if len(self.active[one.owner]) == 1 and share < ALL:
            return REFUSED
        if share == ALL:
            self._end_waits(name)
        self._split(name, share)
        return ""

    def back(self, name: str) -> str:
        one = self.versions.get(name)
        if one is None or one.status == FAILED:
            return REFUSED
        if not one.was_stable and self._gains(name, one.owner, ALL):
            return HELD
        self._end_waits(name)
        if one.status == ACTIVE:
            self._split(name, ALL)
        else:
            self._set(name, status=PENDING, share=ALL)
        return ""

    def retire(self, owner: Owner) -> str:
        mine = [name for name, one in self.versions.items() if one.owner == owner]
        there = [name for name in mine if self.versions[name].status in (PENDING, ACTIVE)]
        for name in there:
            was_active = self.versions[name].status == ACTIVE
            was_stable = self.active[owner][0] == name if was_active else self.versions[name].was_stable
            self._set(name, status=RETIRED, was_stable=was_stable)
        self.active.pop(owner, None)
        return "" if there else REFUSED

    # ---- what happens ------------------------------------------------------------------------------------------------

    def fail(self, node: str) -> None:
        """A topic of a node could not be made."""
        for name, one in self.versions.items():
            if one.status == PENDING and node in one.nodes:
                self._set(name, status=FAILED)

    def settle(self, usable: Collection[str]) -> None:
        """The topics of these nodes are there: who waits for no other one takes its share."""
        for name, one in self.versions.items():
            if one.status == PENDING and set(one.nodes) <= set(usable):
                if not self.active.get(one.owner) or one.share == ALL:
                    self._settle([name], ALL)
                else:
                    self._settle([self.active[one.owner][0], name], one.share)

    def tick(self, now_ms: int) -> None:
        for name, one in self.versions.items():
            if one.status in (RETIRED, FAILED) and one.over_since_ms is None:
                self.versions[name] = replace(one, over_since_ms=now_ms)

    # ---- what follows ------------------------------------------------------------------------------------------------

    def named(self, *status: str) -> dict[str, Version]:
        return {name: one for name, one in self.versions.items() if one.status in status}

    def references(self) -> Counter[str]:
        """How many versions hold each node."""
        return Counter(node for one in self.named(PENDING, ACTIVE).values() for node in set(one.nodes))

    def carried(self) -> set[str]:
        return {node for one in self.named(ACTIVE).values() for node in one.nodes}

    # ---- the rules ---------------------------------------------------------------------------------------------------

    def _publish(
        self, name: str, owner: Owner, nodes: tuple[str, ...], signals: tuple[str, ...], share: int
    ) -> str:
        now = self.active.get(owner, [])
        if share < ALL and len(now) == 2 and now[1] != name:
            return ROLLOUT
        if self._gains(name, owner, share):
            return HELD
        known = self.versions.get(name)
        if known is None or known.status in (RETIRED, FAILED):
            self.versions[name] = Version(owner, nodes, signals, PENDING, share)
        elif known.status == PENDING:
            self._set(name, share=share)
        elif len(now) == 2:
            self._split(name, share)
        self._end_waits(name)
        return ""

    def _gains(self, name: str, owner: Owner, share: int) -> bool:
        now = self.active.get(owner, [])
        if not self.held or not now or now == [name]:
            return False
        if name == now[0]:
            return share < self.versions[name].share
        known = self.versions.get(name)
        return share > (known.share if known is not None and known.status in (PENDING, ACTIVE) else 0)

    def _end_waits(self, name: str) -> None:
        owner = self.versions[name].owner
        for other, one in self.versions.items():
            if other != name and one.owner == owner and one.status == PENDING:
                self._set(other, status=RETIRED)

    def _split(self, name: str, share: int) -> None:
        now = self.active[self.versions[name].owner]
        if len(now) == 2:
            canary = share if name == now[1] else ALL - share
            self._settle(now[1:] if canary == ALL else now if canary else now[:1], canary or ALL)

    def _settle(self, names: list[str], last: int) -> None:
        """From now on these versions have a strategy's traffic, the last one this share."""
        owner = self.versions[names[0]].owner
        before = self.active.get(owner, [])
        is_return = self.versions[names[0]].was_stable
        for gone in [one for one in before if one not in names]:
            self._set(gone, status=RETIRED, was_stable=gone == before[0] and not is_return)
        for name, share in zip(names[::-1], (last, ALL - last), strict=False):
            self._set(name, status=ACTIVE, share=share, was_stable=False)
        self.active[owner] = names

    def _set(self, name: str, **facts: Any) -> None:
        self.versions[name] = replace(self.versions[name], over_since_ms=None, **facts)

    @staticmethod
    def _id(owner: Owner, label: str, commit: str) -> str:
        return f"{owner[0]}:{owner[1]}:{label}:{commit[:16]}"
