"""Runs the rules of `deploy/prometheus` over samples as Prometheus does, and says when an alert fired."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.evaluating import NAME, Labels, Store, evaluate
from tests.deploy.promql import Expr, PromqlError, Select, parse, seconds, selects

FILES: Final = ("alerts.yml", "dagmanager.yml")
RULES_IN: Final = Path(__file__).resolve().parents[2] / "deploy/prometheus"
_KEYS: Final = frozenset({"alert", "record", "expr", "for", "labels", "annotations"})


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    is_alert: bool
    expr: Expr
    for_s: float


def load() -> list[Rule]:
    """In the order in which they stand. A rule of a file is a function of what stands before it, or of its own past.

    Raises:
        PromqlError: a rule has what is not known here.
    """
    out: list[Rule] = []
    for file in FILES:
        for group in yaml.safe_load((RULES_IN / file).read_text(encoding="utf-8"))["groups"]:
            out.extend(_rule(one) for one in group["rules"])
    return out


def _rule(found: Mapping[str, Any]) -> Rule:
    if not found.keys() <= _KEYS:
        raise PromqlError(f"{sorted(found.keys() - _KEYS)} of a rule are not known")
    is_alert = "alert" in found
    name = str(found["alert" if is_alert else "record"])
    return Rule(name, is_alert, parse(found["expr"]), seconds(found["for"]) if "for" in found else 0.0)


def fired(rules: Sequence[Rule], alert: str, series: Mapping[str, str], every: str) -> dict[str, str]:
    """By the label `job`, the samples at which an alert fired, from the first on: `5..8` until the eighth, `5..` to the end.

    Args:
        series: by selector, where the job is `qmtl` if none is said, the samples as promtool writes them: `1x2` is 1 three times, `1+2x2`
            is 1 3 5, `_x2` is twice no sample, before which the series has ended.
        every: between two samples. The first one is taken at 0, and the rules are evaluated at each.
    """
    step_s = seconds(every)
    needed = _needed(rules, alert)
    told = [(_labelled(selector), list(_samples(text))) for selector, text in series.items()]
    store, pending = Store(), dict[Labels, float]()
    jobs: dict[str, list[int]] = {}
    count = max(len(samples) for _, samples in told)
    for number in range(count):
        now_s = number * step_s
        for (name, labels), samples in told:
            store.put(name, labels, now_s, samples[number] if number < len(samples) else None)
        for rule in needed:
            for labels in _step(rule, store, pending, now_s):
                jobs.setdefault(dict(labels).get("job", ""), []).append(number)
    return {job: _spans(numbers, count) for job, numbers in jobs.items()}


def _needed(rules: Sequence[Rule], alert: str) -> list[Rule]:
    """The alert, and what is recorded for it."""
    (mine,) = [one for one in rules if one.is_alert and one.name == alert]
    names, wanted = {one.name for one in selects(mine.expr)}, [mine]
    for rule in reversed(rules[: rules.index(mine)]):
        if not rule.is_alert and rule.name in names:
            wanted.insert(0, rule)
            names |= {one.name for one in selects(rule.expr)}
    return wanted


def _step(rule: Rule, store: Store, pending: dict[Labels, float], now_s: float) -> Iterator[Labels]:
    """Evaluate a rule; what it records goes into the store, and the series for which it fires are given."""
    value = evaluate(rule.expr, store, now_s)
    if isinstance(value, float):
        raise PromqlError(f"{rule.name} is a scalar")
    found = {frozenset(one for one in labels if one[0] != NAME): at for labels, at in value.items()}
    if len(found) < len(value):
        raise PromqlError(f"{rule.name} has two results of one series")
    if not rule.is_alert:
        for labels in store.labels(rule.name) - found.keys():
            store.put(rule.name, labels, now_s, None)
        for labels, number in found.items():
            store.put(rule.name, labels, now_s, number)
        return
    for labels in pending.keys() - found.keys():
        del pending[labels]
    for labels in found:
        if now_s - pending.setdefault(labels, now_s) >= rule.for_s:
            yield labels


def _spans(numbers: Sequence[int], count: int) -> str:
    at, spans = sorted(set(numbers)), list[list[int]]()
    for number in at:
        if spans and spans[-1][1] == number:
            spans[-1][1] = number + 1
        else:
            spans.append([number, number + 1])
    return " ".join(f"{first}.." if end == count else f"{first}..{end}" for first, end in spans)


def _labelled(selector: str) -> tuple[str, Labels]:
    found = parse(selector)
    if not isinstance(found, Select) or any(op != "=" for _, op, _ in found.matchers):
        raise PromqlError(f"{selector!r} is no series")
    return found.name, frozenset(
        ({"job": "qmtl"} | {label: value for label, _, value in found.matchers}).items()
    )


_SAMPLES: Final = re.compile(r"(?:(_)|(-?\d+(?:\.\d+)?(?:e\d+)?)(?:([+-])(\d+))?)(?:x(\d+))?")


def _samples(text: str) -> Iterator[float | None]:
    for word in text.split():
        found = _SAMPLES.fullmatch(word)
        if found is None:
            raise PromqlError(f"{word!r} are no samples")
        missing, first, sign, by, times = found.groups()
        if missing:
            yield from [None] * int(times or 1)
        else:
            grows = float(f"{sign or '+'}{by or 0}")
            yield from (float(first) + grows * number for number in range(int(times or 0) + 1))
