"""Bytes that changed on a broker's disk: what can't be read is told, and never taken for what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.common.errors import LogError
from qmtl.testing.broker import start_broker
from tests.contract.driving import events, put, until

HEAD = 61
"""Bytes of a record batch before its records, which its checksum covers but for the first 21."""


@pytest.mark.broker
def test_a_batch_whose_bytes_have_changed_is_refused_by_name(tmp_path: Path) -> None:
    where = TopicPartition("a", 0)
    with start_broker(tmp_path / "broker") as broker:
        log = KafkaLog(broker.bootstrap, "damage.")
        log.ensure_topics([events("a", 1)])
        put(log, [(where, b"key", b"a value that was written")])
        put(log, [(where, b"key", b"another one")])
        log.close()
        broker.stop()  # in order: after a crash the broker itself cuts off what does not fit its checksum
        (segment,) = (tmp_path / "broker").rglob("damage.a-0/*.log")
        data = bytearray(segment.read_bytes())
        at = data.index(b"a value that")
        assert at > HEAD
        data[at] ^= 1
        segment.write_bytes(data)
        broker.start()
        log = KafkaLog(broker.bootstrap, "damage.")
        reader = log.reader()
        reader.assign({where: 0})
        found: list[bytes | None] = []
        told: list[str] = []

        def refused() -> bool:
            try:
                found.extend(one.value for one in reader.poll(100, 0.2))
            except LogError as error:
                told.append(error.what)
            return bool(told)

        until(refused)
        assert found == []
        assert "damage.a[0]" in told[0]
        reader.close()
        log.close()
