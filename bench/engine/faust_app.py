"""The workload on faust-streaming, exactly once: run by the Python of its own environment, which has none of our code.

`python faust_app.py JSON`, with bootstrap, group, source, out, partitions, state, commit_s, trade and snapshot (Avro schemas)
and header. Its table is kept in memory, the faster of its stores.
"""

from __future__ import annotations

import io
import json
import sys
from decimal import Decimal
from typing import Any

import fastavro
import faust

HEADER_BYTES = 10


def plain(value: Decimal) -> str:
    """A decimal's text in normal form, as the workload writes it."""
    return format(value.normalize(), "f") if value else "0"


def make(told: dict[str, Any]) -> faust.App:
    """The application with its one agent."""
    trade = fastavro.parse_schema(json.loads(told["trade"]))
    snapshot = fastavro.parse_schema(json.loads(told["snapshot"]))
    header = bytes.fromhex(told["header"])
    app = faust.App(
        told["group"],
        broker=f"kafka://{told['bootstrap']}",
        store="memory://",
        datadir=told["state"],
        processing_guarantee="exactly_once",
        broker_commit_interval=told["commit_s"],
        topic_partitions=told["partitions"],
        topic_replication_factor=1,
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(
        told["source"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    out = app.topic(
        told["out"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    table = app.Table("positions", partitions=told["partitions"], default=lambda: ["0", "0", "0", 0])

    @app.agent(source)  # type: ignore[untyped-decorator] # the package carries no types
    async def step(stream: Any) -> None:
        async for key, value in stream.items():
            one: Any = fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), trade, None)
            symbol = one["symbol"]
            quantity, cost, fees, fills = table[symbol]
            price, moved = Decimal(one["price"]), Decimal(one["quantity"])
            if one["side"] == "SELL":
                moved = -moved
            held = [
                plain(Decimal(quantity) + moved),
                plain(Decimal(cost) + moved * price),
                plain(Decimal(fees) + Decimal(one["fee"])),
                fills + 1,
            ]
            table[symbol] = held
            body = io.BytesIO()
            body.write(header)
            row = {
                "symbol": symbol,
                "quantity": held[0],
                "cost": held[1],
                "fees": held[2],
                "mark": one["price"],
                "fills": held[3],
                "as_of_ms": one["fill_time_ms"],
            }
            fastavro.schemaless_writer(body, snapshot, row)
            await out.send(key=key, value=body.getvalue())

    return app


if __name__ == "__main__":
    app = make(json.loads(sys.argv[1]))
    faust.Worker(app, loglevel="WARNING", quiet=True).execute_from_commandline()
