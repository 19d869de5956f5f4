"""Where an archive lies: one URL in which nothing secret stands, so that it can be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from qmtl.engine.archive.manifest import is_manifest
from qmtl.foundation.common.errors import UsageError

FORMS: Final = "s3://BUCKET[/PREFIX][?region=REGION&endpoint=URL], file:///DIR or file:DIR"
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_SEGMENT: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._=-]{1,249}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_ENDPOINT: Final = re.compile(r"https?://(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?")
_MANIFEST_SEGMENTS: Final = 3
_HOME: Final = "Credentials come from the environment or the file that AWS_SHARED_CREDENTIALS_FILE names, never from here."


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A place in a bucket of an S3-compatible store, or a directory.

    Attributes:
        bucket: empty for a directory.
        path: the prefix in the bucket, without slashes around it; or the directory.
        region, endpoint: empty where the environment or the store's usual says it.
    """

    bucket: str
    path: str
    region: str = ""
    endpoint: str = ""

    def url(self, name: str = "") -> str:
        """Of an object, or of the store itself; `parse` takes it back."""
        path = self.path
        if name:
            path = f"{path.rstrip('/')}/{name}" if path else name
        if not self.bucket:
            path = quote(path)
            return f"file://{path}" if path.startswith("/") else f"file:{path}"
        said = [
            (key, value) for key, value in (("region", self.region), ("endpoint", self.endpoint)) if value
        ]
        query = f"?{urlencode(said, safe=':/')}" if said else ""
        return f"s3://{self.bucket}{'/' if path else ''}{path}{query}"


def parse(text: str) -> StoreAddress:
    """The place that a URL names.

    Raises:
        UsageError: naming the part that is wrong; no text of the URL is repeated, as it may hold what somebody took for the
            place of a password.
    """
    try:
        parts = urlsplit(text)
        secret = parts.username is not None or parts.password is not None
    except ValueError:
        raise _refused("it is no URL") from None
    if secret:
        raise _refused("it has a user or a password")
    if parts.fragment:
        raise _refused("it has a part behind '#'")
    if parts.scheme == "file":
        return _directory(parts)
    if parts.scheme == "s3":
        return _bucket(parts)
    raise _refused("it begins with neither s3: nor file:")


def parse_manifest(text: str) -> tuple[StoreAddress, str]:
    """The store of a manifest's URL and the manifest's name; the name is empty where the URL names a store.

    Raises:
        UsageError: as `parse`.
    """
    address = parse(text)
    segments = address.path.split("/")
    name = "/".join(segments[-_MANIFEST_SEGMENTS:])
    if not is_manifest(name):
        return address, ""
    path = "/".join(segments[:-_MANIFEST_SEGMENTS])
    if not address.bucket and not path:
        path = "/" if len(segments) > _MANIFEST_SEGMENTS else "."
    return StoreAddress(address.bucket, path, address.region, address.endpoint), name


def endpoint_of(environment: Mapping[str, str]) -> str:
    """The endpoint that the environment says, by the names that AWS gives it; empty where it says none.

    Raises:
        UsageError: it is no URL of a host.
    """
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        if found := environment.get(variable, ""):
            if _ENDPOINT.fullmatch(found) is None:
                raise UsageError(
                    f"{variable} was a text of {len(found)} characters; it has the form http(s)://HOST[:PORT].",
                    "Give the store's own address, without a user.",
                )
            return found
    return ""


def _directory(parts: SplitResult) -> StoreAddress:
    path = unquote(parts.path)
    if parts.netloc:
        raise _refused("it names a host; a directory has three slashes (file:///DIR)")
    if parts.query:
        raise _refused("it has a query, which a directory has not")
    if not path or "\0" in path:
        raise _refused("it names no directory")
    return StoreAddress("", path.rstrip("/") or "/")


def _bucket(parts: SplitResult) -> StoreAddress:
    path = parts.path.strip("/")
    if _BUCKET.fullmatch(parts.netloc) is None:
        raise _refused("its bucket is none: letters, digits, '.', '_' and '-', 3 to 63 in all")
    if path and not all(_SEGMENT.fullmatch(one) for one in path.split("/")):
        raise _refused("its prefix has other characters than letters, digits, '.', '_', '-', '=' and '/'")
    fields = parse_qsl(parts.query, keep_blank_values=True)
    said = dict(fields)
    if len(said) != len(fields) or not set(said) <= {"region", "endpoint"}:
        raise _refused("its query has more than one region and one endpoint")
    region, endpoint = said.get("region", ""), said.get("endpoint", "")
    if "region" in said and _REGION.fullmatch(region) is None:
        raise _refused("its region is none: small letters, digits and '-'")
    if "endpoint" in said and _ENDPOINT.fullmatch(endpoint) is None:
        raise _refused("its endpoint has not the form http(s)://HOST[:PORT]")
    return StoreAddress(parts.netloc, path, region, endpoint)


def _refused(why: str) -> UsageError:
    return UsageError(f"the URL of an archive can't be used: {why}.", f"It has the form {FORMS}. {_HOME}")
