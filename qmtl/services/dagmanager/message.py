"""The DAG message as people publish it: strict, and all that is wrong with its form told at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from qmtl.foundation.common.errors import (
    DagTooLarge,
    InvalidDag,
    InvalidName,
    InvalidParameter,
    NodeIdMismatch,
    UnknownDagVersion,
)
from qmtl.foundation.common.names import MAX_NAME, MAX_TAG, NAME_PATTERN, NAME_RULE, is_name
from qmtl.runtime.sdk.functions import CODE_PATTERN, CODE_RULE, MAX_CODE
from qmtl.services.dagmanager.faults import MAX_REASONS, Faults, kind_of, shortened, spelled
from qmtl.services.dagmanager.raw import FORM, Doubled, Odd, Raw, read_raw

MAX_NODES: Final = 10_000
MAX_INTERVAL_S: Final = 86_400
MAX_PERIOD: Final = 10_000
MAX_INPUTS: Final = 1_000
MAX_TAGS: Final = 100
MAX_VERSION: Final = 50
MAX_ARTIFACTS: Final = 1_000
MAX_PATH: Final = 1_024
MAX_SIZE: Final = (1 << 63) - 1
SCHEMA_VERSION: Final = "v1"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_INTERVAL: Final = 12
_DIGEST: Final = r"^blake3:[0-9a-f]{64}([0-9a-f]{64})?$"
_PLAIN_DIGEST: Final = r"^blake3:[0-9a-f]{64}$"
_COMPAT: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"


def _seconds(value: object) -> object:
    """`60`, `"60s"`, `"1m"`, `"1h"` and `"1d"` are seconds."""
    if (
        isinstance(value, str)
        and len(value) <= _LONGEST_INTERVAL
        and value.isascii()
        and value[:-1].isdecimal()
        and value[-1:] in _UNITS
    ):
        return int(value[:-1]) * _UNITS[value[-1]]
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME)]
Tag = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_TAG)]
Interval = Annotated[int, BeforeValidator(_seconds), Field(ge=1, le=MAX_INTERVAL_S)]
Digest = Annotated[str, Field(pattern=_DIGEST)]
PlainDigest = Annotated[str, Field(pattern=_PLAIN_DIGEST)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DagNode(_Strict):
    """One node as it was published; `inputs` are names of nodes of the same message, by port."""

    name: Name
    node_type: Annotated[str, Field(min_length=1, max_length=100)]
    interval: Interval
    period: Annotated[int, Field(ge=1, le=MAX_PERIOD)] = 1
    params: dict[str, Any] = {}
    inputs: Annotated[list[Name], Field(max_length=MAX_INPUTS)] = []
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)] = []
    code_hash: Digest | None = None
    schema_compat_id: Annotated[str, Field(pattern=_COMPAT, max_length=MAX_NAME)] | None = None
    node_id: Digest | None = None
    metadata: dict[str, Any] = {}
    schema_hash: PlainDigest | None = None
    artifacts: Annotated[list[Annotated[str, Field(max_length=MAX_NAME)]], Field(max_length=MAX_INPUTS)] = []
    code: Annotated[str, Field(pattern=CODE_PATTERN, max_length=MAX_CODE)] | None = None


class DagArtifact(_Strict):
    """A file that nodes compute with; they call it by its name or by its checksum."""

    name: Name | None = None
    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
    checksum: PlainDigest
    size: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    framework: Name | None = None
    dtype: Name | None = None


Artifacts = Annotated[list[DagArtifact], Field(max_length=MAX_ARTIFACTS)]


class DagMeta(_Strict):
    """What people say of a strategy; `strategy_version` is another name of `version`, and gone once a message is read."""

    version: Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_VERSION)] = "v1"
    description: str = ""
    release_tag: Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_VERSION)] | None = None
    strategy_version: Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_VERSION)] | None = None


class DagMessage(_Strict):
    """A strategy as it was published."""

    schema_version: Literal["v1"]
    strategy_id: Name
    meta: DagMeta = DagMeta()
    nodes: Annotated[list[DagNode], Field(min_length=1, max_length=MAX_NODES)]
    signals: Annotated[list[Name], Field(min_length=1, max_length=MAX_NODES)]
    artifacts: Artifacts = []


class _Head(_Strict):
    """A message without its nodes and its version."""

    strategy_id: Name
    meta: DagMeta = DagMeta()
    signals: Annotated[list[Name], Field(min_length=1, max_length=MAX_NODES)]
    artifacts: Artifacts = []


@dataclass(frozen=True, slots=True)
class NodeRead:
    """As much of a node as could be read.

    Attributes:
        path: of the node in its message.
        node: a field that is not sound has a value there that nobody has said.
        name: as it was said, even if it may be no name; `None` if it is no text.
        inputs: as they were said, by port, `None` for one that is no text; `None` if they are no list, or may have been meant otherwise.
        unsound: the fields that were told of, and those that a field which nobody knows may have been meant to be.
        told: the paths of what was told of.
    """

    path: str
    node: DagNode
    name: str | None
    inputs: Sequence[str | None] | None
    unsound: Collection[str] = ()
    told: Collection[str] = ()

    @property
    def shown(self) -> str:
        """The name, for an error."""
        return spelled(self.name) if self.name is not None else "the node"


@dataclass(frozen=True, slots=True)
class ArtifactRead:
    """As much of an artifact as could be read, in the words of `NodeRead`.

    Attributes:
        names: what nodes may call it, its name and its checksum as they were said.
    """

    path: str
    artifact: DagArtifact
    names: Sequence[str]
    unsound: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """As much of a message as could be read.

    Attributes:
        strategy_id: empty if it is none.
        nodes: in the order of the message, those among them that are objects.
        signals: the names in it that are names, each with its place.
        artifacts: `None` if they are no list.
        names: of all nodes, the unsound ones too, so that a reader of one is not called dangling; `None` if there is no list of nodes.
    """

    strategy_id: str = ""
    meta: DagMeta = field(default_factory=DagMeta)
    nodes: Sequence[NodeRead] = ()
    signals: Sequence[tuple[int, str]] = ()
    names: Collection[str] | None = None
    artifacts: Sequence[ArtifactRead] | None = ()


def parse_message(data: bytes) -> DagMessage:
    """Read a DAG message, without asking whether its graph is one.

    Raises:
        InvalidDag: with every reason; as one of its kinds where all reasons are of it. `DagTooLarge`: over 1 MiB, deeper than 32
            levels, too many nodes. `InvalidParameter`: a number without a canonical form. `InvalidName`: a name that may be none.
            `UnknownDagVersion`: another `schema_version`. `NodeIdMismatch`: an id or hash without its form.
    """
    faults = Faults()
    draft = read_draft(data, faults)
    faults.refuse_any()
    return DagMessage.model_construct(
        schema_version="v1",
        strategy_id=draft.strategy_id,
        meta=draft.meta,
        nodes=[one.node for one in draft.nodes],
        signals=[name for _, name in draft.signals],
        artifacts=[one.artifact for one in draft.artifacts or ()],
    )


def read_draft(data: bytes, faults: Faults) -> Draft:
    """As much of a message as can be read; all that is wrong with its form goes to `faults`."""
    raw = read_raw(data, faults)
    if raw is None:
        return Draft()
    top = _Part(faults, raw.suspicious)
    head = _read_head(raw.value, top)
    nodes, names = _read_nodes(raw.value, raw.suspicious, top)
    return replace(head, nodes=nodes, names=names)


def read_head(raw: Raw, faults: Faults) -> Draft:
    """As `read_draft`, for all of a message but its nodes."""
    return _read_head(raw.value, _Part(faults, raw.suspicious))


def read_node(one: object, suspicious: bool, path: str, faults: Faults) -> DagNode | None:
    """A node of a message, if it is sound; all that is wrong with its form goes to `faults`."""
    return _sound_node(one, path, _Part(faults, suspicious))


def sound(path: str, node: DagNode) -> NodeRead:
    """A node of which all could be read."""
    return NodeRead(path, node, node.name, node.inputs)


def placed_artifacts(artifacts: Iterable[DagArtifact]) -> list[ArtifactRead]:
    """Artifacts of which all could be read."""
    return [
        ArtifactRead(
            f"artifacts[{place}]", one, [one.checksum] if one.name is None else [one.checksum, one.name]
        )
        for place, one in enumerate(artifacts)
    ]


def _sound_node(one: object, path: str, part: _Part) -> DagNode | None:
    part.clean(one, path)
    if not isinstance(one, dict):
        part.add(InvalidDag, path, one, "an object is required", FORM)
        return None
    known = part.strangers(one, DagNode.model_fields, path)
    node = part.read(DagNode, known, path)
    return None if part.told else node


_UNSAID: Final[Mapping[str, Any]] = {"name": "_", "node_type": "?", "interval": 1}
"""What a node has that it can't be without and that was not soundly said: no type has that name."""

