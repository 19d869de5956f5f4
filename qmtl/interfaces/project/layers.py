"""The layers of which a new project is made, and the files that a choice of them gives."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from qmtl import __version__
from qmtl.foundation.common.errors import UsageError

_WHOLE: Final = ".template"
_PART: Final = ".part"
_DAY: Final = range(1_522_886_400_000, 1_522_972_800_000)
"""2018-04-05 (UTC), the first whole day of the bars that come with QMTL."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A choice of whole files. A later layer's file replaces one of the same path.

    Attributes:
        about: what it brings, for a list.
        needs: layers without which its files make no sense.
        carried: files that are made of what QMTL carries anyway, by path.
    """

    name: str
    about: str
    needs: tuple[str, ...] = ()
    carried: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)


def _bars() -> bytes:
    """A day of the bars that come with QMTL, as plain CSV."""
    packed = files("qmtl.runtime.data").joinpath("market", "coinbase_btc-usd_1m_2018-04-04_06.csv.gz")
    head, *rows = gzip.decompress(packed.read_bytes()).splitlines(keepends=True)
    return b"".join([head, *(row for row in rows if int(row.partition(b",")[0]) in _DAY)])


def _settings() -> bytes:
    return files("qmtl.examples").joinpath("qmtl.yml").read_bytes()


LAYERS: Final = (
    Layer("minimal", "a strategy of built-in nodes, its package, its README"),
    Layer("python", "the strategy with functions of its own instead", ("minimal",)),
    Layer("data", "a day of real bars", ("minimal",), {"data/btc-usd_1m.csv": _bars}),
    Layer("config", "qmtl.yml, every field explained", ("minimal",), {"qmtl.yml": _settings}),
    Layer("tests", "tests of the strategy over the bars", ("minimal", "data")),
    Layer("ci", "a workflow that runs the tests on every push", ("tests",)),
)
"""In the order in which they are laid."""

_BY_NAME: Final = {one.name: one for one in LAYERS}


def chosen(names: Sequence[str]) -> tuple[Layer, ...]:
    """The layers of these names with all that they need, in the order of `LAYERS`, whatever the order of the names; of none all of them.

    Raises:
        UsageError: a name that no layer has.
    """
    wanted: dict[str, None] = {}
    left = list(names) or list(_BY_NAME)
    for name in left:  # grows while it is read
        if name not in _BY_NAME:
            raise UsageError(
                f"--template was {name[:80]!r}; there are {', '.join(_BY_NAME)}.",
                "`qmtl project layers` says what each of them brings.",
            )
        if name not in wanted:
            wanted[name] = None
            left += _BY_NAME[name].needs
    return tuple([one for one in LAYERS if one.name in wanted])


def contents(layers: Iterable[Layer], project: str) -> dict[str, bytes]:
    """The files of a new project by their paths, sorted: the same bytes for the same layers and name, on any machine.

    A template of a layer is a whole file; what is in its folder `LAYER+OTHER` comes where OTHER is chosen too. A part of a layer is put
    behind the parts of those before it.

    Args:
        project: the name of the project, and of its package.
    """
    layers = tuple(layers)
    names = {one.name for one in layers}
    made: dict[str, bytes] = {}
    for layer in layers:
        for path, data in _templates(layer, names):
            text = _filled(data, project)
            path = path.replace("@name@", project)
            if path.endswith(_PART):
                path = path.removesuffix(_PART)
                made[path] = made.get(path, b"") + text
            else:
                made[path.removesuffix(_WHOLE)] = text
        for path, make in layer.carried.items():
            made[path] = make()
    return dict(sorted(made.items()))


def paths_of(layer: Layer) -> tuple[str, ...]:
    """What a layer brings, for a list: paths with NAME for the project's, whatever else is chosen."""
    found = [path for path, _ in _templates(layer, set(_BY_NAME))]
    shown = [
        path.removesuffix(_PART).removesuffix(_WHOLE).replace("@name@", "NAME")
        for path in (*found, *layer.carried)
    ]
    return tuple(sorted(set(shown)))


def _templates(layer: Layer, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    root = files("qmtl.interfaces.project").joinpath("templates")
    for folder in (layer.name, *(f"{layer.name}+{other}" for other in sorted(names))):
        place = root.joinpath(folder)
        if place.is_dir():
            yield from _walked(place, "")


def _walked(place: Traversable, before: str) -> Iterator[tuple[str, bytes]]:
    for one in sorted(place.iterdir(), key=lambda found: found.name):
        if one.is_dir():
            yield from _walked(one, f"{before}{one.name}/")
        elif one.name.endswith((_WHOLE, _PART)):
            yield before + one.name, one.read_bytes()


def _filled(data: bytes, project: str) -> bytes:
    return data.replace(b"@name@", project.encode()).replace(b"@version@", __version__.encode())
