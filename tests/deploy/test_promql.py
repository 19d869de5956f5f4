"""The evaluator of our rules says what Prometheus says, and refuses what it does not know."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.deploy.evaluating import Store, Vector, evaluate
from tests.deploy.firing import FILES, RULES_IN, fired, load
from tests.deploy.promql import PromqlError, parse

SAMPLES = {
    ("a", "x"): "1 1 2 4",
    ("b", "x"): "10 10 10 10",
    ("b", "y"): "0 3 1 2",
    ("old", "x"): "7 _ _ _",
    ("ended", "x"): "7 8 _ -",
}
"""By name and the label `l`, a sample a minute; `_` for none, `-` for a stale marker."""


def scraped() -> Store:
    store = Store()
    for (name, label), text in SAMPLES.items():
        for minute, said in enumerate(text.split()):
            if said != "_":
                value = None if said == "-" else float(said)
                store.put(name, frozenset({("l", label)}), minute * 60.0, value)
    return store


def at_the_end(text: str) -> dict[str, float] | float:
    """By the label `l`, at the fourth sample; `` for a series without it."""
    found: Vector | float = evaluate(parse(text), scraped(), 180.0)
    return found if isinstance(found, float) else {dict(one).get("l", ""): at for one, at in found.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("time() - a", {"x": 176.0}),
        ("a + a * 2", {"x": 12.0}),
        ("a - a - a", {"x": -4.0}),
        ("(a - a) / a", {"x": 0.0}),
        ("a or b", {"x": 4.0, "y": 2.0}),
        ("a > 9 or b and b == 10 or b", {"x": 10.0, "y": 2.0}),
        ("b unless a or a", {"y": 2.0, "x": 4.0}),
        ("b unless b offset 5m", {"x": 10.0, "y": 2.0}),
        ("b and on (l) a", {"x": 10.0}),
        ("b > 2", {"x": 10.0}),
        ("b >= 2 and b <= 2", {"y": 2.0}),
        ("b > a", {"x": 10.0}),
        ('b{l!="x"}', {"y": 2.0}),
        ('b{l=~"x|z"}', {"x": 10.0}),
        ('b{l=~"."} + 0', {"x": 10.0, "y": 2.0}),
        ('b{m=""}', {"x": 10.0, "y": 2.0}),
        ("a offset 1m", {"x": 2.0}),
        ("old", {"x": 7.0}),
        ("ended", {}),
        ("ended offset 1m", {"x": 8.0}),
        ("last_over_time(ended[3m])", {"x": 8.0}),
        ("max_over_time(b[3m])", {"x": 10.0, "y": 3.0}),
        ("changes(b[3m])", {"x": 0.0, "y": 2.0}),
        ("changes(b[4m])", {"x": 0.0, "y": 3.0}),
        ("increase(a[3m])", {"x": 4.0}),
        ("increase(b[4m])", {"x": 0.0, "y": 5.0}),
        ("increase(a[1m])", {}),
        ("deriv(a[2m]) * 60", {"x": 2.0}),
        ("sum by (m) (b)", {"": 12.0}),
        ("max by (l) (b)", {"x": 10.0, "y": 2.0}),
        ("group by (l) (b)", {"x": 1.0, "y": 1.0}),
        ("sum by (m) (a) * on (m) group_right () b", {"x": 40.0, "y": 8.0}),
    ],
)
def test_what_an_expression_is(text: str, value: dict[str, float]) -> None:
    assert at_the_end(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "a >",
        "(a",
        "a[5m]",
        "sum(a)",
        "sum without (l) (a)",
        "min by (l) (a)",
        "rate(a)",
        "rate(a[5])",
        "irate(a[5m])",
        "absent(a)",
        "rate(sum by (l) (a)[5m:])",
        "-a",
        "a ^ 2",
        "a % 2",
        "a != 1",
        "a == bool 1",
        "1 > a",
        "a and 1",
        'a{l!~"x"}',
        "a{l='x'}",
        'a{l="\\n"}',
        '{l="x"}',
        "a offset -5m",
        "a @ 1",
        "a offset 1h30m",
        "a * ignoring (l) b",
        "a * on (m) b",
        "a * on (l) group_left () b",
        "sum by (m) (a) > on (m) group_right () b",
        "last_over_time(a[5m]) and a[5m]",
    ],
)
def test_what_is_not_known_is_an_error(text: str) -> None:
    with pytest.raises(PromqlError):
        at_the_end(text)


def test_a_quantile_lies_within_its_bucket_and_is_the_last_bound_beyond_it() -> None:
    store = Store()
    for bound, count in (("1", 10.0), ("2", 20.0), ("+Inf", 20.0)):
        store.put("h", frozenset({("le", bound)}), 0.0, count)
    beyond = Store()
    for bound, count in (("1", 10.0), ("2", 10.0), ("+Inf", 20.0)):
        beyond.put("h", frozenset({("le", bound)}), 0.0, count)
    assert evaluate(parse("histogram_quantile(0.75, max by (le) (h))"), store, 0.0) == {frozenset(): 1.5}
    assert evaluate(parse("histogram_quantile(0.75, max by (le) (h))"), beyond, 0.0) == {frozenset(): 2.0}


@pytest.mark.parametrize("samples", ["1y3", "x3", "1x", "NaN", "1+x3"])
def test_samples_that_are_none_are_refused(samples: str) -> None:
    with pytest.raises(PromqlError):
        fired(load(), "QmtlLag", {"qmtl_input_lag_offsets": samples}, "1m")


def test_promtool_takes_the_rules_where_it_is_installed() -> None:
    if found := shutil.which("promtool"):
        ran = subprocess.run(
            [found, "check", "rules", *(str(RULES_IN / file) for file in FILES)],
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
