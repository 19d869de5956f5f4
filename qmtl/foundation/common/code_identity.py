"""The identity of a compute function: of what it does and of all that it captures, never of how its source is written.

What runs is hashed, not its source, which may be gone or edited since: the instructions of the function's code with the constants,
names and targets that they mean. Layout and comments of a source, its docstring, annotations, file and line numbers are no part.
With the code go the values that it takes from outside: defaults, closures, the globals that it reads, the functions among these in
turn. The interpreter's minor version is a part: the same source may compute something else under another (`sum` of floats rounds
otherwise since CPython 3.12), and instructions have no meaning across versions.
"""

from __future__ import annotations

import builtins
import dis
import functools
import re
import sys
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, Final

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import NoCanonicalForm
from qmtl.foundation.common.identity import NODE_ID_PREFIX

MAX_FUNCTIONS: Final = 1000
"""Functions that one function may lead to."""

MAX_LEVELS: Final = 12
"""Containers of a captured value that may lie inside each other."""

_CODE: Final = "qmtl function hash v1"
_INTERPRETER: Final = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
_PASSED_OVER: Final = frozenset({"EXTENDED_ARG", "CACHE"})
_JUMPS: Final = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE"})
_MOVES: Final = frozenset({"SWAP", "STORE_FAST", "POP_TOP", "NOP"})
_ENDS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"})
_DIRECTION: Final = re.compile("(?:FORWARD|BACKWARD)_")
_WRITES: Final = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_READS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_FLAGS: Final = 0x04 | 0x08 | 0x20 | 0x80 | 0x200
"""Of `inspect.CO_…`: VARARGS, VARKEYWORDS, GENERATOR, COROUTINE, ASYNC_GENERATOR."""


def function_hash(function: Callable[..., Any]) -> str:
    """The code hash of a function that an author wrote: `blake3:` and 64 hex digits, for the `code_hash` of a node.

    It changes with every instruction, constant, default, captured value and function that it leads to. A number counts with its
    type, as 7 // 2 and 7 // 2.0 differ; a mapping counts with its order, which code can see.

    Raises:
        NoCanonicalForm: something that it captures or reads can't be told: NaN and infinity, an object with a state of its own, a
            module without a version, a name that stands for nothing, a global that it writes. The message names where.
    """
    return NODE_ID_PREFIX + blake3_hex(canonical_bytes([_CODE, _INTERPRETER, *_Reading(function).contents()]))


class _Reading:
    """Functions are numbered as they are met, so that two that call each other have an end, and told one after the other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._numbers: dict[int, int] = {}
        self._met: list[FunctionType] = []
        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        where = getattr(inner, "__name__", type(inner).__name__)
        if not isinstance(inner, FunctionType):
            raise _refused(
                where, f"of type {type(inner).__name__}", "Publish a function that is written in Python."
            )
        self._own = (inner.__module__ or "").partition(".")[0]
        self._number(inner, where)
        self._first = self._form(function, where, 0)

    def contents(self) -> Iterator[object]:
        yield self._first
        for function in self._met:  # grows while it is read
            yield self._function(function)

    def _function(self, function: FunctionType) -> list[object]:
        where = function.__name__
        code = function.__code__
        closure = zip(code.co_freevars, function.__closure__ or (), strict=True)
        keywords = function.__kwdefaults__ or {}
        return [
            _code_digest(code, where),
            [self._form(value, f"{where}: a default", 1) for value in function.__defaults__ or ()],
            [[name, self._form(keywords[name], f"{where}: {name}", 1)] for name in sorted(keywords)],
            [
                [name, self._form(_content(cell, where, name), f"{where}: {name}", 1)]
                for name, cell in closure
            ],
            [
                [name, self._global(function, name, f"{where}: {name}", local)]
                for name, local in sorted(_reads(code).items())
            ],
        ]

    def _global(self, function: FunctionType, name: str, where: str, local: bool) -> object:
        if name in function.__globals__:
            return self._form(function.__globals__[name], where, 1)
        if hasattr(builtins, name):
            return ["builtin", name]
        if local:
            return ["local", name]
        raise _refused(where, "a name that stands for nothing", "Define it before the function is published.")

    def _form(self, value: object, where: str, level: int) -> object:
        """A value with its type, in lists and texts."""
        if level > MAX_LEVELS:
            raise _refused(where, f"a value of more than {MAX_LEVELS} levels", "Flatten it.")
        constant = _constant(value, where)
        if constant is not None:
            return constant
        kind = type(value)
        if kind in (tuple, list):
            return [kind.__name__, *(self._form(item, where, level + 1) for item in value)]  # type: ignore[attr-defined]
        if kind in (set, frozenset):
            forms = [self._form(item, where, level + 1) for item in value]  # type: ignore[attr-defined]
            return [kind.__name__, *sorted(forms, key=canonical_bytes)]
        if isinstance(value, dict | MappingProxyType) and kind in (dict, OrderedDict, MappingProxyType):
            pairs = [
                [self._form(key, where, level + 1), self._form(item, where, level + 1)]
                for key, item in value.items()
            ]
            return [kind.__name__, *pairs]
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, dict(sorted(value.keywords.items())))
            return ["partial", *(self._form(part, where, level + 1) for part in parts)]
        known = None if id(value) in self._numbers else self._known(value)
        if known is not None:
            return known
        if isinstance(value, FunctionType):
            return ["function", self._number(value, where)]
        raise _refused(
            where,
            f"of type {kind.__name__}",
            "Capture plain values and functions, or take it as a parameter.",
        )

    def _number(self, function: FunctionType, where: str) -> int:
        number = self._numbers.setdefault(id(function), len(self._numbers))
        if number == len(self._met):
            if number >= MAX_FUNCTIONS:
                raise _refused(where, f"more than {MAX_FUNCTIONS} functions away", "Lead to fewer functions.")
            self._met.append(function)
        return number

    def _known(self, value: object) -> list[object] | None:
        """What is told by its name: the standard library, which the interpreter's version fixes, and packages of others with a
        version. The author's own package is told by its code: it is edited between two versions."""
        match value:
            case ModuleType():
                module, name = value.__name__, ""
            case type() | FunctionType() | BuiltinFunctionType():
                module, name = value.__module__ or _owner(value), value.__qualname__
            case _:
                return None
        top = module.partition(".")[0]
        if top in ("", "__main__", self._own) or "<" in name:
            return None  # `<locals>` and `<lambda>`: many have the name, each with captures of its own
        if top in sys.stdlib_module_names:
            return ["known", module, name]
        version = getattr(sys.modules.get(top), "__version__", None)
        return ["known", module, name, version] if isinstance(version, str) and version else None


