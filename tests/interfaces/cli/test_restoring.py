"""How far a restore is, as a person reads it."""

from __future__ import annotations

from qmtl.interfaces.cli.restoring import Restoring


class Screen:
    """A clock that is set by hand, and what was said."""

    def __init__(self, *, terminal: bool) -> None:
        self.now = 100.0
        self.said = ""
        self.told = Restoring(lambda: self.now, terminal, self._say)

    def _say(self, text: str) -> None:
        self.said += text

    def at(self, seconds: float, done: int, task: str = "trading[0]", total: int = 1_000_000) -> str:
        self.now, self.said = 100.0 + seconds, ""
        self.told(task, done, total)
        return self.said


def test_without_a_terminal_there_is_a_line_every_ten_seconds() -> None:
    screen = Screen(terminal=False)
    assert [screen.at(second, 10_000 * second) for second in range(10)] == [""] * 10
    assert screen.at(10, 412_000) == "restoring trading[0]: 412,000 of 1,000,000 offsets, 14 s left\n"
    assert screen.at(19, 500_000) == ""
    assert screen.at(20, 800_000) == "restoring trading[0]: 800,000 of 1,000,000 offsets, 5 s left\n"
    assert screen.at(31, 1_000_000) == ""


def test_on_a_terminal_one_line_changes_and_goes_at_the_end() -> None:
    screen = Screen(terminal=True)
    assert screen.at(0, 0) == ""
    assert screen.at(0.9, 100_000) == ""
    line = "restoring trading[0]: 250,000 of 1,000,000 offsets, 3 s left"
    assert screen.at(1.0, 250_000) == f"\r{line}"
    assert screen.at(1.1, 260_000) == ""
    assert (
        screen.at(2.0, 999_999)
        == f"\r{'restoring trading[0]: 999,999 of 1,000,000 offsets, 1 s left':{len(line)}}"
    )
    assert screen.at(2.1, 1_000_000) == f"\r{'':{len(line)}}\r"


def test_a_restore_that_is_soon_over_is_not_spoken_of() -> None:
    for terminal in (True, False):
        screen = Screen(terminal=terminal)
        assert screen.at(0, 5, total=10) + screen.at(0.5, 10, total=10) == ""


def test_the_time_that_is_left_is_told_in_fitting_units() -> None:
    screen = Screen(terminal=False)
    screen.at(0, 0)
    assert screen.at(10, 1_000).endswith(", 2.8 h left\n")
    assert screen.at(30, 20_000).endswith(", 24 min left\n")


def test_a_restore_that_begins_again_counts_from_its_new_beginning() -> None:
    screen = Screen(terminal=False)
    screen.at(0, 900_000)
    screen.at(5, 0)
    assert screen.at(15, 200_000) == "restoring trading[0]: 200,000 of 1,000,000 offsets, 40 s left\n"
