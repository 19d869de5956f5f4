"""A measurement that fails is told as a failure, whatever it was, and the next one is taken."""

from __future__ import annotations

import logging

import pytest

from qmtl.foundation.common.errors import LogUnreachable
from qmtl.interfaces.metrics.sampled import Sample, Sampled


@pytest.mark.parametrize(
    "error, told", [(LogUnreachable("the log is away."), 0), (PermissionError(), 1), (ZeroDivisionError(), 1)]
)
def test_after_a_failure_of_any_kind_the_last_result_stays_and_the_next_one_comes(
    error: Exception, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[int | Exception] = [1, error, 2]

    def measure() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    sampled = Sampled("numbers", measure, 0, every_s=0.0, wait_s=60.0)
    with caplog.at_level(logging.ERROR):
        found: list[Sample[int]] = [sampled.get() for _ in range(3)]
    sampled.stop()
    assert [(one.value, one.errors) for one in found] == [(1, 0), (1, 1), (2, 1)]
    mine = [
        one.getMessage() for one in caplog.records if one.threadName == "numbers"
    ]  # and no other thread's
    assert mine == ["numbers could not be measured"] * told
