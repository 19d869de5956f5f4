"""The schema files: those of the repository are current, and no change to a message gets past them."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import random
import shutil
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation import contracts
from qmtl.foundation.common.errors import IncompatibleSchema, InvalidValue
from qmtl.foundation.contracts.trade import Fill
from qmtl.foundation.wire import generate
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.generate import main, planned, write
from qmtl.foundation.wire.json_schema import json_schema
from qmtl.foundation.wire.json_view import from_json, to_json
from qmtl.foundation.wire.registry import CONTRACTS, MESSAGES
from qmtl.foundation.wire.shape import shape_of
from qmtl.foundation.wire.versions import schema_dir, stored_versions
from tests.foundation.instances import messages, sample
from tests.foundation.test_avro import Every


def test_the_schemas_of_the_repository_are_those_of_the_messages() -> None:
    assert planned(schema_dir(), MESSAGES) == {}
    assert main(["--check"]) == 0


def test_every_contract_is_registered() -> None:
    modules = [info.name for info in pkgutil.iter_modules(contracts.__path__, f"{contracts.__name__}.")]
    assert sorted(module.__name__ for module in CONTRACTS) == modules
    own = [
        v for m in CONTRACTS for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__
    ]
    assert {cls for cls in own if not issubclass(cls, Enum)} == set(MESSAGES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(schema_dir(), tmp_path / "schemas"))


def test_a_deleted_or_edited_file_is_stale(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "avro" / "Fill.v2.avsc").unlink()
    (folder / "json" / "Order.json").write_text("{}", encoding="utf-8")
    (folder / "json" / "Nothing.json").write_text("{}", encoding="utf-8")
    assert main(["--check", "--folder", str(folder)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert sorted(told) == ["stale: avro/Fill.v2.avsc", "stale: json/Nothing.json", "stale: json/Order.json"]
    assert main(["--folder", str(folder)]) == 0
    assert main(["--check", "--folder", str(folder)]) == 0


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    assert planned(tmp_path, MESSAGES) == {}
    assert (
        len(list((tmp_path / "avro").iterdir())) == len(list((tmp_path / "json").iterdir())) == len(MESSAGES)
    )


def _fill(**changes: tuple[Any, Any]) -> type:
    """`Fill` as it would stand in a later version: with other types, and with further fields at its end."""
    defaults = {one.name: one.default for one in dataclasses.fields(Fill)}
    fields = {name: (hint, defaults[name]) for name, hint in get_type_hints(Fill).items()} | changes
    made = [(name, hint, dataclasses.field(default=default)) for name, (hint, default) in fields.items()]
    return dataclasses.make_dataclass("Fill", made, frozen=True, slots=True, kw_only=True)


def test_an_allowed_change_becomes_the_next_version_and_leaves_the_older_one(folder: Path) -> None:
    others = [message for message in MESSAGES if message is not Fill]
    before = (folder / "avro" / "Fill.v2.avsc").read_bytes()
    changes = planned(folder, [*others, _fill(venue=(str, ""))])
    assert {path.name for path in changes} == {"Fill.v3.avsc", "Fill.json"}
    write(changes)
    assert (folder / "avro" / "Fill.v2.avsc").read_bytes() == before
    assert planned(folder, [*others, _fill(venue=(str, ""))]) == {}
    assert [version for version, _ in stored_versions(folder, "Fill")] == [1, 2, 3]
    assert {path.name for path in planned(folder, [*others, _fill(venue=(str, "x"))])} == {
        "Fill.v4.avsc",
        "Fill.json",
    }


@pytest.mark.parametrize(
    "changes,why",
    [
        ({"seq": (str, dataclasses.MISSING)}, "Fill.seq is string and was long"),
        ({"venue": (str, dataclasses.MISSING)}, "Fill.venue is new and has no default"),
        ({"price": (str, dataclasses.MISSING)}, "Fill.price is string and was string"),
    ],
)
def test_a_change_that_older_records_do_not_survive_is_refused(
    folder: Path, changes: dict[str, Any], why: str
) -> None:
    others = [message for message in MESSAGES if message is not Fill]
    with pytest.raises(IncompatibleSchema) as refused:
        planned(folder, [*others, _fill(**changes)])
    assert refused.value.what.startswith(why)


def test_the_command_says_what_is_incompatible(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = json.loads((folder / "avro" / "Fill.v1.avsc").read_text(encoding="utf-8"))
    stored["fields"][0]["type"] = "long"
    (folder / "avro" / "Fill.v1.avsc").write_text(json.dumps(stored), encoding="utf-8")
    for arguments in (["--check"], []):
        assert main([*arguments, "--folder", str(folder)]) == 1
        assert "QMTL-204" in capsys.readouterr().err
    monkeypatch.setattr(generate, "MESSAGES", MESSAGES[:-1])
    assert main(["--check", "--folder", str(schema_dir())]) == 1
    assert f"{MESSAGES[-1].__name__}.v1.avsc is the schema of no message" in capsys.readouterr().err


def test_a_message_that_is_gone_is_refused_while_its_schema_stands(folder: Path) -> None:
    with pytest.raises(IncompatibleSchema, match="Fill"):
        planned(folder, [message for message in MESSAGES if message is not Fill])


# ---- JSON Schema ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [*MESSAGES, Every], ids=lambda message: message.__name__)
def test_the_json_schema_is_one_and_holds_for_every_message(message: type) -> None:
    schema = json_schema(message)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    chance = random.Random(7)
    for _ in range(10):
        validator.validate(json.loads(json.dumps(to_json(sample(shape_of(message), chance)))))


JUNK = st.sampled_from(
    [
        None,
        True,
        0,
        1.5,
        2**63,
        "",
        "1.50",
        "-0",
        "NaN",
        "compute-only",
        "LIVE",
        "AA==",
        [],
        {},
        [1],
        {"a": 1},
    ]
)


@settings(max_examples=200)
@given(st.data())
def test_whatever_from_json_takes_is_valid_under_the_json_schema(data: st.DataObject) -> None:
    view = to_json(data.draw(messages(Every)))
    for name in data.draw(st.lists(st.sampled_from([*view, "more"]), max_size=2)):
        if data.draw(st.booleans()):
            view[name] = data.draw(JUNK)
        else:
            view.pop(name, None)
    valid = jsonschema.Draft202012Validator(json_schema(Every)).is_valid(view)
    try:
        message = from_json(Every, view)
    except InvalidValue:
        return
    assert valid
    assert from_json(Every, to_json(message)) == message


@dataclass(frozen=True, slots=True)
class Priced:
    price: Decimal


@pytest.mark.parametrize(
    "text,valid", [("1.50", True), ("-0", True), ("1e5", False), ("+1", False), (".5", False), ("", False)]
)
def test_json_decimals_are_plain_digits(text: str, valid: bool) -> None:
    assert jsonschema.Draft202012Validator(json_schema(Priced)).is_valid({"price": text}) == valid


def test_enums_are_names_in_avro_and_values_in_json() -> None:
    assert "COMPUTE_ONLY" in json.dumps(avro_schema(Every))
    assert json_schema(Every)["properties"]["mode"] == {"enum": ["compute-only", "live"]}
