"""What must come out of the toys, from the definition of a cut alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from tests.engine.toys import Item, Seen, Total

MINUTE = 60_000
Buckets = Sequence[Sequence[tuple[str, int]]]
BUCKETS: st.SearchStrategy[Buckets] = st.lists(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 9)), max_size=3),
    min_size=1,
    max_size=6,
)


def items(bucket: Sequence[tuple[str, int]], number: int) -> list[Item]:
    return [Item(name, number * 100 + index, amount) for index, (name, amount) in enumerate(bucket)]


def minute(number: int) -> int:
    return (number + 1) * MINUTE


def render(state: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    return tuple(f"{name}={amount}@{at}" for name, (amount, at) in sorted(state.items()))


def loop_model(buckets: Buckets, lag: int) -> list[Seen]:
    """A sees B's state at the close of the bucket `lag` before; B adds up what A gave out."""
    out: list[Seen] = []
    cuts: list[tuple[str, ...]] = []
    state: dict[str, tuple[int, int]] = {}
    for number, bucket in enumerate(buckets):
        visible = cuts[number - lag] if number >= lag else ()
        for item in items(bucket, number):
            out.append(Seen(minute(number), item.name, item.seq, item.amount, visible))
            state[item.name] = (state.get(item.name, (0, 0))[0] + item.amount, minute(number))
        cuts.append(render(state))
    return out


def late_model(buckets: Buckets, lag: int) -> list[Seen]:
    """An own table `lag` buckets ago, with deletions."""
    out: list[Seen] = []
    cuts: list[dict[str, tuple[int, int]]] = []
    state: dict[str, tuple[int, int]] = {}
    for number, bucket in enumerate(buckets):
        before = cuts[number - lag] if number >= lag else {}
        for item in items(bucket, number):
            if item.amount:
                state[item.name] = (state.get(item.name, (0, 0))[0] + item.amount, minute(number))
            else:
                state.pop(item.name, None)
            out.append(
                Seen(minute(number), item.name, item.seq, before.get(item.name, (0, 0))[0], render(before))
            )
        cuts.append(dict(state))
    return out


def counted(items: Sequence[Item]) -> list[Seen]:
    """What the counter says to these items, one after the other."""
    amounts: dict[str, int] = {}
    out = []
    for item in items:
        amounts[item.name] = amounts.get(item.name, 0) + item.amount
        out.append(Seen(0, item.name, item.seq, amounts[item.name]))
        if not item.amount:
            del amounts[item.name]
    return out


def totals(items: Sequence[Item]) -> list[Total]:
    amounts: dict[str, int] = {}
    for item in items:
        amounts[item.name] = amounts.get(item.name, 0) + item.amount
        if not item.amount:
            del amounts[item.name]
    return [Total(name, amount) for name, amount in sorted(amounts.items())]
