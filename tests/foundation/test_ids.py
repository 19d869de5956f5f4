"""One rule for ids from outside: what keeps it is safe wherever an id goes, what breaks it is told with field, kind, rule and remedy."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.common.errors import InvalidName
from qmtl.foundation.common.ids import MAX_ID, fault_of, require_id, unanswerable
from qmtl.foundation.wire.keys import MAX_KEY_BYTES, decode_key, encode_key
from qmtl.services.dagmanager.naming import is_namespace, namespace_of

TEXTS = st.text(max_size=MAX_ID + 2) | st.from_regex(r"[A-Za-z0-9_.: -]{0,12}", fullmatch=True)


@given(TEXTS)
@example("a" * MAX_ID)
@example("a" * (MAX_ID + 1))
@example("v1.2.3-hotfix")
@example("a\n")
@example("a:b")
@example("..")
def test_an_id_is_safe_in_keys_and_prefixes_and_whatever_is_not_is_told_why(text: str) -> None:
    fault = fault_of("world_id", text)
    assert unanswerable("world_id", text) in (None, fault)
    if fault is None:
        assert text == text.strip() != ""
        assert len(text) <= MAX_ID
        assert re.search(r"[^A-Za-z0-9._-]", text) is None
        assert decode_key(encode_key((text, text))) == (text, text)
        assert len(encode_key((text,))) < MAX_KEY_BYTES
        assert is_namespace(namespace_of(text, ExecutionDomain.LIVE))
        require_id("world_id", text)
        return
    with pytest.raises(InvalidName) as caught:
        require_id("world_id", text)
    said = str(caught.value)
    assert said.startswith("[QMTL-508] world_id was ")
    assert str(MAX_ID) in said
    assert said.endswith("Say it under another id.")
    assert said.isascii()
    assert said.isprintable()


@pytest.mark.parametrize(
    ("text", "was", "keys"),
    [
        ("", "an empty text", False),
        (" \t", "a text of 2 blanks", False),
        ("a" * 201, "of 201 characters", False),
        ("a b", "the text 'a b'", True),
        ("a\x1b[2J", "the text 'a\\x1b[2J'", True),
        ("wörld", "the text 'w\\xf6rld'", True),
    ],
)
def test_what_can_key_an_answer_gets_one(text: str, was: str, keys: bool) -> None:
    fault = fault_of("submission_id", text)
    assert fault is not None
    assert was in fault.what
    assert unanswerable("submission_id", text) == (None if keys else fault)