_UNSAID_FILE: Final[Mapping[str, Any]] = {"path": "_", "checksum": "blake3:" + "0" * 64, "size": 0}
"""The same of an artifact."""


def _remains(found: Mapping[str, Any], path: str, part: _Part) -> NodeRead:
    """What there is of a node that is not sound: each of its fields is judged for itself.

    A field that nobody knows may be one that the node leaves out, misspelt: what it says there nobody knows either.
    """
    fields = DagNode.model_fields.keys()
    unsound = part.unsound(fields, path) | _meant(found)
    said = {key: found[key] for key in found if key in fields and key not in unsound}
    files = _texts(found.get("artifacts"), f"{path}.artifacts", part)
    if files is not None:
        said["artifacts"] = [text if text is not None and len(text) <= MAX_NAME else "" for text in files]
    name = found.get("name")
    is_twice = isinstance(found, Doubled) and "name" in found.keys_twice
    return NodeRead(
        path,
        DagNode.model_validate({**_UNSAID, **said}),
        name if isinstance(name, str) and not is_twice else None,
        _texts(found.get("inputs", None if "inputs" in unsound else []), f"{path}.inputs", part),
        unsound,
        part.told,
    )


_SURELY_OTHERS: Final = 40
"""Characters of a key that is no field's name misspelt."""


