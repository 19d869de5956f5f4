"""What RocksDB needs and says: its options, and what its errors mean, which have no types and only texts."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Final

from rocksdict import Options

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IO_ERROR: Final = "IO error: "
_DAMAGE: Final = ("Corruption: ", "Invalid argument: ", "Not implemented: ", "NotFound: ")
_PROBE_BYTES: Final = 1 << 18


def options(write_buffer_mb: int = 16) -> Options:
    """RocksDB settings that keep the memory of a small process small."""
    chosen = Options(raw_mode=True)
    chosen.create_if_missing(True)
    chosen.set_write_buffer_size(write_buffer_mb << 20)
    chosen.set_max_write_buffer_number(2)
    chosen.set_keep_log_file_num(2)
    chosen.set_max_total_wal_size(64 << 20)
    return chosen


def is_locked(error: Exception) -> bool:
    """Whether RocksDB says that somebody holds its directory; "block checksum mismatch" is another matter."""
    return is_held_here(error) or "while lock file" in str(error).lower()


def is_held_here(error: Exception) -> bool:
    """Whether it is this process that holds it."""
    return "lock hold by current process" in str(error).lower()


def is_damage(text: str) -> bool:
    """Whether RocksDB says that files are not what it wrote, or are missing.

    Anything else that the system refuses (descriptors, memory, rights, the device) says nothing about what is in the files; it may
    stand inside of what RocksDB calls a corruption.
    """
    if _IO_ERROR in text:
        return os.strerror(errno.ENOENT) in text
    return text.startswith(_DAMAGE)


def is_full(error: Exception) -> bool:
    """Whether there was no room on the disk for what was to be written, or less than the process may use."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    text = str(error)
    return any(os.strerror(number) in text for number in _NO_ROOM)


def damage_after(db: Any, last: bytes) -> str | None:
    """Why an iteration ended behind the key `last`: None at the true end.

    RocksDB's iterator ends in front of a block that it can't read as it does behind the last key.
    """
    try:
        probe = db.iter()
        probe.seek(last)
        if probe.valid():
            probe.next()
        probe.status()
    except Exception as error:  # rocksdict raises bare Exception
        return str(error)
    return None


def has_room(directory: Path) -> bool:
    """Whether a file of some size can be written there now."""
    probe = directory / f"room-{os.getpid()}"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
