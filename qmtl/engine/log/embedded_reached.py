"""How far the embedded log is known to have come: what RocksDB finds when it is opened again must reach as far.

RocksDB takes a damaged length in the last block of its write-ahead log for a record that a death has torn, and drops it with
all that comes behind it. But each change of the database has a sequence number, and a small file says the last one that was
confirmed. To note a commit is to write eight bytes that the system keeps, and they survive the death of the process as an unsynced
write-ahead log does. After the death of the machine the end of the write-ahead log may be gone and these bytes be there, so the
file has two numbers: one that the disk is known to hold, and one that counts in the same boot only.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

NAME: Final = "REACHED"
_MAGIC: Final = b"QMTLREA1"
_BOOT_BYTES: Final = 16
_NUMBERS_AT: Final = len(_MAGIC) + _BOOT_BYTES
_SIZE: Final = _NUMBERS_AT + 16
_LASTING, _LATEST = 0, 1
_NUMBER: Final = struct.Struct("=Q")
_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


def known(directory: Path) -> int:
    """The sequence number that the database in a directory has reached at least; 0 where nothing is known."""
    try:
        raw = (directory / NAME).read_bytes()
    except OSError:
        return 0
    if not _is_whole(raw):
        return 0
    numbers = memoryview(raw)[_NUMBERS_AT:].cast("Q")
    same_boot = raw[len(_MAGIC) : _NUMBERS_AT] == _boot() != bytes(_BOOT_BYTES)
    return max(numbers) if same_boot else numbers[_LASTING]


class Reached:
    """Keeps the file of a log that this process holds; where it can't be written, nothing is known the next time.

    Args:
        sequence: what the database has reached now. It lies on the disk, as RocksDB writes what it recovers before it is open.
        sync: a commit lies on the disk when it is noted.
    """

    def __init__(self, directory: Path, sequence: int, sync: bool) -> None:
        self._file = -1
        self._place = _NUMBERS_AT + _NUMBER.size * (_LASTING if sync else _LATEST)
        with suppress(OSError):
            file = directory / NAME
            if not file.exists() or not _is_whole(file.read_bytes()):
                _make(file)
            self._file = os.open(file, os.O_WRONLY)
            # The latest is no number of this boot before the boot is said.
            os.pwrite(self._file, _NUMBER.pack(sequence) + _NUMBER.pack(0), _NUMBERS_AT)
            os.pwrite(self._file, _boot(), len(_MAGIC))
            os.pwrite(self._file, _NUMBER.pack(sequence), _NUMBERS_AT + _NUMBER.size * _LATEST)

    def note(self, sequence: int) -> None:
        """The database has come as far: one write of eight bytes, which a death does not tear."""
        if self._file >= 0:
            with suppress(OSError):  # what is not known to be there is not asked for
                os.pwrite(self._file, _NUMBER.pack(sequence), self._place)

    def close(self) -> None:
        """Nothing more will be noted; a second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _is_whole(raw: bytes) -> bool:
    """What a dying machine left half written says nothing."""
    return len(raw) == _SIZE and raw.startswith(_MAGIC)


def _make(file: Path) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("wb") as out:
        out.write(_MAGIC + bytes(_SIZE - len(_MAGIC)))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)


def _boot() -> bytes:
    """Of this run of the machine; zeros where the system does not tell."""
    try:
        return blake3(_BOOT_FILE.read_bytes()).digest(_BOOT_BYTES)
    except OSError:
        return bytes(_BOOT_BYTES)
