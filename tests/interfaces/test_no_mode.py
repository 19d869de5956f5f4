"""How a strategy may trade is said by its world alone: no command has a flag for it, and no function of an author's door a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click
import pytest

import qmtl
from qmtl.interfaces.cli.main import VERBS, cli

FORBIDDEN = ("mode", "dry_run", "dryrun", "backtest", "live", "paper", "simulate", "trade_mode")
"""The names of the interface that was removed."""


def commands(
    group: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            found = group.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


def test_no_command_has_an_option_that_says_how_to_trade() -> None:
    seen = 0
    for path, command in commands(cli):
        for parameter in command.params:
            seen += 1
            if isinstance(parameter, click.Option) and path[:1] in (
                ("strategy",),
                ("backtest",),
                ("sweep",),
                ("world",),
            ):
                flags = {
                    flag.lstrip("-").replace("-", "_")
                    for flag in (*parameter.opts, *parameter.secondary_opts)
                }
                assert not flags & set(FORBIDDEN), (path, parameter.opts)
            assert "--mode" not in parameter.opts, path
    assert seen > 100
    assert "strategy" in VERBS


def functions() -> Iterator[tuple[str, Any]]:
    for name in qmtl.__all__:
        found = getattr(qmtl, name)
        if inspect.isclass(found):
            yield name, found.__init__
            yield from (
                (f"{name}.{part}", value)
                for part, value in inspect.getmembers(found)
                if inspect.isroutine(value) and not part.startswith("_")
            )
        else:
            yield name, found


def test_no_function_of_the_authors_door_is_told_how_to_trade_by_a_parameter() -> None:
    names = []
    for name, function in functions():
        try:
            signature = inspect.signature(function)
        except ValueError:  # of C
            continue
        names.append(name)
        assert not {*signature.parameters} & set(FORBIDDEN), name
    assert {"Runner.run", "Runner.offline"} <= set(names)


@pytest.mark.parametrize("name", ["dryrun", "dry_run", "live", "backtest", "paper", "set_trade_mode"])
def test_a_runner_has_no_way_to_run_but_on_a_log_and_offline(name: str) -> None:
    assert not hasattr(qmtl.Runner, name)
