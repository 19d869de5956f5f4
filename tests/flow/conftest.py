"""What the tests of the whole flow share: short bars, and what a run of them gives that nothing disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flow.driving import Place, Result, embedded, run_demo, write_bars


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The first minutes of the shipped data."""
    return write_bars(tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="session")
def undisturbed_place(tmp_path_factory: pytest.TempPathFactory, bars: dict[str, Path]) -> Place:
    """Where `undisturbed` runs; its log may be read, never written."""
    return embedded(tmp_path_factory.mktemp("undisturbed"), bars)


@pytest.fixture(scope="session")
def undisturbed(undisturbed_place: Place) -> Result:
    """What a run of the short bars gives on an embedded log."""
    return run_demo(undisturbed_place)
