"""Messages as bytes and back: Avro's single-object encoding, and nothing accepted that would not be written the same way.

Layout (Avro specification, "Single-object encoding"): C3 01, the little-endian CRC-64-AVRO fingerprint of the writer's schema,
then the body. The bytes come from outside, so every size is bounded before it is believed, and a decoded record is written
again: only one byte string means a message (no trailing bytes, no overlong numbers, no split arrays, no negative indices).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from qmtl.foundation.common.errors import (
    IncompatibleSchema,
    InvalidValue,
    MalformedValue,
    QmtlError,
    UnknownSchema,
)
from qmtl.foundation.wire.avro import Schema, avro_schema, fingerprint, parsing_form
from qmtl.foundation.wire.compat import NEWER, require_resolvable
from qmtl.foundation.wire.compiled import (
    MOST_BYTES,
    Read,
    Write,
    compiled,
    compiled_series,
    too_large,
    unwritten,
)
from qmtl.foundation.wire.convert import Reader, converters
from qmtl.foundation.wire.json_view import to_json
from qmtl.foundation.wire.shape import shape_of

MAX_VALUE_BYTES: Final = MOST_BYTES
"""1 MiB, the largest DAG message, and 64 KiB for what surrounds it."""

_MARK: Final = b"\xc3\x01"
_HEADER_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class _Older:
    """How the bodies of an older schema are read: by fastavro, and written again to be believed.

    Attributes:
        schema: of the writer; `current`, with its defaults, what is made of it.
    """

    schema: Any
    current: Any
    take: Reader

    def read(self, body: bytes) -> Any:
        """The message; None where the body does not encode back to itself."""
        record: Any = schemaless_reader(BytesIO(body), self.schema, None)
        again = BytesIO()
        schemaless_writer(again, self.schema, record, disable_tuple_notation=True)
        if again.getvalue() != body:
            return None
        record = schemaless_reader(BytesIO(body), self.schema, self.current)
        return self.take(record)


@dataclass(frozen=True, slots=True)
class _Form:
    """How one schema of one message is read, and written where it is the current one."""

    message: type
    header: bytes
    write: Write
    read: Read
    older: _Older | None


Finder = Callable[[], None]
"""Looks for schemas that have come since it was asked last, and makes the codec learn them."""

_STRANGERS: Final = 10_000
"""Unknown headers that are remembered, so that rubbish is not looked for each time."""


def no_older(message: type) -> Iterable[Schema]:
    """The older schemas of a message that has none."""
    return ()


class Codec:
    """Reads and writes a closed set of messages. Schemas are built when the first value comes.

    Args:
        messages: the classes; a name means one class.
        older: the schemas that a class was written with before, in any order; the current one among them does no harm.
    """

    def __init__(
        self, messages: Iterable[type], older: Callable[[type], Iterable[Schema]] = no_older
    ) -> None:
        self._messages = tuple(messages)
        self._older = older
        self._by_type: dict[type, _Form] = {}
        self._by_header: dict[bytes, _Form] = {}
        self._finder: Finder | None = None
        self._strange: dict[bytes, str] = {}

    def encode(self, message: object) -> bytes:
        """The bytes of a message.

        Raises:
            InvalidValue: a value that its field doesn't take; the field is named.
            TooLarge: more than `MAX_VALUE_BYTES`.
            UnknownSchema: a class that is not one of the codec's.
        """
        form = self._by_type.get(type(message)) or self._form(type(message))
        try:
            data = form.header + form.write(message).encode("latin-1")
        except Exception as cause:
            to_json(message)  # says which field it was
            raise unwritten(form.message.__name__, cause) from cause
        if len(data) > MAX_VALUE_BYTES:
            raise too_large(form.message.__name__, len(data))
        return data

    def series(self, message: type, same: Mapping[str, object]) -> Callable[..., bytes]:
        """A function that gives the bytes of messages of one class of which most fields are the same.

        Args:
            same: the values that they share, by field.

        Returns:
            It takes the values of the other fields, by place, in the order of the class, and gives what `encode` gives of that message.

        Raises:
            InvalidValue: a shared value that its field doesn't take, or no such field; the function raises it of another one.
            UnknownSchema: a class that is not one of the codec's.
        """
        form = self._form(message)
        shape = shape_of(message)
        if strange := same.keys() - {field.name for field in shape.fields}:
            raise InvalidValue(f"{message.__name__} has no field {min(strange)!r}.")
        try:
            return compiled_series(shape, same, form.header)
        except Exception as cause:
            raise unwritten(message.__name__, cause) from cause

    def decode(self, data: bytes) -> Any:
        """The message that the bytes hold, in the current form of its class whatever schema wrote it.

        Raises:
            UnknownSchema: the bytes don't begin with a header that one of the codec's schemas has.
            IncompatibleSchema: other code has published the schema, and this code can't read it.
            TooLarge: more than `MAX_VALUE_BYTES`.
            MalformedValue: anything else that `encode` would not have written.
        """
        return self._read(self._by_header.get(data[:_HEADER_BYTES]) or self._known(data), data)

    def decode_as(self, data: bytes, allowed: frozenset[type]) -> Any:
        """`decode`, for a place that takes only some of the messages; the body of any other is not looked at.

        Raises:
            UnknownSchema: a message of another class, too.
        """
        form = self._by_header.get(data[:_HEADER_BYTES]) or self._known(data)
        if form.message not in allowed:
            names = ", ".join(sorted(message.__name__ for message in allowed))
            raise UnknownSchema(f"a value was a {form.message.__name__}; only {names} may stand here.")
        return self._read(form, data)

    def fingerprint(self, message: type) -> bytes:
        """The 8 bytes by which a record says that the current schema of the class wrote it."""
        return self._form(message).header[2:]

    # ---- schemas of other code ------------------------------------------------------------------------------------

    def schemas(self) -> Mapping[bytes, Schema]:
        """The current schemas by their fingerprints: what this codec writes with."""
        return {self.fingerprint(message): avro_schema(message) for message in self._messages}

    def learn(self, schema: Schema) -> None:
        """Read what other code writes with a schema, as a message of the same name in its current form.

        Raises:
            IncompatibleSchema: the current form can't, or there is no message of this name; values of that schema raise it,
                too, from now on.
        """
        self._build()
        header = _MARK + fingerprint(schema)
        mine = next((one for one in self._messages if one.__name__ == schema["name"]), None)
        try:
            if mine is None:
                raise IncompatibleSchema(
                    f"{schema['name']} is a message that this version of the code doesn't have.", NEWER
                )
            require_resolvable(avro_schema(mine), schema)
        except IncompatibleSchema as refused:
            self._strange[header] = refused.what
            raise
        if header not in self._by_header:
            self._by_header[header] = _older_form(self._by_type[mine], schema)

    def ask(self, finder: Finder | None) -> None:
        """Whom to ask when a value comes whose schema is unknown; he calls `learn`. The last one told is asked."""
        self._finder = finder
        self._strange.clear()

    def _read(self, form: _Form, data: bytes) -> Any:
        if len(data) > MAX_VALUE_BYTES:
            raise too_large(form.message.__name__, len(data))
        try:
            if form.older is None:
                message, end = form.read(data, data.decode("latin-1"), _HEADER_BYTES)
                if end == len(data):
                    return message
            elif (message := form.older.read(data[_HEADER_BYTES:])) is not None:
                return message
        except Exception as cause:
            detail = cause.what if isinstance(cause, QmtlError) else f"{type(cause).__name__}: {cause}"
            raise MalformedValue(
                f"a {form.message.__name__} of {len(data)} bytes was damaged: {detail[:200]}"
            ) from cause
        raise MalformedValue(f"a {form.message.__name__} of {len(data)} bytes did not encode back to itself.")

    def _form(self, message: type) -> _Form:
        self._build()
        try:
            return self._by_type[message]
        except KeyError:
            raise UnknownSchema(
                f"a value was of type {message.__name__}, which is no message of this codec.",
                "Add it to the contracts.",
            ) from None

    def _known(self, data: bytes) -> _Form:
        self._build()
        header = bytes(data[:_HEADER_BYTES])
        whole = header[:2] == _MARK and len(header) == _HEADER_BYTES
        known = header in self._by_header or header in self._strange
        if self._finder is not None and whole and not known:
            if len(self._strange) >= _STRANGERS:
                self._strange.clear()
            self._strange[header] = ""  # before it is looked for: what is found may itself hold strangers
            self._finder()
        if refused := self._strange.get(header):
            raise IncompatibleSchema(refused, NEWER)
        try:
            return self._by_header[header]
        except KeyError:
            raise UnknownSchema(
                f"a value of {len(data)} bytes began with {header.hex() or 'nothing'}, which is the header of no known schema.",
                "Deploy the schemas of its writer first.",
            ) from None

    def _build(self) -> None:
        if self._by_type:
            return
        by_type: dict[type, _Form] = {}
        by_header: dict[bytes, _Form] = {}
        for message in self._messages:
            current = avro_schema(message)
            write, read = compiled(shape_of(message))
            form = _Form(message, _MARK + fingerprint(current), write, read, None)
            if by_header.setdefault(form.header, form) is not form:
                raise InvalidValue(f"two messages were named {message.__name__}; a name must mean one class.")
            by_type[message] = form
            for schema in self._older(message):
                older = _older_form(form, schema)
                if by_header.setdefault(older.header, older).message is not message:
                    raise InvalidValue(
                        f"an older schema of {message.__name__} has the fingerprint of another message."
                    )
        self._by_header, self._by_type = by_header, by_type


def _older_form(current: _Form, schema: Schema) -> _Form:
    """How values of another schema of the same message are read."""
    shape = shape_of(current.message)
    past = _Older(
        parse_schema(parsing_form(schema)), parse_schema(avro_schema(current.message)), converters(shape)[1]
    )
    return _Form(current.message, _MARK + fingerprint(schema), current.write, current.read, past)
