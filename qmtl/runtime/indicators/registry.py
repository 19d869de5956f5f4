"""The built-in node types by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qmtl.foundation.common.errors import UnknownNodeType
from qmtl.foundation.common.identity import builtin_code_hash
from qmtl.foundation.contracts import dag
from qmtl.runtime.indicators.builtin import Builtin
from qmtl.runtime.indicators.columnar import Columnar
from qmtl.runtime.indicators.combine import COMBINE, LINEAR
from qmtl.runtime.indicators.cross import Cross
from qmtl.runtime.indicators.ema import EMA, MACD
from qmtl.runtime.indicators.moments import BOLLINGER, CORRELATION, STD, WMA, ZSCORE
from qmtl.runtime.indicators.order import MAX, MIN, QUANTILE
from qmtl.runtime.indicators.price import Price
from qmtl.runtime.indicators.resample import RESAMPLE
from qmtl.runtime.indicators.returns import RETURNS
from qmtl.runtime.indicators.sma import Sma
from qmtl.runtime.indicators.tag_query import TagQuery
from qmtl.runtime.indicators.target import Target
from qmtl.runtime.indicators.threshold import THRESHOLD
from qmtl.runtime.indicators.vwap import VWAP
from qmtl.runtime.indicators.wilder import ATR, RSI

_COLUMNAR: tuple[Columnar, ...] = (
    Price(),
    Sma(),
    Cross(),
    Target(),
    EMA,
    WMA,
    MACD,
    RSI,
    ATR,
    BOLLINGER,
    STD,
    ZSCORE,
    CORRELATION,
    MIN,
    MAX,
    QUANTILE,
    RETURNS,
    VWAP,
    RESAMPLE,
    THRESHOLD,
    COMBINE,
    LINEAR,
)
_ALL: tuple[Builtin, ...] = (*_COLUMNAR, TagQuery())

BUILTINS: Mapping[str, Builtin] = MappingProxyType({builtin.name: builtin for builtin in _ALL})
"""Every built-in node by its `node_type`."""

COLUMNAR: Mapping[str, Columnar] = MappingProxyType({builtin.name: builtin for builtin in _COLUMNAR})
"""Those that compute in columns, too: all save the tag query, whose inputs come and go."""

SOURCE = "price"
"""The `node_type` of a source, which reads bars instead of other nodes."""

TAG_QUERY = dag.TAG_QUERY
"""The `node_type` of a tag query, which reads whatever nodes answer it, and has no ports for them."""


def builtin(node_type: str) -> Builtin:
    """The built-in node of a type.

    Raises:
        UnknownNodeType: none of that name.
    """
    found = BUILTINS.get(node_type)
    if found is None:
        raise UnknownNodeType(
            f"node_type was {node_type[:80]!r}; the built-in types are {', '.join(BUILTINS)}.",
            "Choose one of them.",
        )
    return found


def code_hash(node_type: str) -> str:
    """The code hash of a built-in node: of its name and version.

    Raises:
        UnknownNodeType: none of that name.
    """
    found = builtin(node_type)
    return builtin_code_hash(found.name, found.version)
