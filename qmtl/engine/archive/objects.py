"""The object store through obstore: a bucket of an S3-compatible store, a directory, or memory, behind the one port.

The only module that imports it, and so the one that a program loads only where it archives.
"""

from __future__ import annotations

import configparser
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, MemoryStore, S3Store

from qmtl.engine.archive.address import StoreAddress, endpoint_of
from qmtl.engine.archive.port import AGAIN
from qmtl.foundation.common.errors import (
    ArchiveAltered,
    ArchiveError,
    StoreMissing,
    StoreRefused,
    StoreUnreachable,
    UsageError,
)

if TYPE_CHECKING:
    from obstore.store import (
        ClientConfig,
        RetryConfig,
        S3Config,
    )  # forms of dictionaries, not there at run time

CREDENTIALS_FILE: Final = "AWS_SHARED_CREDENTIALS_FILE"
_IN_ENVIRONMENT: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_TOKEN",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
)
_REASON_CHARACTERS: Final = 300
_NO_RIGHT: Final = re.compile(r"\(os error (1|13|30)\)")  # EPERM, EACCES, EROFS
_REFUSED: Final = re.compile(
    r"status code: 40[13]\b"
)  # of a listing, for which the client has no class of its own
_METADATA: Final = re.compile(r"/latest/(api/token|meta-data/)")  # where a machine of AWS is told who it is

_Store: TypeAlias = S3Store | LocalStore | MemoryStore
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store may take.

    Attributes:
        request_s: one request, its body included.
        retries_s: from the first request on, after which none is repeated; so one call takes both together at most.
        retries: how often a request is repeated that met a server's failure, a lost connection or its time-out.
    """

    request_s: float = 60.0
    retries_s: float = 120.0
    retries: int = 8


USUAL: Final = Patience()


def _nothing() -> S3Config:
    return {}


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What proves who this is; nothing prints it."""

    given: S3Config = field(default_factory=_nothing, repr=False)
    secrets: Collection[str] = field(default=(), repr=False)

    def hidden(self, text: str) -> str:
        """The text without any of it."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


class Objects:
    """An object store of one of the kinds that obstore knows.

    Args:
        store: scoped to the bucket and the prefix, or to the directory.
        address: of the store; None for memory.
    """

    def __init__(
        self, store: _Store, address: StoreAddress | None, credentials: _Credentials | None = None
    ) -> None:
        self._store = store
        self._address = address
        self._credentials = credentials if credentials is not None else _Credentials()

    def __repr__(self) -> str:
        return f"Objects({self.url()!r})"

    def url(self, name: str = "") -> str:
        return self._address.url(name) if self._address is not None else f"memory:{name}"

    def put(self, name: str, data: bytes) -> None:
        try:
            # One request: an upload in parts that a death interrupts would leave parts that cost and that nobody sees.
            self._asked(lambda: self._store.put(name, data, use_multipart=False), name)
            if self._address is not None and not self._address.bucket:
                root = Path(self._address.path)
                self._asked(lambda: _settle(root, name), name)
        except FileNotFoundError:
            raise self._missing() from None

    def get(self, name: str, most_bytes: int) -> bytes:
        try:
            found = self._asked(lambda: self._store.get(name), name)
        except FileNotFoundError:
            raise ArchiveAltered(
                f"the object {self.url(name)} is not there.",
                AGAIN,
            ) from None
        size = found.meta["size"]
        if size > most_bytes:
            raise ArchiveAltered(
                f"the object {self.url(name)} was altered: it has {size} bytes; at most {most_bytes} were written.",
                AGAIN,
            )
        return self._asked(lambda: bytes(found.bytes()), name)

    def names(self, within: str = "") -> Iterator[str]:
        try:
            pages = iter(self._asked(lambda: self._store.list(within or None), ""))
            while (page := self._asked(lambda: next(pages, None), "")) is not None:
                yield from (one["path"] for one in page)
        except FileNotFoundError:
            raise self._missing() from None

    def _missing(self) -> StoreMissing:
        return StoreMissing(
            f"{self.url()} is not there.", "Create the bucket or directory, or name another one."
        )

    def _asked(self, call: Callable[[], T], name: str) -> T:
        """
        Raises:
            FileNotFoundError: the bucket is there, the object is not.
        """
        try:
            return call()
        except (BaseError, OSError, ValueError) as error:
            told = str(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in told:
                raise
            raise _coded(error, self._credentials.hidden(told), self.url(name), self.url()) from None


def open_objects(address: StoreAddress, patience: Patience = USUAL) -> Objects:
    """A store by its address; the bucket is asked only when it is used.

    Raises:
        StoreMissing: there is no such directory. It is not made, as a disk that is not mounted looks the same.
        StoreRefused, StoreUnreachable: the directory can't be looked at.
        UsageError: the environment, or the credentials file that it names, can't be used.
    """
    if not address.bucket:
        try:
            there = stat.S_ISDIR(os.stat(address.path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError as error:
            raise _coded(error, str(error), address.url(), address.url()) from None
        if not there:
            raise StoreMissing(
                f"{address.url()} is no directory.", "Make it, or mount the disk on which it lies."
            )
        return Objects(LocalStore(address.path), address)
    credentials = _credentials(os.environ)
    endpoint = address.endpoint or endpoint_of(os.environ)
    config: S3Config = {**credentials.given, "bucket": address.bucket}
    if address.region:
        config["region"] = address.region
    if endpoint:
        config["aws_endpoint_url_s3"] = endpoint  # the name that wins over all others
    client: ClientConfig = {
        "timeout": timedelta(seconds=patience.request_s),
        "allow_http": endpoint.startswith("http:"),
    }
    retry: RetryConfig = {
        "max_retries": patience.retries,
        "retry_timeout": timedelta(seconds=patience.retries_s),
    }
    store = S3Store(prefix=address.path or None, config=config, client_options=client, retry_config=retry)
    return Objects(store, address, credentials)


def in_memory() -> Objects:
    """A store that lasts as long as this value."""
    return Objects(MemoryStore(), None)


def _credentials(environment: Mapping[str, str]) -> _Credentials:
    """Of the environment, which the client reads itself, or else of the file."""
    known = {environment[name] for name in _IN_ENVIRONMENT if environment.get(name)}
    place = environment.get(CREDENTIALS_FILE, "")
    if not place or environment.get("AWS_ACCESS_KEY_ID"):
        return _Credentials(secrets=known)
    profile = environment.get("AWS_PROFILE") or "default"
    found = _read(Path(place), profile)
    given: S3Config = {}
    if key := found.get("aws_access_key_id"):
        given["access_key_id"] = key
    if secret := found.get("aws_secret_access_key"):
        given["secret_access_key"] = secret
    if token := found.get("aws_session_token"):
        given["session_token"] = token
    if not {"access_key_id", "secret_access_key"} <= set(given):
        raise UsageError(
            f"{CREDENTIALS_FILE} names {place}, of which section [{profile[:40]}] lacks a key.",
            "Give it aws_access_key_id and aws_secret_access_key, or set AWS_PROFILE.",
        )
    return _Credentials(given, known | set(found.values()))


def _read(path: Path, profile: str) -> Mapping[str, str]:
    """A section of a file in AWS's form. No message repeats a line of it."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        return dict(parser[profile])
    except KeyError:
        why = f"has no section [{profile[:40]}]"
    except configparser.Error:
        why = "does not have the form of such a file"
    except UnicodeDecodeError:
        why = "is no text"
    except OSError as error:
        why = f"can't be read: {error.strerror}"
    raise UsageError(
        f"{CREDENTIALS_FILE} names {path}, which {why}.",
        "It has sections as [default], with aws_access_key_id and aws_secret_access_key.",
    )


