"""A file of runs is whole and sound before any process starts: every fault is told with field, kind of value, rule and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidRuns, LogShared
from qmtl.interfaces.execution.plan import MAX_BYTES, MAX_RUNS, RunSpec, changes, read_runs
from qmtl.interfaces.execution.policy import Restart, Terms
from tests.interfaces.execution.scripts import spec

HEAD = '[defaults]\nworld = "w1"\nlog = "kafka://h:1"\n'
RUN = f'{HEAD}[runs.a]\nstrategy = "s.py"\n'


def read(tmp_path: Path, text: str | bytes) -> tuple[RunSpec, ...]:
    file = tmp_path / "runs.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_runs(file)


def test_every_key_is_handed_on_or_kept(tmp_path: Path) -> None:
    text = """
    [defaults]
    world = "w1"
    log = "kafka://h:1/space"
    restart = "never"
    max_restarts = 2

    [runs.plain]
    strategy = "-s.py"

    [runs.all]
    strategy = "p.m:C"
    world = "w2"
    log = "mine/log"
    interval = 60
    domain = "dryrun"
    as_of = "d1"
    partition = "p1"
    fingerprint = "--json"
    data = ["A=a.csv", "B=b.csv"]
    from = "2020-01-01"
    to = "1600000000000"
    since = "2020-01-01T00:00Z"
    code = ["one", "two"]
    wait_s = 5
    json = true
    restart = "always"
    backoff_s = 0.5
    backoff_max_s = 2
    max_restarts = 4
    window_s = 100.5
    grace_s = 3
    """
    plain, whole = read(tmp_path, text)
    assert plain.words == ("strategy", "run", "--world=w1", "--log=kafka://h:1/space", "--", "-s.py")
    assert plain.terms == Terms(Restart.NEVER, max_restarts=2)
    assert (plain.holds, plain.directory) == (None, tmp_path.resolve())
    assert " ".join(whole.words) == (
        "strategy run --world=w2 --interval=60 --domain=dryrun --as-of=d1 --partition=p1 --fingerprint=--json --data=A=a.csv --data=B=b.csv"
        " --from=2020-01-01 --to=1600000000000 --since=2020-01-01T00:00Z --code=one --code=two --wait=5.0 --log=embedded:mine/log --json -- p.m:C"
    )
    assert whole.terms == Terms(Restart.ALWAYS, 500, 2_000, 4, 100_500, 3_000)
    assert whole.holds == tmp_path.resolve() / "mine/log"


FAULTS: list[tuple[str | bytes, str]] = [
    ("x = ", "is no TOML: Invalid value"),
    (b"\xff", "is no TOML"),
    ("[" * 5_000, "is no TOML"),
    (b"#" * (MAX_BYTES + 1), f"has more than {MAX_BYTES} bytes"),
    ("", f"runs was nothing; 1 to {MAX_RUNS} tables"),
    ("runs = 3", "runs was the number 3; 1 to"),
    ("[runs]", "runs was an object of 0 fields"),
    ("\n".join(f"[runs.r{one}]" for one in range(MAX_RUNS + 1)), f"runs was an object of {MAX_RUNS + 1}"),
    ("[other]\n[runs.a]", "key 'other' is unknown"),
    (f'{RUN}[runs.a]\nstrategy = "t.py"', "is no TOML: Cannot declare"),
    (f"{HEAD}[runs]\na = 3", "runs.a was the number 3; a table is required"),
    (f'{HEAD}[runs."../up"]', "a run's name was the text '../up'; 1 to 64 letters"),
    (f"{HEAD}[runs.{'a' * 65}]", "a run's name was the text"),
    (f"{HEAD}[runs.a]", "runs.a.strategy was nothing; a text of 1 to"),
    ('[runs.a]\nstrategy = "s.py"\nlog = "kafka://h:1"', "runs.a.world was nothing"),
    ('[runs.a]\nstrategy = "s.py"\nworld = "w1"', "runs.a.log was nothing"),
    (f"{RUN}retsart = 3", "runs.a has a key 'retsart', which is unknown"),
    ("[defaults]\nname = 3", "defaults has a key 'name', which is unknown"),
    ("defaults = 3", "defaults was the number 3; a table is required"),
    (f"{RUN}from_ = 3", "runs.a has a key 'from_', which is unknown"),
    (f"{RUN}world = 3", "runs.a.world was the number 3; a text of 1 to"),
    (f'{RUN}domain = ""', "runs.a.domain was the text ''; a text of 1 to"),
    (f'{RUN}domain = "a\\u0000b"', "runs.a.domain was the text 'a\\x00b'; a text of"),
    (f'{RUN}domain = "a\\u009bb"', "runs.a.domain was the text 'a\\x9bb'; a text of"),
    (f"{RUN}data = 'A=a.csv'", "runs.a.data was the text 'A=a.csv'; a list of at most"),
    (f"{RUN}data = [3]", "runs.a.data was a list of 1; a list of at most"),
    (f"{RUN}json = 1", "runs.a.json was the number 1; true or false is required"),
    (f"{RUN}interval = true", "runs.a.interval was the truth value true; a length of time"),
    (f"{RUN}interval = 0", "runs.a.interval was the number 0; a length of time"),
    (f'{RUN}interval = "1y"', "runs.a: Invalid value for '--interval': '1y' is no whole number"),
    (f'{RUN}from = "soon"', "runs.a: Invalid value for '--from'"),
    (f"{RUN}wait_s = 3601", "runs.a.wait_s was the number 3601; a number of seconds from 0.1 to 3600"),
    (f"{RUN}grace_s = nan", "runs.a.grace_s was the number nan; a number of seconds"),
    (f"{RUN}grace_s = 0.05", "runs.a.grace_s was the number 0.05; a number of seconds"),
    (f"{RUN}max_restarts = 0", "runs.a.max_restarts was the number 0; a whole number from 1 to 1000"),
    (f"{RUN}max_restarts = 2.0", "runs.a.max_restarts was the number 2.0; a whole number"),
    (
        f'{RUN}restart = "sometimes"',
        "runs.a.restart was the text 'sometimes'; one of always, on-failure, never",
    ),
    (
        f"{RUN}backoff_s = 61",
        "runs.a.backoff_s was the number 61, and backoff_max_s is 60; no more than that",
    ),
    (f"{RUN}window_s = 31", "runs.a.window_s was the number 31; more than 31 is required"),
    (f'{RUN}log = "http://h"', "runs.a.log was the text 'http://h'; the address of a log"),
    (f'{RUN}log = "ftp://h"', "runs.a.log was the text 'ftp://h'; the address of a log"),
]


@pytest.mark.parametrize("text, says", FAULTS, ids=range(len(FAULTS)))
def test_a_fault_is_told(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidRuns) as refused:
        read(tmp_path, text)
    assert refused.value.what.startswith(f"{tmp_path / 'runs.toml'}")
    assert says in refused.value.what
    assert refused.value.remedy
    assert refused.value.code == "QMTL-870"
    assert len(str(refused.value)) < 1_500


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRuns, match="can't be read: No such file"):
        read_runs(tmp_path / "nothing.toml")
    with pytest.raises(InvalidRuns, match="can't be read: Is a directory"):
        read_runs(tmp_path)


@pytest.mark.parametrize("second", ["embedded:x/log", "x/log", "./y/../x/log", "link/log"])
def test_two_runs_on_one_embedded_log_are_refused_however_it_is_written(tmp_path: Path, second: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("x")
    text = f'{RUN}log = "embedded:x/log"\n[runs.b]\nstrategy = "s.py"\n'
    with pytest.raises(LogShared, match=r"runs\.b\.log was .*, which runs\.a has, too") as refused:
        read(tmp_path, f'{text}log = "{second}"')
    assert refused.value.code == "QMTL-871"
    assert len(read(tmp_path, f'{text}log = "z/log"')) == 2


def test_a_file_that_is_a_link_to_changing_places_stays_the_same_runs(tmp_path: Path) -> None:
    """As a cluster mounts configuration: the processes stay when the same file comes from elsewhere."""
    found = []
    for version in ("first", "second"):
        (tmp_path / version).mkdir()
        read(tmp_path / version, RUN)
        (tmp_path / "now.toml").unlink(missing_ok=True)
        (tmp_path / "now.toml").symlink_to(tmp_path / version / "runs.toml")
        found.append(read_runs(tmp_path / "now.toml"))
    assert changes(*found).kept == ("a",)
    assert found[1][0].directory == tmp_path


def test_runs_on_one_kafka_may_be_many(tmp_path: Path) -> None:
    assert len(read(tmp_path, f'{RUN}[runs.b]\nstrategy = "s.py"')) == 2


files = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(0, 2), st.integers(1, 2)), max_size=6
)


@given(files, files)
def test_what_is_to_be_done_leads_from_one_file_to_the_next(
    old: dict[str, tuple[int, int]], new: dict[str, tuple[int, int]]
) -> None:
    """Each name is in one place, and a process is started anew exactly where its command line is another one."""

    def runs(said: dict[str, tuple[int, int]]) -> list[RunSpec]:
        return [spec(name, str(word), Terms(grace_ms=grace)) for name, (word, grace) in said.items()]

    found = changes(runs(old), runs(new))
    assert sorted(found.started + found.restarted + found.kept) == sorted(new)
    assert sorted(found.stopped + found.restarted + found.kept) == sorted(old)
    assert set(found.started) == new.keys() - old.keys()
    assert set(found.kept) == {one for one in old.keys() & new.keys() if old[one][0] == new[one][0]}
