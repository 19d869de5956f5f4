"""The schemas on a log: every program publishes its own before it writes a value, and learns those of the others from there.

So old and new code live on one log: a value that a newer version wrote names a schema that the older one finds here, and
reads as far as Avro's resolution goes; what it can't read, it refuses, at its start or when such a value comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import (
    Fenced,
    IncompatibleSchema,
    LogError,
    MalformedValue,
    OutcomeUnknown,
    TransactionAborted,
)
from qmtl.foundation.contracts.control import SchemaText
from qmtl.foundation.wire.avro import Schema, fingerprint
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import topic

SCHEMAS: Final = TopicPartition("schemas", 0)
WRITER: Final = "qmtl.schemas"
_TRIES: Final = 20
_VISIBLE_S: Final = 30.0


class PublishedSchemas:
    """The schemas of one log, as far as they have been read. Not thread-safe."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._next: dict[TopicPartition, int] = {}
        self._known: set[bytes] = set()

    def require_readable(self) -> None:
        """Learn every published schema of a message that this code has; to be called before anything is read or written.

        Raises:
            IncompatibleSchema: this code can't read one of them.
        """
        mine = {schema["name"] for schema in self._codec.schemas().values()}
        for schema in self._fresh():
            if schema["name"] in mine:
                self._codec.learn(schema)

    def publish(self) -> None:
        """Add those of this code that are missing, and return when every reader can see them.

        Raises:
            LogError: others wrote at the same time, again and again, or what was written does not become visible.
        """
        for _ in range(_TRIES):
            self.look()
            missing = {
                found: schema for found, schema in self._codec.schemas().items() if found not in self._known
            }
            if not missing:
                return
            with suppress(Fenced, TransactionAborted, OutcomeUnknown):  # another program publishes just now
                self._write(missing)
                self._wait()
        raise LogError("the schemas of this code could not be published.", "Start again.")

    def look(self) -> None:
        """Learn what has come since the last time; what can't be read raises when a value of it comes."""
        for schema in self._fresh():
            with suppress(IncompatibleSchema):
                self._codec.learn(schema)

    def attend(self) -> None:
        """Be asked by the codec when a value comes whose schema it doesn't know."""
        self._codec.ask(self._find)

    def _find(self) -> None:
        if not getattr(self._log, "closed", False):  # a codec may outlive the log that it was used on last
            self.look()

    def _fresh(self) -> Iterator[Schema]:
        if self._log.describe(SCHEMAS.topic) is None:
            return
        for record in list(read_all(self._log, [SCHEMAS], self._next)):
            self._next[SCHEMAS] = record.offset + 1
            if record.value is None:
                continue
            schema = _schema_of(self._codec.decode(record.value), record.offset)
            self._known.add(fingerprint(schema))
            yield schema

    def _write(self, missing: dict[bytes, Schema]) -> None:
        writer = self._log.writer(WRITER)
        try:
            writer.begin()
            for found, schema in sorted(missing.items()):
                text = SchemaText(found.hex(), schema["name"], json.dumps(schema, sort_keys=True))
                key = encode_key(topic(SCHEMAS.topic).key_of(text))
                writer.append(*SCHEMAS, key, self._codec.encode(text))
            writer.commit({}, "", None)
        finally:
            writer.close()

    def _wait(self) -> None:
        """A commit returns before its records show; a value must not be there before its schema is."""
        end = self._log.end_offsets([SCHEMAS])[SCHEMAS]
        deadline = time.monotonic() + _VISIBLE_S
        while self._log.stable_offsets([SCHEMAS])[SCHEMAS] < end:
            if time.monotonic() > deadline:
                raise LogError(
                    f"{SCHEMAS.topic} shows nothing beyond an open transaction.", "See who holds it open."
                )
            time.sleep(0.002)


def _schema_of(found: object, offset: int) -> Schema:
    """The schema of a published text.

    Raises:
        MalformedValue: it is none, or not the one that its fingerprint names.
    """
    try:
        assert isinstance(found, SchemaText)
        schema: Schema = json.loads(found.text)
        if fingerprint(schema).hex() == found.fingerprint and schema["name"] == found.name:
            return schema
    except Exception as error:  # whatever a text that is no schema makes of the parser
        raise _no_schema(offset, type(error).__name__) from None
    raise _no_schema(offset, "it has another fingerprint or name")


def _no_schema(offset: int, why: str) -> MalformedValue:
    return MalformedValue(
        f"{SCHEMAS.topic} holds at offset {offset} what is no schema: {why}.",
        "Somebody else has written there; delete that key from the topic.",
    )
