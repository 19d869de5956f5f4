"""`qmtl data`: brings bars into a catalogue, from files and exchanges, and says what is there and what is missing."""

from __future__ import annotations

import click

from qmtl.interfaces.cli.data.binding import feed, fingerprint
from qmtl.interfaces.cli.data.fetching import fetch
from qmtl.interfaces.cli.data.files import import_, repair
from qmtl.interfaces.cli.data.looks import gaps, list_, log
from qmtl.interfaces.cli.data.polling import poll
from qmtl.interfaces.cli.data.verify import verify


@click.group()
def data() -> None:
    """Keep market data in a catalogue: every import is a commit, and a backtest bound to a commit reads the same bars for ever.

    Bars that are absent in the market stay absent. Needs the extra `data`; `fetch` needs the extra `edge` too.
    """


for one in (import_, fetch, list_, log, gaps, repair, verify, fingerprint, feed, poll):
    data.add_command(one)
