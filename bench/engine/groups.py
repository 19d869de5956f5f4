"""How long tasks are nobody's: from the end of a worker to the moment at which somebody has its tasks, by both group protocols.

Two members share four tasks. One is killed and started again in its slot, or killed and not started again, or ends as it
should; what counts is when all four tasks have an owner again. The protocol whose session the broker decides has it set to the
classic one's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from bench.engine.gauge import PATIENCE_S, Child, Failed, role, started
from qmtl.bootstrap import open_log
from qmtl.engine.log.kafka_settings import DEFAULTS, GROUP_PROTOCOLS, GroupProtocol
from qmtl.foundation.wire.topics import Cleanup, TopicSpec

TASKS: Final = 4
LOOK_S: Final = 0.005
ENDINGS: Final = ("killed and started again", "killed", "ended")


def anchor(run: str) -> TopicSpec:
    """The topic whose partitions are the tasks."""
    return TopicSpec(f"{run}anchor", (), (), (), Cleanup.DELETE, "bench", partitions=TASKS)


def measure(
    bootstrap: str,
    prefix: str,
    rounds: int,
    say: Callable[[str], None],
    protocols: Sequence[GroupProtocol] = GROUP_PROTOCOLS,
    endings: Sequence[str] = ENDINGS,
) -> list[dict[str, Any]]:
    """Seconds without an owner, per protocol and ending, one per round.

    Raises:
        Failed: the tasks found no owner.
    """
    out = []
    for protocol in protocols:
        for ending in endings:
            found = [
                _once(
                    bootstrap,
                    f"{prefix}groups-{protocol}-{ENDINGS.index(ending)}-{number}.",
                    protocol,
                    ending,
                )
                for number in range(rounds)
            ]
            out.append(
                {
                    "protocol": protocol,
                    "ending": ending,
                    "session_ms": DEFAULTS.session_timeout_ms,
                    "seconds": found,
                    "median": statistics.median(found),
                }
            )
            say(f"groups: {protocol:<8} {ending:<24} {statistics.median(found):6.2f} s")
    return out


def _once(bootstrap: str, run: str, protocol: GroupProtocol, ending: str) -> float:
    address = f"kafka://{bootstrap}"
    log = open_log(address)
    log.ensure_topics([anchor(run)])
    log.close()
    if protocol == "consumer":
        _set_session(bootstrap, f"{run}group", DEFAULTS.session_timeout_ms)
    told = {"log": address, "run": run, "protocol": protocol}
    with ExitStack() as stack:
        members = [stack.enter_context(started(role("member", slot=slot, **told), slot)) for slot in "ab"]
        _until_owned(members)
        first, *others = members
        since = time.time()
        if ending == "ended":
            first.stop()
        else:
            first.kill()
        if ending == "killed and started again":
            others.append(stack.enter_context(started(role("member", slot="a", **told), "a again")))
        return max(0.0, _until_owned(others, since) - since)


def _until_owned(members: list[Child], since: float = 0.0) -> float:
    """Wait until all tasks have one owner each, of whom the last was told after `since`; when that was."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        facts = [facts[-1] for one in members if (facts := one.facts())]
        owned = [number for fact in facts for number in fact["tasks"]]
        last = max((fact["at"] for fact in facts), default=0.0)
        if sorted(owned) == list(range(TASKS)) and len(facts) == len(members) and last > since:
            return last
        for one in members:
            one.require_alive()
        time.sleep(LOOK_S)
    raise Failed("the tasks of a group found no owner")


def _set_session(bootstrap: str, group: str, session_ms: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    entry = ConfigEntry(
        "consumer.session.timeout.ms", str(session_ms), incremental_operation=AlterConfigOpType.SET
    )
    asked = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([asked]).values():
        done.result()
