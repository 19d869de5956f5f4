"""What a compute function may name: nothing through which the clock, chance, other processes or hidden state reach it.

It looks at names, in the function and in all functions of its own package that it calls. It keeps honest authors from mistakes and is
no fence against others: Python has none.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from qmtl.foundation.common.errors import ImpureFunction, InvalidStrategy

ALLOWED_MODULES: Final = frozenset(
    {
        "_bisect", "_collections", "_collections_abc", "_decimal", "_functools", "_heapq", "_operator", "_statistics",
        "abc", "array", "bisect", "builtins", "cmath", "collections", "copy", "dataclasses", "decimal", "enum", "fractions",
        "functools", "heapq", "itertools", "math", "numbers", "operator", "re", "statistics", "string", "struct", "textwrap",
        "types", "typing",
    }
)  # fmt: skip
"""Modules of the standard library that a function may name: what they give hangs on nothing but what they are given. The list is the rule;
a module that is not in it is refused. Packages of others are taken as they are, for what is in them nobody here can tell."""

REFUSED_BUILTINS: Final = frozenset(
    {
        "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "globals", "hash", "id", "input", "locals",
        "open", "print", "quit", "setattr", "vars",
    }
)  # fmt: skip
"""Built-in functions that reach beyond a function, or give something else in another process."""

REFUSED_PARTS: Final = frozenset({"random"})
"""Parts of packages of others that are chance, such as `numpy.random`."""

_CLOCKS: Final = frozenset({"now", "today"})
"""What numpy's `datetime64` takes for the time that the system has."""

_GLOBALS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CHANGES: Final = frozenset({"STORE_ATTR", "DELETE_ATTR"})
_MUTABLE: Final = (list, dict, set, bytearray)