def _meant(found: Mapping[str, Any]) -> set[str]:
    """The fields that a node leaves out and may have under a key that looks like theirs; all of them where there are too many keys to
    look at."""
    fields = DagNode.model_fields
    strangers = [key for key in found if key not in fields]
    absent = [name for name in fields if name not in found]
    if len(strangers) > MAX_REASONS:
        return set(absent)
    near = (
        get_close_matches(key.lower(), absent, len(absent)) for key in strangers if len(key) <= _SURELY_OTHERS
    )
    return {name for names in near for name in names}


def _texts(found: object, path: str, part: _Part) -> list[str | None] | None:
    if not isinstance(found, list) or path in part.told:
        return None
    return [one if isinstance(one, str) else None for one in found]


def _read_head(found: Mapping[str, Any], top: _Part) -> Draft:
    top.clean({name: value for name, value in found.items() if name != "nodes"}, "")
    top.doubled(found, "")
    top.strangers(found, (*_Head.model_fields, "schema_version", "nodes"), "")
    _read_version(found, top)
    head = top.read(_Head, {name: value for name, value in found.items() if name in _Head.model_fields}, "")
    if head is not None and not top.told:
        return Draft(
            head.strategy_id,
            _named(head.meta, top),
            signals=_signals(head.signals),
            artifacts=placed_artifacts(head.artifacts),
        )
    strategy_id = found.get("strategy_id")
    return Draft(
        strategy_id if isinstance(strategy_id, str) and "strategy_id" not in top.told else "",
        _read_meta(found.get("meta"), top),
        signals=_signals(found.get("signals")),
        artifacts=_read_artifacts(found.get("artifacts", []), top),
    )


def _read_meta(raw: object, top: _Part) -> DagMeta:
    if not isinstance(raw, dict) or "meta" in top.told:
        return DagMeta()
    known = DagMeta.model_fields.keys() & raw.keys() - top.unsound(DagMeta.model_fields, "meta")
    return _named(DagMeta.model_validate({key: raw[key] for key in known}), top)


def _read_artifacts(raw: object, top: _Part) -> list[ArtifactRead] | None:
    if not isinstance(raw, list) or "artifacts" in top.told:
        return None
    unsound: dict[int, set[str]] = {}
    for told in top.told:
        if at := _OF_ARTIFACT.match(told):
            unsound.setdefault(int(at[1]), set()).add(at[2] or "")
    return [
        _read_artifact(one, f"artifacts[{place}]", unsound.get(place, ())) for place, one in enumerate(raw)
    ]


def _read_artifact(one: object, path: str, unsound: Collection[str]) -> ArtifactRead:
    found = one if isinstance(one, dict) else {}
    known = {key: found[key] for key in DagArtifact.model_fields.keys() & found.keys() - unsound}
    made = DagArtifact.model_validate({**_UNSAID_FILE, **known})
    names = [text for key in ("checksum", "name") if isinstance(text := found.get(key), str)]
    return ArtifactRead(path, made, names, {*unsound, *(_UNSAID_FILE.keys() - found.keys())})


def _named(meta: DagMeta, top: _Part) -> DagMeta:
    """The version under its one name, whichever it was said by."""
    other = meta.strategy_version
    if other is None:
        return meta
    if other != meta.version and "version" in meta.model_fields_set:
        top.add(
            InvalidDag,
            "meta.strategy_version",
            other,
            f"it is another name of meta.version, which says {spelled(meta.version)}",
            "Leave one of them out.",
        )
    return meta.model_copy(update={"version": other, "strategy_version": None})


