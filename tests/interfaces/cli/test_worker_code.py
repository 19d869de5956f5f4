"""`qmtl worker run nodes --code`: which packages a worker may import from, and what is none."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from qmtl.bootstrap import CODE, functions_of
from tests.interfaces.cli.running import assert_one_screen, call


@pytest.mark.parametrize(
    ("name", "package", "says"),
    [
        ("trading", "mine", ("--code was given for trading", "only nodes")),
        ("clock", "mine", ("--code was given for clock",)),
        ("nodes", "../mine", ("--code was '../mine'", "name of a package")),
    ],
)
def test_a_package_that_is_none_or_nobodys_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, package: str, says: tuple[str, ...]
) -> None:
    log = f"embedded:{tmp_path / 'log'}"
    ran = call(capsys, "worker", "run", name, "--log", log, "--code", package)
    assert_one_screen(ran, "QMTL-801", 2, says=says)


def test_the_packages_are_those_of_the_options_and_of_the_environment_each_once() -> None:
    with patch.dict("os.environ", {CODE: "others, mine ,,deep.er"}):
        assert functions_of(["mine"]).packages == ("mine", "others", "deep.er")
    with patch.dict("os.environ", {CODE: ""}):
        assert functions_of().packages == ()
