"""A strategy from where its author has it: a file of Python, a class in a package, or a DAG message."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Final

from qmtl.foundation.common.errors import InvalidStrategy, QmtlError, StrategyNotLoaded
from qmtl.runtime.sdk.functions import register
from qmtl.runtime.sdk.message import dag_message
from qmtl.runtime.sdk.nodes import Node, ProcessingNode
from qmtl.runtime.sdk.strategy import Strategy

MAX_MESSAGE_BYTES: Final = 1 << 20
"""Of a DAG message; of a longer file one byte more is read, so that its size is told by whoever refuses it."""

_SHOWN: Final = 200
_LISTED: Final = 10
_QMTL: Final = str(Path(__file__).parents[2]) + os.sep
_LIBRARY: Final = sysconfig.get_path("stdlib") + os.sep
_INSTALLED: Final = f"{os.sep}site-packages{os.sep}"
_LOADED: Final[dict[str, Path]] = {}
"""Modules that were loaded here from files, which a second load replaces."""


def load_strategy(spec: str) -> Strategy | bytes:
    """The strategy that a text names; its module is run, as Python runs a program.

    Args:
        spec: `FILE.py`, `FILE.py:NAME`, `package.module:NAME`, or `FILE.json`, a DAG message. A name is that of a class, or of a strategy.

    Returns: a strategy, or the bytes of a message as the file has them.

    Raises:
        StrategyNotLoaded: no such file, module or name, several strategies and no name, code that can't be imported or made an object of.
    """
    if spec.endswith(".json"):
        return _message(Path(spec))
    return _made(*_found(spec))


def load_class(spec: str) -> type[Strategy]:
    """The class of a strategy that a text names, for whoever makes several strategies of it; its module is run, as Python runs a program.

    Args:
        spec: as of `load_strategy`.

    Raises:
        StrategyNotLoaded: as `load_strategy`; a message or a strategy that is made already.
    """
    found = None if spec.endswith(".json") else _found(spec)[0]
    if not isinstance(found, type):
        what = "a DAG message" if found is None else "a strategy that is made already"
        raise StrategyNotLoaded(f"{spec[:_SHOWN]} names {what}; a class is required.", "Name the class.")
    return found


def nodes_of(strategy: Strategy) -> tuple[Node, ...]:
    """Its nodes.

    Raises:
        InvalidStrategy: what its `setup` does is refused; with the line.
        StrategyNotLoaded: its `setup` failed.
    """
    with _told(f"setup of the strategy {type(strategy).__name__}"):
        return strategy.nodes


def lacks_interval(strategy: Strategy | bytes) -> bool:
    """Whether a source of it has no interval, neither of its own nor the strategy's."""
    if isinstance(strategy, bytes) or strategy.default_interval is not None:
        return False
    return any(one.interval is None and not one.inputs for one in nodes_of(strategy))


def message_of(strategy: Strategy | bytes, default_interval: int | None = None) -> bytes:
    """The DAG message of what was loaded; the functions of its nodes can be run in this process from now on.

    Args:
        default_interval: seconds, for a strategy that has none; the strategy itself stays as it is.

    Raises:
        InvalidStrategy, DuplicateName: as `dag_message`.
        StrategyNotLoaded: its `setup` failed.
    """
    if isinstance(strategy, bytes):
        return strategy
    nodes = nodes_of(strategy)
    if strategy.default_interval is None and default_interval is not None:
        strategy = copy(strategy)
        strategy.default_interval = default_interval
    message = dag_message(strategy)
    for node in nodes:
        if isinstance(node, ProcessingNode):
            register(node.compute_fn)
    return message


def _message(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_MESSAGE_BYTES + 1)
    except OSError as error:
        raise _unread(path, error) from None


def _unread(path: Path, error: OSError) -> StrategyNotLoaded:
    return StrategyNotLoaded(f"the strategy {path} can't be read: {error.strerror}.", "Name another file.")


