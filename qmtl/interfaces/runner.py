"""How an author runs a strategy from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qmtl.backtest.simulation import DEFAULT_TERMS, Progress, Terms
from qmtl.foundation.common.errors import InvalidStrategy
from qmtl.interfaces.offline import Backtested, Data, run_offline
from qmtl.runtime.performance.kpi import Convention
from qmtl.runtime.sdk.strategy import Strategy

if TYPE_CHECKING:
    from qmtl.interfaces.running.events import Refused, RunEvent, Stopped
    from qmtl.interfaces.running.run import RunOptions


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

        A node whose function fails gives nothing from there on, as on a log; `faults` of what is returned says which and why.

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
            CodeMissing, CodeDiffers: a function of a DAG message is not in this process, or another one is.
            InvalidBarsFile, InvalidBar, ConflictingBars, NotInCatalogue: the data are; with file and line.
            UsageError, InvalidValue, CommandRefused: what else was said is.
        """
        _require_strategy(strategy, "qmtl backtest")
        return run_offline(strategy, data, start, end, as_of, interval, terms, convention, progress)

    @staticmethod
    def run(
        strategy: Strategy | type[Strategy] | bytes,
        *,
        world_id: str,
        gateway_url: str | Path,
        on_event: Callable[[RunEvent], object],
        options: RunOptions | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Stopped | Refused:
        """Run a strategy in a world: publish it, unless it was, and tell what becomes of it until Ctrl-C, SIGTERM or `stopped`.

        It follows what the world says: an activation switches the order gate that is shown, and nothing else. Nodes are computed and orders are
        let through by the workers of the log; what is deployed goes on when this ends. `qmtl.interfaces.running.run.follow` gives the same events one by one.

        Args:
            strategy: an object or a class of one, or a DAG message.
            gateway_url: `kafka://HOST:PORT[/NAMESPACE]`, or the directory of an embedded log, whose processors then run in this process.
            on_event: called with each event, one of `qmtl.interfaces.running.events.RunEvent`; the last is `Stopped`.
            options: the context, bars to be fed, and what else there is.
            stopped: asked several times a second; True ends the run. Outside the main thread nothing else does.

        Returns: why it ended: what was refused, with all reasons, where that is why.

        Raises:
            NoGateway, UsageError: an address of HTTP, for which there is no gateway yet, or of no log.
            NoAnswer, LogError: nobody answered, or the log failed.
        """
        from qmtl.interfaces.running.run import NOTHING_MORE, run

        _require_strategy(strategy, "qmtl strategy run")
        return run(strategy, world_id, gateway_url, on_event, options or NOTHING_MORE, stopped)


def _require_strategy(strategy: object, verb: str) -> None:
    if isinstance(strategy, str):
        raise InvalidStrategy(
            "a strategy was a text; a Strategy or a DAG message is required.",
            f"Load it with qmtl.runtime.sdk.loading.load_strategy, or run `{verb}`.",
        )
