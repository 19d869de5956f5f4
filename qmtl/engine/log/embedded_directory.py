"""How the directory of the embedded log is opened, and what its refusals mean."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from rocksdict import AccessType, DBRecoveryMode, Options, Rdict

from qmtl.engine.log.embedded_reached import NAME, known
from qmtl.engine.log.rocks import is_damage, is_locked, options
from qmtl.foundation.common.errors import LogLocked, LogUnreachable


def open_database(directory: Path, read_only: bool) -> Any:
    """The database of a log: held, or seen as a view while another process holds it.

    Raises:
        LogLocked: another process holds it.
        LogUnreachable: it can't be made or opened, or does not have all that was confirmed.
    """
    confirmed = known(directory)  # before it is opened: whom a view looks at goes on meanwhile
    db = _opened(directory, read_only)
    if read_only and db.latest_sequence_number() < confirmed:
        db.try_catch_up_with_primary()  # it may have missed a file that was replaced while it was opened
    if (found := db.latest_sequence_number()) < confirmed:
        db.close()
        if read_only:
            shutil.rmtree(view_directory(directory), ignore_errors=True)
        raise LogUnreachable(
            f"the embedded log in {directory} is damaged: it ends at change {found} of {confirmed} that were confirmed.",
            f"Bring its directory back from a copy; to go on without the rest, delete {directory / NAME}.",
        )
    return db


def _opened(directory: Path, read_only: bool) -> Any:
    if not read_only:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogUnreachable(
                f"the log directory {directory} can't be made: {error.strerror}.", "Choose another."
            ) from None
    elif not (directory / "CURRENT").exists():
        raise LogUnreachable(
            f"there is no embedded log in {directory}.", "Run `qmtl demo` first, or name another --log."
        )
    try:
        chosen = Options(raw_mode=True) if read_only else options()
        # A last record that is torn was never confirmed; a hole in front of others would drop what was.
        chosen.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
        # Named, as the options of an unnamed column family are taken from what the database was made with.
        families = {"default": chosen}
        if not read_only:
            return Rdict(str(directory), chosen, column_families=families)
        chosen.set_max_open_files(-1)
        view = AccessType.secondary(str(view_directory(directory)))
        return Rdict(str(directory), chosen, column_families=families, access_type=view)
    except Exception as error:  # rocksdict raises bare Exception, so its text is all there is to tell by
        if is_locked(error):
            raise LogLocked(
                f"the embedded log in {directory} is held by another process.",
                "Stop that process, read with `qmtl topic` or `qmtl state` meanwhile, or use another --state-dir.",
            ) from None
        remedy = "Bring its directory back from a copy." if is_damage(str(error)) else "Choose another."
        raise LogUnreachable(f"the embedded log in {directory} can't be opened: {error}.", remedy) from None


def view_directory(directory: Path) -> Path:
    """Where a view of this process keeps what it needs for itself."""
    return directory.with_name(f"{directory.name}.view-{os.getpid()}")
