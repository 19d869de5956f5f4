"""How many of something is said as people say it."""

from __future__ import annotations

import pytest

from qmtl.foundation.common.wording import counted


@pytest.mark.parametrize("count, said", [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes"), (11, "11 nodes")])
def test_one_is_told_as_one_and_more_as_many(count: int, said: str) -> None:
    assert counted(count, "node") == said


def test_a_word_of_its_own_for_many_is_said() -> None:
    assert (counted(1, "strategy", "strategies"), counted(3, "strategy", "strategies")) == (
        "1 strategy",
        "3 strategies",
    )