def require_compute_fn(function: object, node: str) -> None:
    """Refuse what is no compute function: it takes the view alone, can be imported by its name, and names nothing impure.

    Args:
        node: whose function it is, for the error.

    Raises:
        InvalidStrategy: it is no function, has another number of arguments, or no import path.
        ImpureFunction: it names a module, built-in or object out of which something else than its view may come.
    """
    if not isinstance(function, FunctionType):
        raise InvalidStrategy(
            f"compute_fn of the node {node!r} was of type {type(function).__name__}; a function at the top of a module is required.",
            "Write it with `def`; what it is to be told besides its view goes into params of the node.",
        )
    if "<" in function.__qualname__:
        raise InvalidStrategy(
            f"compute_fn of the node {node!r} was {function.__qualname__}; a worker imports a function by its name, which neither a lambda"
            " nor a function within a function has.",
            "Write it with `def` at the top of a module; what it would capture goes into params of the node.",
        )
    shape = inspect.signature(function).parameters.values()
    places = [one for one in shape if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(places) != 1 or len(shape) != 1:
        raise InvalidStrategy(
            f"compute_fn {function.__qualname__} of the node {node!r} takes ({', '.join(map(str, shape))}); a compute function takes the view alone.",
            "Give it one argument; what it is to be told besides goes into params of the node, and is `view.params` there.",
        )
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise InvalidStrategy(
            f"compute_fn {function.__qualname__} of the node {node!r} was a generator or coroutine; a function that returns its value is required.",
            "Return the value.",
        )
    for where, what, remedy in _breaches(function):
        raise ImpureFunction(
            f"compute_fn {function.__qualname__} of the node {node!r} names {what} in {where}; what it gives must follow from its view alone.",
            remedy,
        )


_USE_VIEW: Final = "Take time from view.bucket_ms and everything else from view, or leave it out."


def _breaches(function: FunctionType) -> Iterator[tuple[str, str, str]]:
    """Where, what, and what to do; of a function and of those of its package that it leads to, each once."""
    own = (function.__module__ or "").partition(".")[0]
    met = {id(function)}
    left = [function]
    for one in left:  # grows while it is read
        for where, value, name in _named(one):
            if (what := _impure(value, name, own)) is not None:
                yield where, what, _USE_VIEW
            elif isinstance(value, FunctionType) and id(value) not in met and _is_own(value, own):
                met.add(id(value))
                left.append(value)
            elif (changing := _changing(value)) is not None:
                yield (
                    where,
                    f"{name}, a {type(changing).__name__} that can be changed",
                    "Make it a tuple, a frozenset or a types.MappingProxyType, or params of the node.",
                )
        yield from _of_code(one.__code__, one.__qualname__)


def _changing(value: object) -> object | None:
    """What can be changed of a captured value: the value itself, or something in a tuple."""
    left = [value]
    for one in left:  # grows while it is read
        if isinstance(one, _MUTABLE):
            return one
        if isinstance(one, tuple):
            left.extend(one)
    return None


def _of_code(code: CodeType, where: str) -> Iterator[tuple[str, str, str]]:
    if "datetime64" in code.co_names and _CLOCKS.intersection(code.co_consts):
        yield where, "the clock, as datetime64 of now or today,", _USE_VIEW
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and str(step.argval).partition(".")[0] not in ALLOWED_MODULES:
            yield where, f"the module {step.argval}", _USE_VIEW
        elif step.opname in _CHANGES:
            yield where, f"{step.argval!r} of an object, to change it,", "Return what it computes."
        elif step.opname in _ATTRIBUTES and str(step.argval).startswith("_"):
            yield where, f"{step.argval!r}, which is private,", "Use what is documented."
        elif isinstance(step.argval, CodeType):
            yield from _of_code(step.argval, where)


def _named(function: FunctionType) -> Iterator[tuple[str, object, str]]:
    """Every value that a function takes from outside: globals with the attributes of modules and classes that follow, defaults, closures."""
    where = function.__qualname__
    yield from ((where, value, "a default") for value in function.__defaults__ or ())
    yield from ((where, value, name) for name, value in (function.__kwdefaults__ or {}).items())
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield where, cell.cell_contents, name
    yield from _globals_of(function.__code__, function.__globals__, where)


def _globals_of(code: CodeType, globals_: dict[str, Any], where: str) -> Iterator[tuple[str, object, str]]:
    found: object = None
    name = ""
    for step in dis.get_instructions(code):
        if step.opname in _GLOBALS:
            name = str(step.argval)
            found = globals_.get(name, getattr(builtins, name, None))
            yield where, found, name
        elif step.opname in _ATTRIBUTES and isinstance(found, ModuleType | type):
            name = f"{name}.{step.argval}"
            found = getattr(found, str(step.argval), None)
            yield where, found, name
        else:
            if isinstance(step.argval, CodeType):
                yield from _globals_of(step.argval, globals_, where)
            found = None


def _impure(value: object, name: str, own: str) -> str | None:
    if name.rpartition(".")[2] in REFUSED_PARTS and isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    if isinstance(value, ModuleType):
        top = value.__name__.partition(".")[0]
        is_bad = top in sys.stdlib_module_names and top not in ALLOWED_MODULES
        return f"the module {value.__name__}" if is_bad else None
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        built_in: object = getattr(builtins, value.__name__, None)
        if built_in is value:
            return f"the built-in {value.__name__}" if value.__name__ in REFUSED_BUILTINS else None
        owner: object = getattr(value, "__self__", None)
        of_owner = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
        module: str = getattr(value, "__module__", None) or of_owner
        top = module.partition(".")[0]
        is_bad = top != own and top in sys.stdlib_module_names and top not in ALLOWED_MODULES
        return f"{name} of the module {module}" if is_bad else None
    return None


def _is_own(value: Callable[..., Any], own: str) -> bool:
    """Whether its code counts and not its name, as `function_hash` has it: neither the standard library's nor of a package with a version."""
    top = (value.__module__ or "").partition(".")[0]
    if top in ("", "__main__", own):
        return True
    return top not in sys.stdlib_module_names and not getattr(sys.modules.get(top), "__version__", None)
