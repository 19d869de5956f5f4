"""Files that a command was told to write: whole, or not there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmtl.foundation.common.errors import UsageError


def write(path: Path, content: bytes) -> None:
    """Write a file, in place of one that is there.

    Raises:
        UsageError: it can't be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> UsageError:
    """The error of a file that could not be written. What there is of it is removed: half a file looks like a whole one."""
    from qmtl.foundation.common.errors import UsageError

    with suppress(OSError):
        if path.is_file():  # no device
            path.unlink()
    return UsageError(
        f"{path} can't be written: {error.strerror}.", "Make room there, or name another place with --out."
    )
