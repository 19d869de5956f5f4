"""A file that a command was told to write."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file, in place of one that is there.

    Raises:
        UsageError: it can't be written.
    """
    from qmtl.foundation.common.errors import UsageError

    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"--out was {str(path)!r}, which can't be written: {error.strerror}.", "Name another file."
        ) from None