def _read_version(found: Mapping[str, Any], top: _Part) -> None:
    if "schema_version" not in found:
        top.add(InvalidDag, "schema_version", None, f"it must be {SCHEMA_VERSION!r}", "Say it.")
    elif found["schema_version"] != SCHEMA_VERSION:
        top.add(
            UnknownDagVersion,
            "schema_version",
            found["schema_version"],
            f"{SCHEMA_VERSION!r} is the only one that is known",
            f"Publish in the form {SCHEMA_VERSION!r}, or run a version that knows the other.",
        )


def _read_nodes(
    found: Mapping[str, Any], suspicious: bool, top: _Part
) -> tuple[list[NodeRead], set[str] | None]:
    raw = found.get("nodes")
    nodes: list[NodeRead] = []
    names: set[str] = set()
    if not isinstance(raw, list) or not raw:
        top.clean(raw, "nodes")
        top.add(InvalidDag, "nodes", raw, "a list of at least one node is required", "Add a node.")
        return nodes, None
    if len(raw) > MAX_NODES:
        top.add(DagTooLarge, "nodes", raw, f"at most {MAX_NODES} are allowed", "Split the strategy.")
        return nodes, None
    for place, one in enumerate(raw):
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            names.add(one["name"])
        path, part = f"nodes[{place}]", _Part(top.faults, suspicious)
        node = _sound_node(one, path, part)
        if node is not None:
            nodes.append(sound(path, node))
        elif isinstance(one, dict):
            nodes.append(_remains(one, path, part))
    return nodes, names


def _signals(raw: object) -> list[tuple[int, str]]:
    if not isinstance(raw, list) or len(raw) > MAX_NODES:
        return []
    return [(place, name) for place, name in enumerate(raw) if is_name(name)]


# ---- fields -------------------------------------------------------------------------------------------------------

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")
_FIELD: Final = re.compile(r"[a-z_]+(?=[.\[]|\Z)")
_OF_ARTIFACT: Final = re.compile(r"artifacts\[(\d+)\](?:\.([a-z_]+)(?=[.\[]|\Z))?")

_NAME: Final = (InvalidName, f"{NAME_RULE}, {MAX_NAME} at most", "Rename it.")
_RULES: Final[Mapping[str, tuple[type[InvalidDag], str, str]]] = {
    "strategy_id": _NAME,
    "name": _NAME,
    "inputs": (
        InvalidName,
        f"a list of up to {MAX_INPUTS} names of nodes is required",
        "Name one node per port.",
    ),
    "signals": (
        InvalidName,
        "a list of at least one name of a node is required",
        "Name the nodes that target.",
    ),
    "tags": (
        InvalidName,
        f"a list of up to {MAX_TAGS} tags is required; {NAME_RULE}, {MAX_TAG} at most",
        "Rename it.",
    ),
    "version": (InvalidName, f"{NAME_RULE}, {MAX_VERSION} at most", "Rename it."),
    "strategy_version": (InvalidName, f"{NAME_RULE}, {MAX_VERSION} at most", "Rename it, or leave it out."),
    "release_tag": (InvalidName, f"{NAME_RULE}, {MAX_VERSION} at most", "Rename it, or leave it out."),
    "node_type": (InvalidName, "a text of 1 to 100 characters is required", "Name a type of node."),
    "schema_compat_id": (
        InvalidName,
        f"a text of up to {MAX_NAME} ASCII letters, digits, '_', '-' and '.' is required",
        "Leave it out.",
    ),
    "interval": (
        InvalidDag,
        f"whole seconds from 1 to {MAX_INTERVAL_S} are required, as a number or a text such as '1m'",
        "Send seconds.",
    ),
    "period": (
        InvalidDag,
        f"a whole number from 1 to {MAX_PERIOD} is required",
        "Send how far the node looks back.",
    ),
    "code": (InvalidName, CODE_RULE, "Name the function of the node."),
    "code_hash": (NodeIdMismatch, "it must be 'blake3:' and 64 lowercase hex digits", "Leave it out."),
    "node_id": (NodeIdMismatch, "it must be 'blake3:' and 64 lowercase hex digits", "Leave it out."),
    "schema_hash": (NodeIdMismatch, "it must be 'blake3:' and 64 lowercase hex digits", "Leave it out."),
    "checksum": (NodeIdMismatch, "it must be 'blake3:' and 64 lowercase hex digits", "Compute it again."),
    "path": (InvalidName, f"a text of 1 to {MAX_PATH} characters is required", "Shorten it."),
    "size": (InvalidDag, f"a whole number from 0 to {MAX_SIZE} is required", "Send bytes."),
    "framework": _NAME,
    "dtype": _NAME,
    "artifacts": (InvalidName, "a list of artifacts, or in a node of their names, is required", FORM),
    "params": (InvalidDag, "an object is required", FORM),
    "metadata": (InvalidDag, "an object is required", FORM),
    "meta": (InvalidDag, "an object with version and description is required", FORM),
    "description": (InvalidDag, "a text is required", FORM),
}
"""What each field takes, and which kind of fault its breach is."""


