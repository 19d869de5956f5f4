"""The file that says which runs there are to be: TOML, every key known and every value checked before any process starts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qmtl.foundation.common.errors import InvalidRuns, LogShared, NoGateway, UsageError
from qmtl.interfaces.execution.policy import Restart, Terms, least_ms
from qmtl.interfaces.running.address import log_address
from qmtl.services.dagmanager.faults import kind_of, spelled

MAX_BYTES: Final = 262_144
MAX_RUNS: Final = 500
MAX_TEXT: Final = 1_000
MAX_LIST: Final = 200
LONGEST_S: Final = 604_800.0
LONGEST_WAIT_S: Final = 3_600.0

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""The name of a run: it names a file, a label of metrics and a line of output."""

_NAME_RULE: Final = (
    "1 to 64 letters, digits, `_` and `-` are required, of which the first is a letter or digit"
)
_TEXT: Final = f"a text of 1 to {MAX_TEXT} characters without control characters is required"
_SECONDS: Final = f"a number of seconds from 0.1 to {LONGEST_S:g} is required"
_LIST: Final = f"a list of at most {MAX_LIST} such texts is required: each 1 to {MAX_TEXT} characters without control characters"

_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
_Texts = Annotated[list[_Text], Field(max_length=MAX_LIST)]
_Seconds = Annotated[float, Field(ge=0.1, le=LONGEST_S)]


