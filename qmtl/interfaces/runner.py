"""How an author runs a strategy from Python."""

from __future__ import annotations

from qmtl.backtest.simulation import DEFAULT_TERMS, Progress, Terms
from qmtl.foundation.common.errors import InvalidStrategy
from qmtl.interfaces.offline import Backtested, Data, run_offline
from qmtl.runtime.performance.kpi import Convention
from qmtl.runtime.sdk.strategy import Strategy


class Runner:
    """Runs strategies. There is no flag that says how: what a strategy may do is said by the world in which it runs, and offline there is none."""

    @staticmethod
    def offline(
        strategy: Strategy | type[Strategy] | bytes,
        *,
        data: Data = (),
        start: int | str | None = None,
        end: int | str | None = None,
        as_of: int | str | None = None,
        interval: int | str | None = None,
        terms: Terms = DEFAULT_TERMS,
        convention: Convention | None = None,
        progress: Progress | None = None,
    ) -> Backtested:
        """Run a strategy over bars in this process, without a log, a broker or a gateway.

        Args:
            strategy: an object or a class of one, or a DAG message.
            data: `SYMBOL=FILE` for each symbol (CSV or Parquet), the directory of a catalogue, or columns by symbol; nothing for the bars that
                come with QMTL. Symbols that the strategy does not read are left out.
            start, end: the bars that open from `start` on and before `end`; epoch ms, or ISO 8601, in UTC where it has no offset.
            as_of: a commit of the catalogue by number or digest; None for the newest.
            interval: of the bars, seconds or a text such as `1m`; of a strategy without one, too. None for what strategy and data say.
            terms: cash, fees, slippage and limits of orders.
            convention: of the figures.
            progress: told how far it is.

        Raises:
            InvalidDag: the strategy is refused.
            InvalidBarsFile, InvalidBar, ConflictingBars, NotInCatalogue: the data are; with file and line.
            UsageError, InvalidValue, CommandRefused: what else was said is.
        """
        if isinstance(strategy, str):
            raise InvalidStrategy(
                "a strategy was a text; a Strategy or a DAG message is required.",
                "Load it with qmtl.runtime.sdk.loading.load_strategy, or run `qmtl backtest`.",
            )
        return run_offline(strategy, data, start, end, as_of, interval, terms, convention, progress)
