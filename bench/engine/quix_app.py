"""The workload on Quix Streams, exactly once: run by the Python of its own environment, which has none of our code.

`python quix_app.py JSON`, with bootstrap, group, source, out, state, commit_s, trade and snapshot (Avro schemas) and header.
"""

from __future__ import annotations

import io
import json
import sys
from decimal import Decimal
from typing import Any

import fastavro
from quixstreams import Application, State

HEADER_BYTES = 10


def plain(value: Decimal) -> str:
    """A decimal's text in normal form, as the workload writes it."""
    return format(value.normalize(), "f") if value else "0"


def main(told: dict[str, Any]) -> None:
    trade = fastavro.parse_schema(json.loads(told["trade"]))
    snapshot = fastavro.parse_schema(json.loads(told["snapshot"]))
    header = bytes.fromhex(told["header"])
    app = Application(
        broker_address=told["bootstrap"],
        consumer_group=told["group"],
        processing_guarantee="exactly-once",
        commit_interval=told["commit_s"],
        auto_offset_reset="earliest",
        auto_create_topics=True,
        state_dir=told["state"],
        producer_extra_config={
            "linger.ms": 5,
            "batch.size": 262144,
            "compression.type": "lz4",
            "retry.backoff.ms": 2,
        },
        consumer_extra_config={"fetch.wait.max.ms": 50},
        loglevel="WARNING",
    )

    def step(value: bytes, state: State) -> bytes:
        one: Any = fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), trade, None)
        quantity, cost, fees, fills = state.get("position", ("0", "0", "0", 0))
        price, moved = Decimal(one["price"]), Decimal(one["quantity"])
        if one["side"] == "SELL":
            moved = -moved
        held = (
            plain(Decimal(quantity) + moved),
            plain(Decimal(cost) + moved * price),
            plain(Decimal(fees) + Decimal(one["fee"])),
            fills + 1,
        )
        state.set("position", held)
        out = io.BytesIO()
        out.write(header)
        row = {
            "symbol": one["symbol"],
            "quantity": held[0],
            "cost": held[1],
            "fees": held[2],
            "mark": one["price"],
            "fills": held[3],
            "as_of_ms": one["fill_time_ms"],
        }
        fastavro.schemaless_writer(out, snapshot, row)
        return out.getvalue()

    source = app.topic(told["source"], key_deserializer="bytes", value_deserializer="bytes")
    out = app.topic(told["out"], key_serializer="bytes", value_serializer="bytes")
    app.dataframe(source).apply(step, stateful=True).to_topic(out)
    app.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
