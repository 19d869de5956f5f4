"""An archive's URL says where it is and holds no secret; what is wrong with one is said without repeating it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.engine.archive.address import StoreAddress, parse, parse_manifest
from qmtl.foundation.common.errors import QmtlError, UsageError

MANIFEST = f"toys.archived/an-id_1/manifest-{'0' * 31}a.json"

_SEGMENTS = st.text("azAZ09_=-", min_size=1, max_size=8)
_ADDRESSES = st.one_of(
    st.builds(
        StoreAddress,
        st.text("az09.-", min_size=2, max_size=9).map(lambda text: f"b{text}"),
        st.lists(_SEGMENTS, max_size=3).map("/".join),
        st.sampled_from(["", "eu-central-1"]),
        st.sampled_from(["", "http://127.0.0.1:9000", "https://store.example/base", "http://[::1]:80"]),
    ),
    st.builds(
        StoreAddress,
        st.just(""),
        st.one_of(
            st.sampled_from(["/", ".", "/a b/ü%", "a/b", "../up", "/x#y?z"]),
            st.lists(_SEGMENTS, min_size=1, max_size=3).map(lambda some: "/" + "/".join(some)),
        ),
    ),
)


@given(_ADDRESSES)
def test_an_address_is_read_back_from_its_url_and_so_is_a_manifests(address: StoreAddress) -> None:
    assert parse(address.url()) == address
    assert parse_manifest(address.url()) == (address, "")
    assert parse_manifest(address.url(MANIFEST)) == (address, MANIFEST)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://kept", StoreAddress("kept", "")),
        ("s3://kept/", StoreAddress("kept", "")),
        ("s3://kept/a/b/?region=r-1", StoreAddress("kept", "a/b", "r-1")),
        ("file:///a/b/", StoreAddress("", "/a/b")),
        ("file:/a/b", StoreAddress("", "/a/b")),
        ("file:///", StoreAddress("", "/")),
        ("file:a/b", StoreAddress("", "a/b")),
        ("file:.", StoreAddress("", ".")),
    ],
)
def test_the_forms_of_an_address(text: str, address: StoreAddress) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hidden",
        "gs://hidden",
        "/hidden",
        "s3:hidden",
        "s3://",
        "s3://HIDDEN:hidden@kept",
        "s3://hidden@kept",
        "s3://kept:hidden@",
        "s3://kept:443",
        "s3://kept#hidden",
        "s3://kept/../hidden",
        "s3://kept/a//hidden",
        "s3://kept/ hidden",
        "s3://kept?secret_access_key=hidden",
        "s3://kept?hidden",
        "s3://kept?region=a&region=hidden",
        "s3://kept?region=",
        "s3://kept?region=hidden/",
        "s3://kept?endpoint=hidden",
        "s3://kept?endpoint=http://user:hidden@host",
        "s3://kept?endpoint=http://host?hidden",
        "s3://[hidden",
        "file://host/hidden",
        "file:",
        "file://",
        "file:///a?hidden=1",
        "file:///a%00hidden",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as problem:
        parse(text)
    assert "hidden" not in str(problem.value).lower()
    assert "s3://BUCKET" in problem.value.remedy


@given(st.text(max_size=40), st.sampled_from(["", "s3:", "s3://", "s3://kept/", "s3://kept?", "file:"]))
def test_any_text_is_an_address_or_is_refused(text: str, scheme: str) -> None:
    try:
        address = parse(scheme + text)
    except QmtlError as problem:
        assert isinstance(problem, UsageError)  # noqa: PT017 - either end is right
    else:
        assert parse(address.url()) == address
