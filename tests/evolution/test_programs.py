"""The program itself on a log that another version has written: refused with a code and a remedy, or shown what it can read."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.log.port import Log
from qmtl.engine.schemas import SCHEMAS, WRITER
from qmtl.engine.view import all_partitions
from qmtl.foundation.contracts.control import SchemaText
from qmtl.foundation.contracts.world import World
from qmtl.foundation.wire.avro import avro_schema, fingerprint
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from tests.contract.driving import put, until
from tests.interfaces.cli.running import assert_one_screen, run


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return f"embedded:{tmp_path / 'log'}"
    return f"kafka://{request.getfixturevalue('kafka_bootstrap')}/evo-{uuid.uuid4().hex[:10]}"


def publish(log: Log, schema: dict[str, Any]) -> bytes:
    """A schema of another version, as that version publishes it; returns its fingerprint."""
    found = fingerprint(schema)
    text = SchemaText(found.hex(), schema["name"], json.dumps(schema))
    put(log, [(SCHEMAS, encode_key((text.fingerprint,)), codec.encode(text))], writer=WRITER)
    return found


def world(**changes: Any) -> dict[str, Any]:
    """The schema of a world with other types of some fields, and further fields at its end."""
    schema = json.loads(json.dumps(avro_schema(World)))
    known = {one["name"]: one for one in schema["fields"]}
    for name, kind in changes.items():
        if name in known:
            known[name]["type"] = kind
        else:
            schema["fields"].append({"name": name, "type": kind, "default": ""})
    return dict(schema)


def ends(address: str) -> dict[str, int]:
    log = open_log(address)
    try:
        wheres = [where for name in log.topics() for where in all_partitions(log, name)]
        # A broker tells a writer of its commit before it has written the marker.
        until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))
        return {name: sum(log.end_offsets(all_partitions(log, name)).values()) for name in log.topics()}
    finally:
        log.close()


def test_values_of_a_newer_version_that_can_not_be_read_are_refused_by_every_program_that_writes(
    address: str, tmp_path: Path
) -> None:
    log = open_log(address)
    prepare(log)
    publish(log, world(world_id="long"))
    log.close()
    before = ends(address)
    for line in (
        ["worker", "run", "worldservice"],
        ["world", "create", "w1"],
        ["demo", "--state-dir", str(tmp_path / "demo")],
    ):
        ran = run(tmp_path, *line, "--log", address)
        assert_one_screen(
            ran, "QMTL-204", 1, says=["World.world_id is string and was long", "the version that writes it"]
        )
    assert ends(address) == before


def test_values_of_a_newer_version_that_can_be_read_are_shown(tmp_path: Path) -> None:
    address = f"embedded:{tmp_path / 'log'}"
    ran = run(tmp_path, "world", "create", "w1", "--log", address)
    assert ran.code == 0, ran
    log = open_log(address)
    found = publish(log, world(motto="string"))
    (state,) = [one for one in log.read(type(SCHEMAS)("world.state", 0), 0) if one.value and b"w1" in one.key]  # type: ignore[attr-defined] # the embedded log's
    newer = b"\xc3\x01" + found + state.value[10:] + b"\x0aahead"
    put(log, [(type(SCHEMAS)("world.state", 0), state.key, newer)], writer="newer")
    log.close()
    shown = run(tmp_path, "state", "world.state", "--log", address, "--json")
    assert shown.code == 0, shown
    assert '"w1"' in shown.out
    assert "motto" not in shown.out
    again = run(tmp_path, "world", "create", "w2", "--log", address)
    assert again.code == 0, again
