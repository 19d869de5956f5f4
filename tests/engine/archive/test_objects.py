"""A bucket, a directory and memory are one store: the same archive in each, and what they refuse is coded and shows no secret."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from qmtl.bootstrap import open_store
from qmtl.engine.archive.address import parse
from qmtl.engine.archive.manifest import directory
from qmtl.engine.archive.objects import Objects, Patience, in_memory, open_objects
from qmtl.engine.archive.reading import load, manifests, restore, verify
from qmtl.foundation.common.errors import (
    ArchiveAltered,
    ArchiveError,
    StoreMissing,
    StoreRefused,
    StoreUnreachable,
    UsageError,
)
from tests.engine.archive.bucket import Answer, Bucket, serving
from tests.engine.archive.histories import PLACE, SMALL, SOME, TOPIC, archived, on_the_log, simulated
from tests.engine.archive.stores import contents

ACCESS: Final = "AKIAVERYSECRETACCESS"
SECRET: Final = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYsecret"
TOKEN: Final = "session-token-secret"
FEW: Final = Patience(request_s=30.0, retries_s=30.0, retries=3)
SHORT: Final = Patience(request_s=0.5, retries_s=1.5, retries=3)
NOBODY: Final = 65534


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, and nothing else of AWS."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with serving() as made:
        yield made


def opened(bucket: Bucket, prefix: str = "", patience: Patience = FEW) -> Objects:
    return open_objects(parse(bucket.url(prefix)), patience)


def assert_shows_no_secret(*texts: str) -> None:
    for text in texts:
        assert not [one for one in (ACCESS, SECRET, TOKEN) if one in text], text


# ---- one archive in three stores ----------------------------------------------------------------------------------


def test_a_bucket_a_directory_and_memory_hold_the_same_archive(tmp_path: Path, bucket: Bucket) -> None:
    log = simulated(SOME)
    stores = [in_memory(), open_objects(parse(f"file://{tmp_path}")), opened(bucket, "/some/where")]
    made = [archived(log, store, limits=SMALL) for store in stores]
    held = [contents(store) for store in stores]
    assert made[0] == made[1] == made[2]
    assert held[0] == held[1] == held[2]
    for store in stores:
        assert manifests(store) == [made[0].name]
        place = directory(TOPIC, made[0].topic_id)
        assert manifests(store, place) == [made[0].name]
        assert manifests(store, place[:-1]) == manifests(store, "nothing") == []
        manifest = load(store, made[0].name)
        verify(store, manifest)
        assert list(restore(store, manifest)) == on_the_log(log)
    files = {str(one.relative_to(tmp_path)): one for one in tmp_path.rglob("*") if one.is_file()}
    assert {name: one.read_bytes() for name, one in files.items()} == held[0]
    assert {f"some/where/{name}": data for name, data in held[0].items()} == bucket.objects
    assert bucket.badly_sent == 0
    assert all(ACCESS in one for one in bucket.signed)


def test_a_prefix_keeps_archives_apart(bucket: Bucket) -> None:
    archived(simulated(SOME), opened(bucket, "/one"))
    assert manifests(opened(bucket, "/other")) == []
    assert manifests(opened(bucket, "/on")) == []
    assert len(manifests(opened(bucket, "/one"))) == 1


def test_an_object_is_written_over_and_one_that_is_too_large_is_not_taken(
    tmp_path: Path, bucket: Bucket
) -> None:
    for store in (in_memory(), open_objects(parse(f"file://{tmp_path}")), opened(bucket)):
        store.put("a/b", b"first")
        store.put("a/b", b"then")
        assert store.get("a/b", 4) == b"then"
        with pytest.raises(ArchiveAltered, match="4 bytes; at most 3"):
            store.get("a/b", 3)
        with pytest.raises(ArchiveAltered, match="is not there"):
            store.get("a/c", 3)
        assert list(store.names()) == ["a/b"]


def test_a_write_to_a_directory_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    fsync = os.fsync

    def noted(place: int) -> None:
        waited.append(os.readlink(f"/proc/self/fd/{place}"))
        fsync(place)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to tell which file it was")
    monkeypatch.setattr(os, "fsync", noted)
    open_objects(parse(f"file://{tmp_path}")).put("a/b/c", b"1")
    assert waited == [str(tmp_path / one) for one in ("a/b/c", "a/b", "a", "")]


# ---- refusals -------------------------------------------------------------------------------------------------------


@contextmanager
def somebody() -> Iterator[Path]:
    """A directory that the one who asks owns, and who asks has no rights but those of an owner."""
    with tempfile.TemporaryDirectory(dir=PLACE) as made:
        place = Path(made)
        root = os.geteuid() == 0
        if root:
            os.chown(place, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield place
        finally:
            if root:
                os.seteuid(0)
            place.chmod(0o700)


def test_a_directory_without_rights_is_refused_and_holds_no_archive_until_it_has_them() -> None:
    log = simulated(SOME)
    with somebody() as place:
        store = open_store(parse(f"file://{place}"))
        for mode in (0o500, 0o300, 0o000):
            place.chmod(mode)
            with pytest.raises(StoreRefused, match=r"is not open to this client.*Nothing was deleted"):
                archived(log, store, SMALL)
            place.chmod(0o700)
            assert manifests(open_objects(parse(f"file://{place}"))) == []
        (place / "in").mkdir()
        place.chmod(0o000)
        with pytest.raises(StoreRefused, match="is not open to this client"):
            open_store(parse(f"file://{place}/in"))
        place.chmod(0o700)
        manifest = archived(log, store, SMALL)
        assert list(restore(store, manifest)) == on_the_log(log)


def test_what_a_killed_write_left_beside_an_object_is_no_object(tmp_path: Path) -> None:
    log, store = simulated(SOME), open_objects(parse(f"file://{tmp_path}"))
    manifest = archived(log, store, SMALL)
    stored = contents(store)
    for name in stored:
        half = tmp_path / f"{name}#1"
        half.write_bytes(stored[name][: len(stored[name]) // 2])
    assert contents(store) == stored
    assert archived(log, store, SMALL) == manifest
    assert contents(store) == stored


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="is no directory"):
        open_store(parse(f"file://{tmp_path / 'mount'}"))
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize(
    ("answer", "family"),
    [
        (Answer(403, "AccessDenied"), StoreRefused),
        (Answer(403, "SignatureDoesNotMatch"), StoreRefused),
        (Answer(401, "Unauthorized"), StoreRefused),
        (Answer(404, "NoSuchBucket"), StoreMissing),
        (Answer(301, "PermanentRedirect"), StoreUnreachable),
        (Answer(400, "IllegalLocationConstraintException"), StoreUnreachable),
        (Answer(500, "InternalError"), StoreUnreachable),
        (Answer(503, "SlowDown"), StoreUnreachable),
        (Answer(507, "XMinioStorageFull"), StoreUnreachable),
    ],
    ids=lambda value: value.code if isinstance(value, Answer) else "",
)
def test_what_a_bucket_refuses_is_coded_names_it_and_shows_no_secret(
    bucket: Bucket, answer: Answer, family: type[ArchiveError]
) -> None:
    said = f"{ACCESS} may not {SECRET} with {TOKEN}"
    bucket.otherwise = lambda method: replace(answer, text=said)
    store = opened(bucket, "/p")
    for call in (
        lambda: store.put("a/b", b"1"),
        lambda: store.get("a/b", 10),
        lambda: list(store.names()),
        lambda: archived(simulated(SOME), store),
    ):
        with pytest.raises(family) as problem:
            call()
        assert type(problem.value) is family
        text = str(problem.value)
        assert text.startswith(f"[{family.code}] s3://kept")
        assert "Nothing was deleted." in text
        assert_shows_no_secret(text, repr(problem.value), repr(problem.value.__cause__))
    assert_shows_no_secret(repr(store), repr(vars(store)["_credentials"]))


def test_a_bucket_that_fails_for_a_moment_is_asked_again(bucket: Bucket) -> None:
    bucket.answers = [Answer(503, "SlowDown"), Answer(500, "InternalError")]
    log = simulated(SOME)
    store = opened(bucket)
    manifest = archived(log, store, limits=SMALL)
    assert list(restore(store, manifest)) == on_the_log(log)
    first = bucket.asked[0]
    assert bucket.asked[:3] == [first] * 3


@pytest.mark.parametrize(
    ("answer", "family"),
    [
        (Answer(403, "AccessDenied"), StoreRefused),
        (Answer(503, "SlowDown"), StoreUnreachable),
        (Answer(500, "InternalError", done=True), StoreUnreachable),
        (Answer(200, "Cut", done=True, cut=True), StoreUnreachable),
    ],
    ids=["refused", "failed", "done and failed", "done and cut short"],
)
def test_a_bucket_that_fails_from_any_request_on_has_no_manifest_and_the_same_archive_later(
    bucket: Bucket, answer: Answer, family: type[ArchiveError]
) -> None:
    log, whole = simulated(SOME), in_memory()
    manifest = archived(log, whole, SMALL)
    store = opened(bucket, patience=replace(FEW, retries=0))
    archived(log, store, SMALL)
    requests = len(bucket.asked)
    assert requests == 2 * len(manifest.objects) + 2
    failed: list[tuple[int, ArchiveError]] = []
    first_ones = [*range(0, requests - 1, 3), requests - 1]
    for number in first_ones:
        bucket.objects.clear()
        bucket.asked.clear()
        bucket.otherwise = lambda method, first=number: answer if len(bucket.asked) > first else None  # type: ignore[misc] # bound now
        try:
            archived(log, store, SMALL)
        except ArchiveError as problem:
            failed.append((number, problem))
        bucket.otherwise = lambda method: None
        if not answer.done:
            # The last request reads back the manifest that the one before has written.
            assert manifests(store) == ([manifest.name] if number == requests - 1 else [])
        for name in manifests(store):
            verify(store, load(store, name))
        assert archived(log, store, SMALL) == manifest
        assert bucket.objects == contents(whole)
    assert {type(problem) for _, problem in failed} == {family}
    assert all("Nothing was deleted." in str(problem) for _, problem in failed)
    if not answer.done:
        assert [number for number, _ in failed] == first_ones


def test_a_bucket_that_does_not_answer_is_given_up_in_time(bucket: Bucket) -> None:
    bucket.otherwise = lambda method: Answer(200, "Late", wait_s=2.0)
    began = time.monotonic()
    with pytest.raises(StoreUnreachable):
        opened(bucket, patience=SHORT).put("a", b"1")
    assert time.monotonic() - began < FEW.request_s


def test_nobody_there_is_told_with_the_address() -> None:
    store = open_objects(parse("s3://kept/p?endpoint=http://127.0.0.1:9"), FEW)
    with pytest.raises(
        StoreUnreachable, match=r"s3://kept/p/a\?endpoint=http://127.0.0.1:9 could not be used"
    ):
        store.put("a", b"1")


# ---- who asks -------------------------------------------------------------------------------------------------------


def test_credentials_come_from_a_file_where_the_environment_has_none(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = FROMFILE\naws_secret_access_key = filesecret%1\n"
        "[other]\naws_access_key_id = OTHERFILE\naws_secret_access_key = othersecret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    opened(bucket).put("a", b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    opened(bucket).put("a", b"1")
    monkeypatch.setenv("AWS_PROFILE", "other")
    opened(bucket).put("a", b"1")
    assert [one.split("Credential=")[1].split("/")[0] for one in bucket.signed] == [
        ACCESS,
        "FROMFILE",
        "OTHERFILE",
    ]
    bucket.otherwise = lambda method: Answer(403, "AccessDenied", "OTHERFILE othersecret")
    with pytest.raises(StoreRefused) as problem:
        opened(bucket).put("a", b"1")
    assert "OTHERFILE" not in str(problem.value)
    assert "othersecret" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "can't be read"),
        ("[other]\nhidden = 1\n", r"has no section \[default\]"),
        ("aws_secret_access_key = hidden\n", "does not have the form"),
        ("[default]\naws_secret_access_key = hidden\n", "lacks a key"),
    ],
)
def test_a_credentials_file_that_is_none_is_refused_without_a_word_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, why: str
) -> None:
    file = tmp_path / "credentials"
    if text is not None:
        file.write_text(text)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(UsageError, match=why) as problem:
        open_objects(parse("s3://kept"))
    assert "hidden" not in str(problem.value)
    assert problem.value.__cause__ is None


def test_the_url_wins_over_the_environment_and_the_environment_over_nothing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    opened(bucket).put("a", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    open_objects(parse("s3://kept"), FEW).put("b", b"2")
    assert bucket.objects == {"a": b"1", "b": b"2"}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{SECRET}@host")
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL_S3") as problem:
        open_objects(parse("s3://kept"))
    assert_shows_no_secret(str(problem.value))


def test_without_credentials_nobody_waits_long_and_the_remedy_names_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreRefused, match=r"no credentials were found.*AWS_ACCESS_KEY_ID"):
        opened(bucket).put("a", b"1")
    assert bucket.asked == []
