"""What people may call things: one rule for names and tags, so that no name is a path, a pattern or a look-alike of another."""

from __future__ import annotations

import re
from typing import Final

NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
"""ASCII letters, digits, `_`, `-` and single inner points. A leading `-` would be an option, `..` a way out of a folder; letters
beyond ASCII look like others; `|`, `:` and NUL separate fields elsewhere."""

NAME_RULE: Final = "ASCII letters, digits, '_', '-' and single points between them are allowed"

MAX_NAME: Final = 200
MAX_TAG: Final = 100

_SAME_LOOK: Final = str.maketrans(".-", "__")
_NAME: Final = re.compile(NAME_PATTERN.removesuffix("$"))


def is_name(text: object, longest: int = MAX_NAME) -> bool:
    """Whether a value is a text that may name something.

    Args:
        longest: characters; `MAX_TAG` for a tag.
    """
    return isinstance(text, str) and 0 < len(text) <= longest and _NAME.fullmatch(text) is not None


def look(name: str) -> str:
    """What a name looks like: brokers and people take two names of one look for each other. Case makes no difference in it, nor
    do `.`, `_` and `-`."""
    return name.lower().translate(_SAME_LOOK)