def _coded(error: Exception, told: str, where: str, store: str) -> ArchiveError:
    """What a failure means to who archives.

    Args:
        told: what the client says, with nothing secret in it.
        where, store: URLs of the object and of its store.
    """
    reason = _brief(told)
    if "NoSuchBucket" in told:
        return StoreMissing(f"{store} has no such bucket ({reason}).", "Create it, or name another one.")
    if _METADATA.search(told):
        return StoreRefused(
            f"{store} wants to know who asks, and no credentials were found ({reason}).",
            f"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {CREDENTIALS_FILE}.",
        )
    known = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    if known or _REFUSED.search(told) or _NO_RIGHT.search(told):
        return StoreRefused(
            f"{where} is not open to this client ({reason}).",
            "It has to read, write and list there; check whose credentials these are, and what they may.",
        )
    return StoreUnreachable(
        f"{where} could not be used ({reason}).",
        "Check address, region and endpoint, and that the store runs and has room; then try again.",
    )


def _brief(told: str) -> str:
    """The first words of what the client says: what follows is how it looks inside."""
    text = " ".join(told.split("\n\nDebug source")[0].split())
    return text if len(text) <= _REASON_CHARACTERS else text[: _REASON_CHARACTERS - 1] + "…"


def _settle(root: Path, name: str) -> None:
    """Wait until the disk has an object and every directory on the way to it: a topic may be deleted right after."""
    path = root / name
    for one in (path, *path.parents):
        place = os.open(one, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
        if one == root:
            return
