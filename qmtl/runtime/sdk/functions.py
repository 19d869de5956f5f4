"""Where the function of a Python node is found: by its import path in a package that the worker was told of, or among those that were registered
in this process; and held to its hash either way."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any, Final

from qmtl.foundation.common.code_identity import function_hash
from qmtl.foundation.common.errors import CodeDiffers, CodeMissing, QmtlError, UsageError
from qmtl.runtime.sdk.purity import require_compute_fn
from qmtl.runtime.sdk.python_node import ComputeFn

MAX_CODE: Final = 300
CODE_PATTERN: Final = (
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
)
CODE_RULE: Final = f"'package.module:function' in ASCII, of {MAX_CODE} characters at most, is required"
_PACKAGE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_SHOWN: Final = 200

_REGISTERED: Final[dict[str, ComputeFn]] = {}


def register(function: ComputeFn) -> str:
    """Let this process compute a function wherever it lies: for a run in the process that wrote it, and for tests.

    Returns:
        Its hash, by which it is found.

    Raises:
        InvalidStrategy: it is no compute function.
        NoCanonicalForm: it has no hash.
    """
    require_compute_fn(function, getattr(function, "__name__", "function"))
    code_hash = function_hash(function)
    _REGISTERED[code_hash] = function
    return code_hash


def code_path(function: Callable[..., Any]) -> str:
    """Where a function is found: `package.module:qualname`."""
    return f"{function.__module__}:{function.__qualname__}"


class Functions:
    """The functions that a worker may run.

    Args:
        packages: names of packages and modules that may be imported, with all that is in them. Importing runs their code, so nothing else
            is ever imported, whatever a message says.

    Raises:
        UsageError: a package that is no name of one.
    """

    def __init__(self, packages: Iterable[str] = ()) -> None:
        self.packages = tuple(dict.fromkeys(packages))
        for one in self.packages:
            if _PACKAGE.fullmatch(one) is None:
                raise UsageError(
                    f"--code was {one[:80]!r}; the name of a package or module is required.",
                    "Give for example --code my_strategies, once for each.",
                )
        self._found: dict[tuple[str, str], ComputeFn | QmtlError] = {}

    def find(self, codes: Sequence[str], code_hash: str) -> ComputeFn:
        """The function with a hash, registered or at one of these paths.

        Args:
            codes: where it may be; the first that has it counts.

        Raises:
            CodeMissing: none of them may or can be imported.
            CodeDiffers: one was found, and is another function.
        """
        registered = _REGISTERED.get(code_hash)
        if registered is not None:
            return registered
        refused: QmtlError | None = None
        for code in codes:
            found = self._look(code, code_hash)
            if not isinstance(found, QmtlError):
                return found
            refused = found if refused is None or isinstance(found, CodeDiffers) else refused
        raise refused or CodeMissing(
            f"the function {code_hash} is registered nowhere in this process.",
            "Register it, or publish it with its code.",
        )

    def _look(self, code: str, code_hash: str) -> ComputeFn | QmtlError:
        """Looked for once in a process: a module is imported once."""
        known = self._found.get((code, code_hash))
        if known is None:
            try:
                known = self._load(code, code_hash)
            except (CodeMissing, CodeDiffers) as refused:
                known = refused
            self._found[code, code_hash] = known
        return known

    def _load(self, code: str, code_hash: str) -> ComputeFn:
        module, _, qualname = code.partition(":")
        if not any(module == one or module.startswith(f"{one}.") for one in self.packages):
            told = ", ".join(self.packages) or "none"
            raise CodeMissing(
                f"the function {code} is in no package that this worker was told of ({told}).",
                f"Start the worker with --code {module.partition('.')[0]}, or QMTL_CODE, where that package is installed.",
            )
        try:
            found: object = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever a module of an author's does while it is imported
            raise CodeMissing(
                f"the module {module} of the function {code} could not be imported: {type(error).__name__} ({str(error)[:_SHOWN]}).",
                "Install it for the worker, in the version that was published.",
            ) from error
        for name in qualname.split("."):
            found = getattr(found, name, None)
        if not isinstance(found, FunctionType):
            raise CodeMissing(
                f"the module {module} has no function {qualname}.",
                "Install the version of it that was published.",
            )
        try:
            require_compute_fn(found, qualname)
            actual = function_hash(found)
        except QmtlError as refused:
            raise CodeDiffers(
                f"the function {code} is another one than that which was published: {refused.what}",
                "Install the version of it that was published, or publish the strategy again.",
            ) from refused
        if actual != code_hash:
            here = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise CodeDiffers(
                f"the function {code} has the hash {actual}, and {code_hash} was published.",
                f"Install the version of it that was published, for Python {here} too, or publish the strategy again.",
            )
        return found