def _owner(value: object) -> str:
    """The module of a function that C wrote without telling it; empty for a method of an object."""
    owner = getattr(value, "__self__", None)
    return owner.__name__ if isinstance(owner, ModuleType) else ""


def _constant(value: object, where: str) -> list[object] | None:
    """A constant with its type and exact value, `None` if it is none."""
    match value:
        case None | bool() | bytes():
            return [type(value).__name__, value] if type(value) in (type(None), bool, bytes) else None
        case str() if type(value) is str:
            return ["str", value.encode("utf-8", "surrogatepass")]
        case int() if type(value) is int:
            return ["int", hex(value)]
        case float() if type(value) is float:
            return ["float", _exact(value, where)]
        case complex() if type(value) is complex:
            return ["complex", _exact(value.real, where), _exact(value.imag, where)]
        case Decimal() if type(value) is Decimal:
            if not value.is_finite():
                raise _refused(where, f"the number {value}", "Only finite numbers have a canonical form.")
            return ["Decimal", str(value)]
        case _ if value is Ellipsis:
            return ["Ellipsis"]
        case _:
            return None


def _exact(number: float, where: str) -> str:
    if number != number or number in (float("inf"), float("-inf")):
        raise _refused(where, f"the number {number}", "Make it inside of the function.")
    return number.hex()


# ---- code -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction with its meaning, and where it leads: to positions in the code, -1 for nowhere."""

    meaning: bytes
    leads: tuple[int, int, int]


def _code_digest(code: CodeType, where: str) -> str:
    """A digest, so that code within code within code stays as flat as one."""
    shape = [
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _FLAGS,
        list(code.co_varnames),
        list(code.co_cellvars),
        list(code.co_freevars),
    ]
    return blake3_hex(canonical_bytes([shape, _told(*_steps(code, where))]))


def _steps(code: CodeType, where: str) -> tuple[list[_Step], int]:
    """The instructions, and which is the first."""
    whole = dis.Bytecode(code)
    found = [one for one in whole if one.opname not in _PASSED_OVER]
    offsets = [one.offset for one in found]
    handlers = whole.exception_entries  # type: ignore[attr-defined]

    def at(position: int) -> int:
        """Behind all jumps and pauses, which do nothing but lead on; -1 behind the end."""
        passed = set()
        while position < len(found) and position not in passed:
            passed.add(position)
            if found[position].opname in _JUMPS:
                position = bisect_left(offsets, found[position].argval)
            elif found[position].opname == "NOP":
                position += 1
            else:
                break
        return position if position < len(found) else -1

    def step(position: int, one: dis.Instruction) -> _Step:
        handler = next((entry for entry in handlers if entry.start <= one.offset < entry.end), None)
        jumps = _jumps(one)
        behind = position + 1
        if one.opname in _MOVES:
            while behind < len(found) and found[behind].opname in _MOVES:
                behind += 1
            meaning = _moved(found[position:behind])
        else:
            meaning = [_DIRECTION.sub("", one.opname), None if jumps else _argument(code, one, where)]
        return _Step(
            canonical_bytes(meaning),
            (
                -1 if one.opname in _ENDS else at(behind),
                at(bisect_left(offsets, one.argval)) if jumps else -1,
                -1 if handler is None else at(bisect_left(offsets, handler.target)),
            ),
        )

    return [step(position, one) for position, one in enumerate(found)], at(0)