class _Said(BaseModel):
    """What `[defaults]` or a run says; nothing is None."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    strategy: _Text | None = None
    world: _Text | None = None
    log: _Text | None = None
    interval: Annotated[int, Field(ge=1, le=86_400)] | _Text | None = None
    domain: _Text | None = None
    as_of: _Text | None = None
    partition: _Text | None = None
    fingerprint: _Text | None = None
    data: _Texts | None = None
    from_: Annotated[_Text | None, Field(alias="from")] = None
    to: _Text | None = None
    since: _Text | None = None
    code: _Texts | None = None
    wait_s: Annotated[float, Field(ge=0.1, le=LONGEST_WAIT_S)] | None = None
    json_: Annotated[bool | None, Field(alias="json")] = None
    restart: _Text | None = None
    backoff_s: _Seconds | None = None
    backoff_max_s: _Seconds | None = None
    max_restarts: Annotated[int, Field(ge=1, le=1_000)] | None = None
    window_s: _Seconds | None = None
    grace_s: _Seconds | None = None


_RULES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("backoff_s", "backoff_max_s", "window_s", "grace_s"), _SECONDS),
    **dict.fromkeys(("data", "code"), _LIST),
    "wait_s": f"a number of seconds from 0.1 to {LONGEST_WAIT_S:g} is required",
    "interval": "a length of time is required: seconds as a whole number from 1 to 86400, or a text such as 15m",
    "max_restarts": "a whole number from 1 to 1000 is required",
    "json": "true or false is required",
}

_OPTIONS: Final = (
    ("world", "--world"),
    ("interval", "--interval"),
    ("domain", "--domain"),
    ("as_of", "--as-of"),
    ("partition", "--partition"),
    ("fingerprint", "--fingerprint"),
    ("data", "--data"),
    ("from_", "--from"),
    ("to", "--to"),
    ("since", "--since"),
    ("code", "--code"),
    ("wait_s", "--wait"),
)
"""What is handed on to `qmtl strategy run`, and as which option."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run.

    Attributes:
        words: the command line behind `qmtl`.
        log: its address, as `--log` takes it.
        directory: from which its process runs: the one of the file.
        holds: the directory of the embedded log, which it has for itself; None on Kafka.
    """

    name: str
    words: tuple[str, ...]
    strategy: str
    world: str
    log: str
    directory: Path
    holds: Path | None
    terms: Terms

    def is_same_process(self, other: RunSpec) -> bool:
        """Whether a process of this one is one of the other; how it is kept going may differ."""
        return self.words == other.words and self.directory == other.directory


@dataclass(frozen=True, slots=True)
class Changes:
    """From one file to the next, by name, in the order of the files.

    Attributes:
        started: runs that were not there.
        restarted: runs that need another process.
        stopped: runs that are not there any more.
        kept: runs whose process stays.
    """

    started: tuple[str, ...]
    restarted: tuple[str, ...]
    stopped: tuple[str, ...]
    kept: tuple[str, ...]


def changes(old: Sequence[RunSpec], new: Sequence[RunSpec]) -> Changes:
    """What is to be done."""
    before = {one.name: one for one in old}
    after = {one.name: one for one in new}
    both = [one.name for one in new if one.name in before]
    restarted = tuple(one for one in both if not before[one].is_same_process(after[one]))
    return Changes(
        tuple(one.name for one in new if one.name not in before),
        restarted,
        tuple(one.name for one in old if one.name not in after),
        tuple(one for one in both if one not in restarted),
    )


def read_runs(file: Path) -> tuple[RunSpec, ...]:
    """The runs of a file, in its order.

    Raises:
        InvalidRuns: it can't be read, is no TOML or too large, has an unknown key, a value that breaks its rule, or no run.
        LogShared: two runs on one embedded log.
    """
    try:
        with file.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRuns(f"{file} can't be read: {error.strerror}.", "Name a file of runs.") from None
    if len(data) > MAX_BYTES:
        raise InvalidRuns(
            f"{file} has more than {MAX_BYTES} bytes.", "Keep the runs in several files, each with a manager."
        )
    try:
        loaded = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else _first_line(error)
        raise InvalidRuns(f"{file} is no TOML: {why}.", "Mend it there.") from None
    return _Reader(file).read(loaded)


class _Reader:
    """Reads one file; each error names it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._directory = file.absolute().parent

    def read(self, loaded: Mapping[str, Any]) -> tuple[RunSpec, ...]:
        for key in loaded:
            if key not in ("defaults", "runs"):
                raise self._refused(
                    f"key {spelled(key)} is unknown.", "There are `[defaults]` and `[runs.NAME]`."
                )
        defaults = self._said("defaults", loaded.get("defaults", {}))
        runs = loaded.get("runs")
        if not isinstance(runs, dict) or not 1 <= len(runs) <= MAX_RUNS:
            raise self._refused(
                f"runs was {kind_of(runs)}; 1 to {MAX_RUNS} tables `[runs.NAME]` are required.",
                "Write one for each run.",
            )
        specs = tuple(self._spec(name, said, defaults) for name, said in runs.items())
        self._apart(specs)
        return specs

    def _spec(self, name: str, found: Any, defaults: _Said) -> RunSpec:
        if NAME.fullmatch(name) is None:
            raise self._refused(f"a run's name was {kind_of(name)}; {_NAME_RULE}.", "Name it otherwise.")
        where = f"runs.{name}"
        own = self._said(where, found)
        said = defaults.model_copy(update={one: getattr(own, one) for one in own.model_fields_set})
        needed: dict[str, str] = {}
        for key in ("strategy", "world", "log"):
            value = getattr(said, key)
            if value is None:
                raise self._refused(
                    f"{where}.{key} was nothing; {_TEXT}.", "Say it there or in `[defaults]`."
                )
            needed[key] = value
        try:
            address = log_address(needed["log"])
        except (NoGateway, UsageError) as error:
            raise self._refused(
                f"{where}.log was {kind_of(needed['log'])}; the address of a log is required.", error.remedy
            ) from None
        scheme, _, rest = address.partition(":")
        holds = (self._directory / rest).resolve() if scheme == "embedded" else None
        words = _words(said, needed["strategy"], address)
        self._parses(where, words)
        terms = self._terms(where, said)
        return RunSpec(
            name, words, needed["strategy"], needed["world"], address, self._directory, holds, terms
        )

    def _said(self, where: str, found: Any) -> _Said:
        try:
            return _Said.model_validate(found)
        except ValidationError as error:
            problem = error.errors()[0]
            more = error.error_count() - 1
            beside = f" The file has {more} more such faults there." if more else ""
        if not problem["loc"]:
            raise self._refused(f"{where} was {kind_of(found)}; a table is required.", f"Write `[{where}]`.")
        key = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(one.alias or name for name, one in _Said.model_fields.items())
            raise self._refused(
                f"{where} has a key {spelled(key)}, which is unknown.{beside}", f"There are {known}."
            )
        value = found[key]
        raise self._refused(
            f"{where}.{key} was {kind_of(value)}; {_RULES.get(key, _TEXT)}.{beside}",
            "Leave it out for what holds where nobody says anything, or write it as required.",
        )

    def _terms(self, where: str, said: _Said) -> Terms:
        by_rule = {one.value: one for one in Restart}
        restart = Restart.ON_FAILURE if said.restart is None else by_rule.get(said.restart)
        if restart is None:
            raise self._refused(
                f"{where}.restart was {kind_of(said.restart)}; one of {', '.join(by_rule)} is required.",
                "Without it, on-failure holds.",
            )
        plain = Terms()
        terms = Terms(
            restart,
            _ms(said.backoff_s, plain.backoff_ms),
            _ms(said.backoff_max_s, plain.backoff_max_ms),
            plain.max_restarts if said.max_restarts is None else said.max_restarts,
            _ms(said.window_s, plain.window_ms),
            _ms(said.grace_s, plain.grace_ms),
        )
        if terms.backoff_ms > terms.backoff_max_ms:
            raise self._refused(
                f"{where}.backoff_s was the number {terms.backoff_ms / 1000:g}, and backoff_max_s is {terms.backoff_max_ms / 1000:g};"
                " no more than that is required.",
                "Raise backoff_max_s, or begin with less.",
            )
        least = least_ms(terms)
        if terms.window_ms <= least:
            raise self._refused(
                f"{where}.window_s was the number {terms.window_ms / 1000:g}; more than {least / 1000:g} is required, as so long {terms.max_restarts}"
                " restarts wait together: the run would never be given up.",
                "Raise window_s, or lower max_restarts or backoff_max_s.",
            )
        return terms

    def _parses(self, where: str, words: Sequence[str]) -> None:
        """Holds a command line to the very command that is to read it."""
        from qmtl.interfaces.cli.strategy import run

        try:
            run.make_context("run", list(words[2:]), resilient_parsing=False)
        except click.ClickException as error:
            raise self._refused(
                f"{where}: {_first_line(error.format_message())}",
                "`qmtl strategy run --help` tells what each option takes.",
            ) from None

    def _apart(self, specs: Sequence[RunSpec]) -> None:
        held: dict[Path, str] = {}
        for one in specs:
            if one.holds is None:
                continue
            if one.holds in held:
                raise LogShared(
                    f"{self._file}: runs.{one.name}.log was {kind_of(one.log)}, which runs.{held[one.holds]} has, too; an embedded log is held by one"
                    " process.",
                    "Give each run a log of its own, or run them on Kafka.",
                )
            held[one.holds] = one.name

    def _refused(self, what: str, remedy: str) -> InvalidRuns:
        return InvalidRuns(f"{self._file}: {what}", remedy)


def _words(said: _Said, strategy: str, address: str) -> tuple[str, ...]:
    """Each value stands in one word with its option, and the strategy behind `--`: no text of the file is taken for an option."""
    out = ["strategy", "run"]
    for field, option in _OPTIONS:
        value = getattr(said, field)
        values = value if isinstance(value, list) else [] if value is None else [value]
        out += [f"{option}={one}" for one in values]
    out.append(f"--log={address}")
    if said.json_:
        out.append("--json")
    return (*out, "--", strategy)


def _ms(seconds: float | None, otherwise: int) -> int:
    return otherwise if seconds is None else round(seconds * 1000)


def _first_line(problem: object) -> str:
    return " ".join(str(problem).split()).rstrip(".")[:300]
