"""A node by itself gives what a worker computes for the same inputs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from qmtl import CacheView, ProcessingNode, StreamInput, Target
from qmtl.foundation.common.errors import ComputeFailed, InvalidValue
from qmtl.testing import outputs_of
from tests.runtime.sdk import authored
from tests.services.nodes.test_missing import wanted

ONE = StreamInput(symbols=["BTC-USD"], name="one")
TWO = StreamInput(symbols=["BTC-USD", "ETH-USD"], name="two")


@pytest.mark.parametrize("when", ["all", "any"])
@pytest.mark.parametrize("period", [1, 2])
def test_it_warms_up_and_is_silent_where_a_worker_is(when: str, period: int) -> None:
    one: list[float | None] = [1.0, None, 2.0, 3.0, None, 4.0]
    two: list[float | None] = [5.0, 6.0, None, 7.0, None, 8.0]
    node = ProcessingNode([ONE, TWO], authored.both, period=period, when=when, interval=60)
    said = outputs_of(node, {"one": one, "two": two})
    assert [(at, value) for at, value in enumerate(said, 1) if value is not None] == wanted(
        one, two, when, period
    )


def lean(view: CacheView) -> Target:
    return Target(0.1 if view.bar.close > view[0][60][-1][1] else Decimal("-0.10"))


def test_a_target_is_exact_and_at_the_close_of_its_bar() -> None:
    node = ProcessingNode({"x": ONE}, lean, gives="target")
    assert outputs_of(node, [1.0, 3.0], closes=[2, 2.5]) == [
        Target(Decimal("0.1"), Decimal(2)),
        Target(Decimal("-0.1"), Decimal("2.5")),
    ]


def test_what_fails_fails_here_too() -> None:
    node = ProcessingNode(ONE, authored.fails_above, params={"limit": 2})
    with pytest.raises(ComputeFailed, match=r"ValueError \(3.0 is too high\) for TEST in the bucket 120000"):
        outputs_of(node, [1.0, 3.0])


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"one": [1.0]}, "it reads 'one', 'two'"),
        ({"one": [1.0], "two": [1.0], "three": [1.0]}, "'three'"),
        ([1.0], "it reads 'one', 'two'"),
        ({"one": [1.0], "two": [1.0, 2.0]}, "1, 2, 1 buckets"),
    ],
)
def test_inputs_that_are_not_the_nodes_are_refused(inputs: dict[str, list[float]], says: str) -> None:
    node = ProcessingNode([ONE, TWO], authored.both, name="mine")
    with pytest.raises(InvalidValue, match=says) as caught:
        outputs_of(node, inputs)
    assert "'mine'" in str(caught.value)