def _from_file(path: Path) -> ModuleType:
    """The module of a file, with the directory in which its package or itself lies on the path of imports, as for a program."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise _unread(path, error) from None
    file = path.resolve()
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    name = ".".join(parts)
    if not all(one.isidentifier() for one in parts):
        raise StrategyNotLoaded(
            f"{path} can't be imported: {name!r} is no name of a module.",
            "Rename the file: letters, digits and underscores, no digit first.",
        )
    known = sys.modules.get(name)
    is_other = known is not None and name not in _LOADED and getattr(known, "__file__", None) != str(file)
    if is_other or name in sys.stdlib_module_names:
        raise StrategyNotLoaded(
            f"{path} can't be imported: there is another module {name!r} already.", "Rename the file."
        )
    _put_on_path(root)
    with _told(f"{path}"):
        if len(parts) > 1:
            return importlib.import_module(name)
        found = importlib.util.spec_from_file_location(name, file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[name] = module
        try:
            found.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        _LOADED[name] = file
        return module


def _from_package(name: str) -> ModuleType:
    _put_on_path(Path.cwd())
    with _told(f"the module {name}"):
        return importlib.import_module(name)


def _put_on_path(directory: Path) -> None:
    """For good, as for a program: a function of a strategy may import what lies beside it later on, too."""
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
        importlib.invalidate_caches()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever an author's code raises is told with its last line that is the author's, in place of the way there."""
    try:
        yield
    except QmtlError as refused:
        line = _line_of(refused)
        if line is None or isinstance(refused, StrategyNotLoaded):
            raise
        refused.what = f"{line}: {refused.what}"
        raise
    except SyntaxError as error:
        raise StrategyNotLoaded(
            f"{what} can't be imported: {Path(error.filename or '').name} line {error.lineno}: {error.msg}.",
            "Mend that line.",
        ) from error
    except (Exception, SystemExit) as error:  # whatever an author's module does while it is imported
        line = _line_of(error)
        where = "" if line is None else f"{line}: "
        said = " ".join(str(error).split())[:_SHOWN]
        remedy = "Mend that line."
        if isinstance(error, ModuleNotFoundError):
            remedy = f"Install {error.name}, or mend that line."
        raise StrategyNotLoaded(
            f"{what} can't be loaded: {where}{type(error).__name__}{f' ({said})' if said else ''}.", remedy
        ) from error


def _line_of(error: BaseException) -> str | None:
    """The last line of an author's on the way to an error; None where there is none."""
    theirs = [
        one
        for one in traceback.extract_tb(error.__traceback__)
        if not one.filename.startswith((_QMTL, "<"))
        and (not one.filename.startswith(_LIBRARY) or _INSTALLED in one.filename)
    ]
    own = [one for one in theirs if _INSTALLED not in one.filename] or theirs
    return f"{Path(own[-1].filename).name} line {own[-1].lineno}" if own else None


def _found(spec: str) -> tuple[type[Strategy] | Strategy, str]:
    """What a text names in a module, and its name there."""
    place, separator, name = spec.rpartition(":")
    if not separator or name.endswith(".py"):
        place, name = spec, ""
    if place.endswith(".py"):
        module = _from_file(Path(place))
    elif name and all(one.isidentifier() for one in place.split(".")):
        module = _from_package(place)
    else:
        raise StrategyNotLoaded(
            f"{spec[:_SHOWN]!r} names no strategy; FILE.py, FILE.py:CLASS, package.module:CLASS or FILE.json does.",
            "Name the file in which the strategy is.",
        )
    return _chosen(module, name, spec)


def _chosen(module: ModuleType, name: str, spec: str) -> tuple[type[Strategy] | Strategy, str]:
    there = {
        key: one
        for key, one in vars(module).items()
        if isinstance(one, Strategy) or (_is_strategy(one) and one.__module__ == module.__name__)
    }
    if not name:
        if len(there) > 1:
            listed = ", ".join(sorted(there)[:_LISTED]) + (" …" if len(there) > _LISTED else "")
            raise StrategyNotLoaded(
                f"{spec} has {len(there)} strategies: {listed}.",
                f"Name one, such as {spec}:{sorted(there)[0]}.",
            )
        if not there:
            raise StrategyNotLoaded(
                f"{spec} has no strategy.",
                "Write a subclass of qmtl.Strategy with a `setup` that adds its nodes.",
            )
        (name,) = there
    found = getattr(module, name, None)
    if isinstance(found, Strategy) or (isinstance(found, type) and issubclass(found, Strategy)):
        return found, name
    listed = ", ".join(sorted(there)[:_LISTED]) or "none"
    what = "is no strategy" if hasattr(module, name) else "is not there"
    raise StrategyNotLoaded(f"{name!r} of {spec} {what}; its strategies: {listed}.", "Name one of them.")


def _made(found: type[Strategy] | Strategy, name: str) -> Strategy:
    if isinstance(found, Strategy):
        return found
    with _told(f"the strategy {name}"):
        try:
            return found()
        except TypeError as error:
            if _line_of(error) is not None:
                raise
            raise InvalidStrategy(
                f"the strategy {name} can't be made without arguments: {error}.",
                "Give its arguments defaults, or name a strategy that the file has made.",
            ) from error


def _is_strategy(one: object) -> bool:
    """A class with a `setup` of its own or inherited from another than `Strategy`, which has none to speak of."""
    return isinstance(one, type) and issubclass(one, Strategy) and one.setup is not Strategy.setup
