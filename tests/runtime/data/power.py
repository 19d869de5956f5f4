"""What a disk has after a loss of power: what was made durable, and of the rest nothing, or names without contents."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Image = dict[str, bytes | None]
"""Files by their path below a root; None for a directory."""


class Disk:
    """Watches what is made durable below a root, which is durable itself, and tells what a loss of power would leave after each change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[Image] = []
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}

    def settle(self) -> None:
        """All that is there is durable."""
        for path in [self.root, *self.root.rglob("*")]:
            handle = os.open(path, os.O_RDONLY)
            self._durable(handle)
            os.close(handle)

    @contextmanager
    def watched(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        with patch.context() as patched:
            for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
                patched.setattr(os, name, self._watching(name, getattr(os, name)))
            yield

    def now(self) -> tuple[Image, Image]:
        """What a loss of power would leave now, where the disk is late with names, and where it is late with contents."""
        return self._names_late(), self._contents_late()

    def _watching(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **more: Any) -> Any:
            gone = os.stat(args[0]).st_ino if name == "unlink" and os.path.exists(args[0]) else None
            answer = call(*args, **more)
            if gone is not None:  # another file may get its number
                self._contents.pop(gone, None)
            if name == "fsync":
                self._durable(args[0])
            self._taken()
            return answer

        return done

    def _durable(self, handle: int) -> None:
        about, path = os.fstat(handle), Path(os.readlink(f"/proc/self/fd/{handle}"))
        if stat.S_ISDIR(about.st_mode):
            self._names[about.st_ino] = {
                one.name: (one.stat().st_ino, one.is_dir()) for one in path.iterdir()
            }
        else:
            self._contents[about.st_ino] = path.read_bytes()

    def _taken(self) -> None:
        for image in self.now():
            if image not in self.images:
                self.images.append(image)

    def _names_late(self) -> Image:
        """Only what was made durable, name by name."""
        found: Image = {}

        def walk(number: int, above: str) -> None:
            for name, (other, is_directory) in sorted(self._names.get(number, {}).items()):
                found[above + name] = None if is_directory else self._contents.get(other, b"")
                if is_directory:
                    walk(other, f"{above}{name}/")

        walk(self.root.stat().st_ino, "")
        return found

    def _contents_late(self) -> Image:
        """All names, with the contents that were made durable: a disk may write the names first."""
        return {
            str(path.relative_to(self.root)): None
            if path.is_dir()
            else self._contents.get(path.stat().st_ino, b"")
            for path in sorted(self.root.rglob("*"))
        }


def written(image: Image, place: Path) -> Path:
    """The image as a directory."""
    place.mkdir()
    for name, data in image.items():
        if data is None:
            (place / name).mkdir(parents=True, exist_ok=True)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
    return place
