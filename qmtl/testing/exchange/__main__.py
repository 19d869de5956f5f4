"""`python -m qmtl.testing.exchange --port 0 --ledger FILE --price BTC-USDT=100`: the fake exchange until it is ended."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from threading import Thread

from qmtl.foundation.common.errors import QmtlError
from qmtl.foundation.common.money import parse_decimal
from qmtl.testing.exchange.book import Book
from qmtl.testing.exchange.ledger import Ledger
from qmtl.testing.exchange.process import KEY, SECRET
from qmtl.testing.exchange.server import Exchange, Server
from qmtl.testing.exchange.values import listed


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m qmtl.testing.exchange", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument(
        "--ledger", type=Path, required=True, help="what it writes down; what is there goes on"
    )
    parser.add_argument(
        "--price", action="append", required=True, help="BTC-USDT=100[,LEAST,MOST,STEP]; repeatable"
    )
    parser.add_argument(
        "--balance", action="append", default=[], help="USDT=1000: no more than that; repeatable"
    )
    parser.add_argument("--key", default=KEY, help="of the one account; it guards nothing")
    parser.add_argument("--secret", default=SECRET)
    parser.add_argument("--guarded", action="store_true", help="end when standard input ends")
    given = parser.parse_args(words)
    try:
        markets = [listed(one) for one in given.price]
        deposits = {
            asset: parse_decimal(amount, "balance")
            for asset, _, amount in (one.partition("=") for one in given.balance)
        }
    except QmtlError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    book = Book({one.symbol: one for one in markets}, deposits)
    exchange = Exchange(book, Ledger(given.ledger), given.key, given.secret)
    server = Server(exchange, given.port)
    # What is not on the disk was told to nobody: there is nothing to tidy up.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    if given.guarded:
        Thread(target=_watched, daemon=True).start()
    port = server.server_address[1]
    ready = {
        "address": f"http://127.0.0.1:{port}",
        "port": port,
        "pid": os.getpid(),
        "ledger": str(given.ledger),
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.5)
    return 0


def _watched() -> None:
    """The pipe ends when the process that started this one has ended, however it did."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
