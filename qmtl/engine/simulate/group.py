"""The coordinator of one consumer group: generations, static members, sessions, and which fences it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

SESSION_TIMEOUT_MS: Final = 10_000
REBALANCE_TIMEOUT_MS: Final = 300_000
UNKNOWN_GENERATION: Final = -1


class Running(Protocol):
    """A process: its heartbeats go out by themselves as long as it runs."""

    @property
    def runs(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class SimulatedFence:
    """What a commit of positions proves its membership with.

    Attributes:
        incarnation: which of the processes that have used the member's name.
    """

    group: str
    member: str
    incarnation: int
    generation: int


@dataclass(slots=True)
class _Member:
    incarnation: int
    process: Running
    seen_ms: int
    joined: bool = False


class Group:
    """Eager rebalances as Kafka's classic protocol has them, with static members.

    A rebalance begins when a member comes or its session ends. The generation goes up when every member has joined again,
    or when the rebalance has lasted too long. A static member that comes back takes its place, its share and the
    generation over from its earlier incarnation, which is refused from then on. Positions are taken from whoever shows the
    current generation, whether or not the partition is its own: the broker checks no more.
    """

    def __init__(self, name: str, tasks: int) -> None:
        self.name = name
        self.tasks = tasks
        self.generation = 0
        self.preparing_since_ms: int | None = None
        self._members: dict[str, _Member] = {}
        self._shares: dict[str, frozenset[int]] = {}
        self._incarnations = 0

    # ---- what a member asks -----------------------------------------------------------------------------------------

    def enter(self, name: str, process: Running, now_ms: int) -> int:
        """Join under a name; returns the incarnation, which fences the earlier ones of that name."""
        self._incarnations += 1
        known = self._members.get(name)
        self._members[name] = _Member(self._incarnations, process, now_ms)
        if known is None or self.preparing_since_ms is not None:
            self._prepare(now_ms)
        else:
            self._members[name].joined = True  # a static member's place is as it was
        return self._incarnations

    def is_current(self, name: str, incarnation: int) -> bool | None:
        """Whether a member is who it says; None where the group knows nobody of that name."""
        member = self._members.get(name)
        return None if member is None else member.incarnation == incarnation

    def join(self, name: str) -> None:
        """Take part in the rebalance that is being prepared; the last member to do so completes it."""
        self._members[name].joined = True
        self._complete_if_all()

    def awaits(self, name: str) -> bool:
        """Whether a rebalance waits for this member to give its tasks up and join."""
        return self.preparing_since_ms is not None and not self._members[name].joined

    def share(self, name: str) -> frozenset[int]:
        """The tasks of a member; none while a rebalance is being prepared."""
        return frozenset() if self.preparing_since_ms is not None else self._shares.get(name, frozenset())

    def shares(self) -> dict[str, frozenset[int]]:
        """The members with their tasks."""
        return {name: self.share(name) for name in self._members}

    def takes(self, fence: SimulatedFence) -> bool:
        """Whether positions may be committed with a fence."""
        current = self.is_current(fence.member, fence.incarnation)
        return bool(current) and fence.generation == self.generation

    # ---- what happens by itself ----------------------------------------------------------------------------------------

    def pass_time(self, now_ms: int) -> list[str]:
        """Let sessions end and rebalances time out; returns the members that lost their place."""
        gone = []
        for name, member in list(self._members.items()):
            if member.process.runs:
                member.seen_ms = now_ms
            elif now_ms - member.seen_ms > SESSION_TIMEOUT_MS:
                gone.append(name)
        since = self.preparing_since_ms
        if since is not None and now_ms - since > REBALANCE_TIMEOUT_MS:
            gone += [name for name, member in self._members.items() if not member.joined and name not in gone]
        for name in gone:
            del self._members[name]
        if gone:
            self._prepare(now_ms) if self.preparing_since_ms is None else self._complete_if_all()
        return gone

    def give_away(self, name: str) -> None:
        """Give a place to a repeated request of the same name: the member finds itself fenced."""
        if name in self._members:
            self._incarnations += 1
            self._members[name].incarnation = self._incarnations

    def _prepare(self, now_ms: int) -> None:
        if self.preparing_since_ms is None:
            self.preparing_since_ms = now_ms
            for member in self._members.values():
                member.joined = False

    def _complete_if_all(self) -> None:
        if self.preparing_since_ms is None or not all(one.joined for one in self._members.values()):
            return
        self.preparing_since_ms = None
        self.generation += 1
        names = sorted(self._members)
        self._shares = {name: frozenset() for name in names}
        each, more = divmod(self.tasks, len(names)) if names else (0, 0)
        start = 0
        for index, name in enumerate(names):  # as the range assignor does
            count = each + (index < more)
            self._shares[name] = frozenset(range(start, start + count))
            start += count
