"""What a new project may be called: its name is that of its package, its strategy and its distribution."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions
from typing import Final

from qmtl.foundation.common.errors import UsageError

MAX_PROJECT: Final = 60
_NAME: Final = re.compile("[a-z]([a-z0-9_]*[a-z0-9])?")
_RULE: Final = f"lower-case ASCII letters, digits and '_' are allowed, {MAX_PROJECT} at most, a letter first and no '_' last"
_FOLDERS: Final = frozenset({"build", "data", "dist", "tests"})
"""Folders that a project has beside its package."""


def require_project_name(name: str) -> str:
    """A name under which Python finds the project's package and nothing else.

    Raises:
        UsageError: it is none: not of these letters, a word of Python's, or the name of a module that is there already.
    """
    if len(name) > MAX_PROJECT or _NAME.fullmatch(name) is None:
        raise UsageError(f"NAME was {name[:80]!a}; {_RULE}.", _like(name))
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(
            f"NAME was {name!r}, which is a word of Python's own; a package can't be called so.",
            "Take another name.",
        )
    if name in sys.stdlib_module_names:
        raise UsageError(
            f"NAME was {name!r}, which is a module of Python's standard library; one of the two would hide the other.",
            "Take another name.",
        )
    if name in _FOLDERS:
        raise UsageError(
            f"NAME was {name!r}, which is a folder beside the package of a project.", "Take another name."
        )
    if name == "qmtl" or name in packages_distributions():
        raise UsageError(
            f"NAME was {name!r}, which is a package that is installed here; one of the two would hide the other.",
            "Take another name.",
        )
    return name


def _like(name: str) -> str:
    """A remedy with a name that is close to the one that was meant, if there is one."""
    near = re.sub("[^a-z0-9]+", "_", name.rpartition("/")[2].lower()).strip("_")
    where = " A place is said with --into." if "/" in name or not name.strip(".") else ""
    return (
        f"Say for example {near}." if _NAME.fullmatch(near) and len(near) <= MAX_PROJECT else "Rename it."
    ) + where
