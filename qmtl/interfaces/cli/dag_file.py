"""A DAG message from a file."""

from __future__ import annotations

from pathlib import Path


def read_dag(file: Path) -> bytes:
    """The bytes of a DAG message; of one that is too long one byte more than allowed, so that its size is told and not believed.

    Raises:
        InvalidDag: the file can't be read.
    """
    from qmtl.foundation.common.errors import InvalidDag
    from qmtl.services.dagmanager.raw import MAX_BYTES

    try:
        with file.open("rb") as source:
            return source.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidDag(
            f"the DAG message {file} can't be read: {error.strerror}.", "Name another file."
        ) from None
