"""Code that authors wrote, in the process of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def a_program() -> Iterator[None]:
    """What is imported here of packages named `trend…` or `my_…` is forgotten, and where it was found."""
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [one for one in sys.modules if one not in modules and one.startswith(("trend", "my_"))]:
            del sys.modules[name]
