"""What a sweep tries: every combination that its conditions allow, once, in one order and under one id, however it was said."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.backtest.sweep.space import (
    MAX_COMBINATIONS,
    Combination,
    Parameter,
    Space,
    parameter,
    read_condition,
    read_parameter,
    value_text,
)
from qmtl.foundation.common.errors import InvalidSweep
from qmtl.foundation.common.names import MAX_NAME, is_name

NAMES = st.sampled_from(["a", "fast", "slow", "z_9"])
WHOLE = st.integers(-(10**14), 10**14)
VALUES = st.one_of(
    st.lists(WHOLE, min_size=1, max_size=4, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4, unique=True),
    st.lists(st.from_regex(r"[a-z][a-z0-9_./-]{0,9}", fullmatch=True), min_size=1, max_size=4, unique=True),
    st.just([False, True]),
)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), st.data())
def test_how_parameters_and_values_are_ordered_changes_nothing(
    said: dict[str, list[int]], data: st.DataObject
) -> None:
    once = Space.of([parameter(name, values) for name, values in said.items()])
    turned = data.draw(st.permutations(list(said)))
    again = Space.of([parameter(name, data.draw(st.permutations(said[name]))) for name in turned])
    assert once == again
    found = once.combinations()
    assert found == again.combinations()
    names = sorted(said)
    wanted = {tuple(zip(names, values, strict=True)) for values in product(*(said[name] for name in names))}
    assert len(found) == len(wanted)
    assert {one.values for one in found} == wanted
    assert len({one.strategy_id("s") for one in found}) == len(found)


@given(st.lists(WHOLE, min_size=1, max_size=5, unique=True))
def test_numbers_read_from_a_text_are_those_that_were_written(values: list[int]) -> None:
    text = ",".join(map(value_text, values))
    assert read_parameter(f"x={text}") == Parameter("x", tuple(sorted(values)))


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(1, 9), st.sampled_from([0, 1, 2]))
def test_a_range_has_every_step_from_its_first_number_to_its_last(
    first: int, more: int, step: int, places: int
) -> None:
    last = first + more
    wanted = tuple(range(first, last + 1, step))
    if places == 0:
        assert read_parameter(f"x={first}:{last}:{step}").values == wanted
        return
    scaled = [f"{one}e-{places}" for one in (first, last, step)]
    assert read_parameter(f"x={':'.join(scaled)}").values == tuple(
        float(f"{one}e-{places}") + 0.0 for one in wanted
    )


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=20), st.integers(-5, 5)
)
def test_a_condition_is_the_comparison_that_it_says(pairs: list[tuple[int, int]], number: int) -> None:
    for a, b in pairs:
        values = {"a": a, "b": b}
        assert read_condition("a<b").holds(values) == (a < b)
        assert read_condition(" a <= b ").holds(values) == (a <= b)
        assert read_condition("b>a").holds(values) == (b > a)
        assert read_condition("a==b").holds(values) == (a == b)
        assert read_condition("a!=b").holds(values) == (a != b)
        assert read_condition(f"a>={number}").holds(values) == (a >= number)
        assert read_condition(f"a<{number}.5").holds(values) == (
            a < number + 0.5 if number >= 0 else a < number - 0.5
        )


@given(st.text(min_size=0, max_size=60))
def test_no_text_is_a_condition_that_does_more_than_compare(text: str) -> None:
    try:
        found = read_condition(text)
    except InvalidSweep:
        return
    assert found.left.isidentifier()
    assert found.sign in ("<", "<=", ">", ">=", "==", "!=")
    assert not isinstance(found.right, str) or found.right.isidentifier()


@pytest.mark.parametrize("stem", ["s", "a" * MAX_NAME, "a." * 99 + "aa", "x" * 182 + ".y"])
def test_an_id_is_a_name_whatever_the_name_of_the_class(stem: str) -> None:
    one = Combination((("fast", 5), ("slow", 20.5)))
    assert is_name(stem)
    assert is_name(one.strategy_id(stem))
    assert one.strategy_id(stem) != Combination((("fast", 5), ("slow", 20))).strategy_id(stem)


def test_ids_are_these_for_ever() -> None:
    assert Combination((("fast", 5), ("slow", 20))).strategy_id("cross") == "cross-3769bbe03dd092bc"
    assert Combination((("fast", True),)).digest() != Combination((("fast", 1),)).digest()


BAD = {
    "no form": (["fast"], [], "--param was 'fast'"),
    "no name": (["=5"], [], "--param was '=5'"),
    "no name of Python's": (["a-b=5"], [], "--param was 'a-b=5'"),
    "no values": (["fast="], [], "'fast' had no values"),
    "an empty value": (["fast=5,,6"], [], "a value of 'fast' was ''"),
    "a step of 0": (["fast=5:50:0"], [], "a step of 0"),
    "an empty range": (["fast=50:5:5"], [], "the range of 'fast' is empty"),
    "a step that leads away": (["fast=5:50:-5"], [], "the range of 'fast' is empty"),
    "two numbers": (["fast=5:50"], [], "a range has three numbers"),
    "a range of words": (["fast=a:b:c"], [], "a range has three numbers"),
    "too long a range": (["fast=1:1e6:1"], [], f"more than {MAX_COMBINATIONS} values"),
    "a range without end": (["fast=0:9e999:1e-999"], [], "values"),
    "a value twice": (["fast=5,6,5"], [], "'fast' had the value 5 twice"),
    "a value twice in two ways": (["fast=5,5.0"], [], "'fast' had the value 5.0 twice"),
    "no finite number": (["fast=1e999"], [], "is not finite"),
    "several kinds": (["fast=5,on"], [], "several kinds, such as '5' and 'on'"),
    "truth and number": (["fast=1,true"], [], "several kinds"),
    "a parameter twice": (["fast=5", "fast=6"], [], "'fast' was said twice"),
    "nothing": ([], [], "0 parameters"),
    "too many parameters": ([f"p{at}=1" for at in range(17)], [], "17 parameters"),
    "too many to choose of": ([f"p{at}=1:100:1" for at in range(4)], [], "100000000 combinations"),
    "too many": (["a=1:101:1", "b=1:100:1"], [], "10100 combinations"),
    "a condition on nothing": (["fast=5"], ["fast<slow"], "names 'slow'; the parameters are fast"),
    "a condition on words": (["kind=a,b"], ["kind<5"], "are no numbers"),
    "a condition that calls": (["fast=5"], ["fast<len(x)"], "--where was"),
    "a condition of two": (["fast=5"], ["1<fast<3"], "--where was"),
    "nothing holds": (["fast=5", "slow=3"], ["fast<slow"], "no combination holds"),
}


@pytest.mark.parametrize("said, conditions, told", BAD.values(), ids=BAD.keys())
def test_what_is_no_space_is_refused_with_what_was_wrong(
    said: list[str], conditions: list[str], told: str
) -> None:
    with pytest.raises(InvalidSweep) as refused:
        Space.of(map(read_parameter, said), map(read_condition, conditions)).combinations()
    assert told in str(refused.value)
    assert refused.value.remedy
    assert len(str(refused.value)) < 600