def _jumps(one: dis.Instruction) -> bool:
    return one.opcode in dis.hasjrel or one.opcode in dis.hasjabs


def _moved(run: list[dis.Instruction]) -> list[object]:
    """What a run of moves does: which place of the stack, counted from the top, each variable is given, and what is left of it.

    In `a, b = b, a` a compiler stores without a swap where both stand on one line.
    """
    stack: list[int] = []
    seen = 0
    given: dict[str, int] = {}
    for one in run:
        while one.opname != "NOP" and len(stack) < (one.arg if one.opname == "SWAP" and one.arg else 1):
            stack.append(seen)
            seen += 1
        if one.opname == "SWAP" and one.arg:
            stack[0], stack[one.arg - 1] = stack[one.arg - 1], stack[0]
        elif one.opname == "STORE_FAST":
            given[one.argval] = stack.pop(0)
        elif one.opname == "POP_TOP":
            stack.pop(0)
    while stack and stack[-1] == seen - 1:
        seen = stack.pop()
    return ["moves", given, stack, seen]


def _told(steps: list[_Step], first: int) -> list[list[object]]:
    """The smallest automaton that takes the same steps, its states numbered as they are met.

    How a compiler lays code out (what it repeats, where it jumps to a jump) depends on the lines of the source; this does not.
    Source: E. F. Moore, Gedanken-experiments on sequential machines, 1956.
    """
    alike: dict[object, int] = {}
    classes = [alike.setdefault(one.meaning, len(alike)) for one in steps]
    while True:
        finer: dict[object, int] = {}
        found = [
            finer.setdefault(
                (classes[place], *(classes[to] if to >= 0 else -1 for to in one.leads)), len(finer)
            )
            for place, one in enumerate(steps)
        ]
        if len(finer) == len(alike):
            break
        classes, alike = found, finer
    numbers = {classes[first]: 0}
    met = [first]
    told = []
    for place in met:  # grows while it is read
        leads = []
        for to in steps[place].leads:
            if to >= 0 and classes[to] not in numbers:
                numbers[classes[to]] = len(met)
                met.append(to)
            leads.append(numbers[classes[to]] if to >= 0 else -1)
        told.append([steps[place].meaning, *leads])
    return told


def _argument(code: CodeType, step: dis.Instruction, where: str) -> object:
    """What an instruction's argument means. Its number would move with a docstring or with the length of a line."""
    if step.opname in _WRITES:
        raise _refused(
            where, f"a function that writes the global {step.argval!a}", "Return what it computes."
        )
    if step.opname == "IMPORT_NAME" and str(step.argval).partition(".")[0] not in sys.stdlib_module_names:
        raise _refused(
            where, f"a function that imports {step.argval!a}", "Import it at the top of its module."
        )
    if step.opcode in dis.hasconst and step.arg is not None:
        # not argval, which CPython 3.11 leaves unknown for the names of keyword arguments
        return _code_constant(code.co_consts[step.arg], where)
    if step.opcode in dis.hasname or step.opcode in dis.haslocal or step.opcode in dis.hasfree:
        return step.argrepr
    return step.arg


def _code_constant(value: object, where: str) -> object:
    if isinstance(value, CodeType):
        return ["code", _code_digest(value, where)]
    constant = _constant(value, where)
    if constant is not None:
        return constant
    if not isinstance(value, tuple | frozenset):
        raise _refused(where, f"with a constant of type {type(value).__name__}", "Use a plain constant.")
    items = [_code_constant(item, where) for item in value]
    return [
        type(value).__name__,
        *(sorted(items, key=canonical_bytes) if type(value) is frozenset else items),
    ]


def _reads(code: CodeType) -> dict[str, bool]:
    """The globals that code and the code within it may read, each with whether it may be a name of a class body instead."""
    found: dict[str, bool] = {}
    for step in dis.get_instructions(code):
        if step.opname in _READS:
            local = step.opname != "LOAD_GLOBAL"
            found[step.argval] = found.get(step.argval, True) and local
        elif step.opcode in dis.hasconst and isinstance(step.argval, CodeType):
            for name, local in _reads(step.argval).items():
                found[name] = found.get(name, True) and local
    return found


def _content(cell: Any, where: str, name: str) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        raise _refused(
            f"{where}: {name}", "a variable without a value", "Set it before the function is published."
        ) from None


def _refused(where: str, was: str, remedy: str) -> NoCanonicalForm:
    return NoCanonicalForm(
        f"the function {where} was {was}; what is no constant, function or module of a version has no canonical form.",
        remedy,
    )