_Model = TypeVar("_Model", bound=BaseModel)


class _Part:
    """One node of a message, or what is around them: what is wrong at a path is told once, by who sees it first."""

    def __init__(self, faults: Faults, suspicious: bool) -> None:
        self.faults = faults
        self.told: set[str] = set()
        self._suspicious = suspicious

    def add(self, kind: type[InvalidDag], path: str, found: object, rule: str, remedy: str) -> None:
        if path not in self.told:
            self.told.add(path)
            self.faults.add(kind, path, found, rule, remedy)

    def _add_told(self, kind: type[InvalidDag], path: str, was: str, rule: str, remedy: str) -> None:
        if path not in self.told:
            self.told.add(path)
            self.faults.add_told(kind, path, was, rule, remedy)

    def clean(self, value: object, path: str) -> None:
        """Tell of what no field allows: numbers without a form, keys twice, NUL and half characters. At most `MAX_DEPTH` deep."""
        if not self._suspicious:
            return
        match value:
            case Odd():
                self._add_told(
                    InvalidParameter,
                    path,
                    f"the number {shortened(value.text)}",
                    value.why,
                    "Send a plain number.",
                )
            case str():
                self._clean_text(value, path)
            case dict():
                self.doubled(value, path)
                for key, item in value.items():
                    self._clean_text(key, _within(path, key))
                    self.clean(item, _within(path, key))
            case list():
                for place, item in enumerate(value):
                    self.clean(item, f"{path}[{place}]")
            case _:
                pass

    def doubled(self, value: Mapping[str, Any], path: str) -> None:
        if isinstance(value, Doubled):
            for key in value.keys_twice:
                self._add_told(
                    InvalidDag,
                    _within(path, key),
                    "there twice",
                    "a key stands once in an object",
                    "Keep one.",
                )

    def _clean_text(self, text: str, path: str) -> None:
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            self.add(
                InvalidName, path, text, "NUL and halves of characters are not allowed", "Leave them out."
            )

    def strangers(self, found: Mapping[str, Any], known: Collection[str], path: str) -> dict[str, Any]:
        """Tell of fields that nobody knows; returns the others."""
        for key in found:
            if key not in known:
                self._add_told(
                    InvalidDag,
                    _within(path, key),
                    "there",
                    "no field has that name",
                    f"Known are {', '.join(known)}.",
                )
        return {key: value for key, value in found.items() if key in known}

    def unsound(self, fields: Iterable[str], path: str) -> set[str]:
        """Those of the fields at a path of which, or of something in which, anything was told."""
        start = len(path) + 1 if path else 0
        under = (_FIELD.match(told, start) for told in self.told if told.startswith(path))
        return {at[0] for at in under if at is not None}.intersection(fields)

    def read(self, model: type[_Model], found: Mapping[str, Any], path: str) -> _Model | None:
        try:
            return model.model_validate(dict(found))
        except ValidationError as error:
            for one in error.errors(include_url=False, include_context=False):
                self._add_field(one["loc"], one["type"], one["input"], path)
            return None

    def _add_field(self, where: tuple[int | str, ...], kind: str, found: object, path: str) -> None:
        names = [step for step in where if isinstance(step, str) and step in _RULES]
        for step in where:
            path = f"{path}[{step}]" if isinstance(step, int) else _within(path, step)
        if kind == "extra_forbidden" or not names:
            self._add_told(InvalidDag, path, "there", "no field has that name", FORM)
            return
        fault, rule, remedy = _RULES[names[-1]]
        if kind == "missing":
            self._add_told(InvalidDag, path, "missing", rule, remedy)
        elif isinstance(found, str) or kind == "too_long":
            self._add_told(fault, path, kind_of(found), rule, remedy)
        else:
            self.add(InvalidDag, path, found, rule, remedy)


def _within(path: str, key: str) -> str:
    shown = key if _PLAIN_KEY.fullmatch(key) else f"[{spelled(key)}]"
    return f"{path}.{shown}" if path and not shown.startswith("[") else f"{path}{shown}"
