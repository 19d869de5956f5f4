"""Reads the PromQL that our rules use, and no more: what it does not know is an error, so a rule is never half understood.

The grammar and the binding of operators are those of Prometheus 3 (https://prometheus.io/docs/prometheus/latest/querying/).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never


class PromqlError(Exception):
    """An expression that this does not know, or that Prometheus would refuse."""


# ---- what an expression is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Select:
    """Attributes:
    range_s: 0 for an instant selector.
    """

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    range_s: float
    offset_s: float


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    op: str
    by: frozenset[str]
    arg: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """Attributes:
    on: None where all labels match.
    many_right: whether several on the right have one on the left, `group_right ()`.
    """

    op: str
    left: Expr
    right: Expr
    on: frozenset[str] | None
    many_right: bool


Expr: TypeAlias = Number | Select | Call | Aggregate | Binary


def selects(expr: Expr) -> Iterator[Select]:
    """Every selector in it."""
    match expr:
        case Number():
            return
        case Select():
            yield expr
        case Call():
            for one in expr.args:
                yield from selects(one)
        case Aggregate():
            yield from selects(expr.arg)
        case Binary():
            yield from selects(expr.left)
            yield from selects(expr.right)
        case _:
            assert_never(expr)


# ---- reading -----------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<duration>\d+[smhdw]\b)|(?P<number>\d+(?:\.\d+)?(?:e\d+)?\b)|(?P<word>[A-Za-z_:][A-Za-z0-9_:]*)"
    r'|"(?P<text>[^"\\]*)"|(?P<sign>=~|!~|==|!=|>=|<=|[-+*/<>=(){}\[\],]))'
)
_LEVELS: Final = (("or",), ("and", "unless"), ("==", ">", "<", ">=", "<="), ("+", "-"), ("*", "/"))
"""From the loosest to the tightest; all bind to the left."""
_AGGREGATES: Final = frozenset({"sum", "max", "group"})
_RANGED: Final = frozenset({"rate", "increase", "deriv", "changes", "last_over_time", "max_over_time"})
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(duration: str) -> float:
    """Of `90s`, `5m`, `3h`, `28d`."""
    if re.fullmatch(r"\d+[smhdw]", duration) is None:
        raise PromqlError(f"{duration!r} is no duration")
    return float(int(duration[:-1]) * _UNITS[duration[-1]])


def parse(text: str) -> Expr:
    """Raises:
    PromqlError: it is no expression, or has what this does not know.
    """
    parser = _Parser(text)
    found = parser.binary(0)
    parser.expect("end")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [*_tokens(text), ("end", "end")]
        self._at = 0

    def binary(self, level: int) -> Expr:
        if level == len(_LEVELS):
            return self._unit()
        left = self.binary(level + 1)
        while self._next()[1] in _LEVELS[level] and self._next()[0] != "text":
            op = self._take()[1]
            on, many_right = None, False
            if self._accept("on"):
                on = self._names()
                if self._accept("group_right"):
                    self.expect("(")
                    self.expect(")")
                    many_right = True
            left = Binary(op, left, self.binary(level + 1), on, many_right)
        return left

    def expect(self, what: str) -> None:
        if not self._accept(what):
            raise PromqlError(f"{what!r} instead of {self._next()[1]!r} in {self._text!r}")

    def _unit(self) -> Expr:
        kind, said = self._take()
        if kind == "number":
            return Number(float(said))
        if said == "(" and kind == "sign":
            inner = self.binary(0)
            self.expect(")")
            return inner
        if kind != "word":
            raise PromqlError(f"{said!r} begins nothing in {self._text!r}")
        if said in _AGGREGATES:
            self.expect("by")
            by = self._names()
            self.expect("(")
            arg = self.binary(0)
            self.expect(")")
            return Aggregate(said, by, arg)
        if self._next() == ("sign", "("):
            return self._call(said)
        return self._select(said)

    def _call(self, function: str) -> Expr:
        self.expect("(")
        args: list[Expr] = []
        while not self._accept(")"):
            if args:
                self.expect(",")
            args.append(self.binary(0))
        match function, *args:
            case ("time",) | ("histogram_quantile", Number(), Aggregate() | Call() | Binary()):
                return Call(function, tuple(args))
            case name, Select() as one if name in _RANGED and one.range_s:
                return Call(function, tuple(args))
        raise PromqlError(f"{function} of {len(args)} is not known, or not of these: {self._text!r}")

    def _select(self, name: str) -> Select:
        matchers: list[tuple[str, str, str]] = []
        if self._accept("{"):
            while not self._accept("}"):
                if matchers:
                    self.expect(",")
                label, op, value = self._take(), self._take(), self._take()
                if label[0] != "word" or op[1] not in {"=", "!=", "=~"} or value[0] != "text":
                    raise PromqlError(f"{label[1]}{op[1]}{value[1]} is no matcher in {self._text!r}")
                matchers.append((label[1], op[1], value[1]))
        range_s = offset_s = 0.0
        if self._accept("["):
            range_s = self._duration()
            self.expect("]")
        if self._accept("offset"):
            offset_s = self._duration()
        return Select(name, tuple(matchers), range_s, offset_s)

    def _names(self) -> frozenset[str]:
        self.expect("(")
        names: list[str] = []
        while not self._accept(")"):
            if names:
                self.expect(",")
            kind, said = self._take()
            if kind != "word":
                raise PromqlError(f"{said!r} is no label in {self._text!r}")
            names.append(said)
        return frozenset(names)

    def _duration(self) -> float:
        kind, said = self._take()
        if kind != "duration":
            raise PromqlError(f"{said!r} is no duration in {self._text!r}")
        return seconds(said)

    def _next(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def _take(self) -> tuple[str, str]:
        found = self._next()
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return found

    def _accept(self, said: str) -> bool:
        is_it = self._next()[1] == said and self._next()[0] != "text"
        if is_it:
            self._take()
        return is_it


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise PromqlError(f"{text[at:].strip()[:20]!r} is not known in {text!r}")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()
