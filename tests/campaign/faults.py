"""The faults of the campaign, each a function that does its harm to a running trial and heals it again."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Final

from confluent_kafka import Producer

from qmtl.engine.failpoint import POINTS
from qmtl.testing.broker import Broker
from qmtl.testing.proxy import Api, Network
from tests.campaign.crew import Slot
from tests.campaign.trial import Fault, Trial, Undone

RESTORES: Final = ("inside_restore", "after_restore")
OUTAGE: Final = frozenset({"LogError", "LogUnreachable", "UnknownTopic", "Fenced"})
"""How a worker may end while brokers are away: it says that they are, or that its transaction has become too old."""

SESSION_S: Final = 2.0
HOLD_S: Final = 15.0


# ---- processes ----------------------------------------------------------------------------------------------


def kill_random(trial: Trial) -> None:
    """SIGKILL of any worker at any moment; now and then its disk is lost too."""
    trial.start_all()
    trial.until_flowing()
    for _ in range(trial.rng.randint(3, 6)):
        trial.tend(trial.rng.uniform(0.1, 1.2))
        slot = trial.some_slot()
        lost = trial.rng.random() < 0.3
        if trial.crew.kill(slot):
            if lost:
                trial.crew.lose_disk(slot)
            trial.did(f"killed {slot.name}{' and its disk' if lost else ''}")


def kill_all(trial: Trial) -> None:
    """SIGKILL of all workers at once, twice, with all their disks the first time: while there is work left that shows what was restored."""
    trial.start_all()
    for lost in (True, False):
        trial.until_flowing(40)
        trial.tend(trial.rng.uniform(0.0, 0.8))
        for slot in trial.crew.slots.values():
            trial.crew.kill(slot)
            if lost:
                trial.crew.lose_disk(slot)
        trial.did(f"killed all{' and their disks' if lost else ''}")


def at_point(name: str) -> Callable[[Trial], None]:
    """SIGKILL at a failpoint, several times at other passages."""

    def harm(trial: Trial) -> None:
        passage: Callable[[], int] = lambda: trial.rng.randint(1, 4 if name in RESTORES else 15)  # noqa: E731 # asked anew each time
        if name in RESTORES:
            trial.start_all()
            trial.until_flowing(40)
        else:
            trial.start_all(lambda number: f"{name}:{passage()}")
        for turn in range(3):
            slot = trial.some_slot()
            if name in RESTORES or turn:
                trial.crew.kill(slot)
                trial.crew.tend()
                if slot.running():  # the supervisor was quicker: that one has no failpoint
                    trial.crew.kill(slot)
                    slot.process = None
                if name in RESTORES or trial.rng.random() < 0.3:
                    trial.crew.lose_disk(slot)
                trial.crew.start(slot.name, failpoint=f"{name}:{passage()}")
            died = len([one for one in slot.endings if one == "SIGKILL"])
            reached = trial.tend_until(
                lambda slot=slot, died=died: slot.endings.count("SIGKILL") > died,  # type: ignore[misc] # bound now
                8.0,
            )
            if reached:
                trial.did(f"{slot.name} died at {name}")
        if not trial.row.harm:
            raise Undone(f"{name} was never passed")

    return harm


def twins(trial: Trial) -> None:
    """A second worker in a slot that has one: one of the two ends, and says that it is not its slot.

    In a group of the consumer protocol the older one learns it with its next transaction: not any more, once all is done.
    """
    trial.start_all()
    trial.until_flowing()
    trial.tend(trial.rng.uniform(0.0, 0.6))
    slot = trial.some_slot()
    twin = trial.crew.start(f"{slot.name}-twin", number=slot.number)
    trial.did(f"a twin of {slot.name}")
    pair = (slot, twin)
    at_rest = trial.complete if trial.protocol == "consumer" else lambda: False
    if not trial.tend_until(lambda: any(one.lost_to_a_twin for one in pair) or at_rest(), 15.0):
        trial.wrong("twins", f"both twins of slot {slot.name} are there after 15 s")
        trial.crew.kill(twin, keep=False)
    elif not trial.tend_until(lambda: any(one.running() for one in pair), 5.0):
        trial.wrong("twins", "no twin is left")


def paused(trial: Trial, slot: Slot, where: str) -> None:
    """Pause a worker at a point, or at any moment where none is given, and wait until it is."""
    if where:
        trial.crew.kill(slot)
        slot.process = None
        trial.crew.start(slot.name, failpoint=f"{where}:{trial.rng.randint(4, 20)}:stop")
        if not trial.tend_until(slot.paused, 20.0):
            raise Undone(f"{slot.name} never came to {where}")
    else:
        trial.tend(trial.rng.uniform(0.0, 0.8))
        if not trial.crew.kill(slot, signal.SIGSTOP):
            raise Undone(f"{slot.name} was not there to be paused")
    trial.did(f"paused {slot.name} {where or 'at random'}")


def awake(trial: Trial, slot: Slot) -> None:
    if slot.process is not None:
        slot.process.send_signal(signal.SIGCONT)


def zombie(trial: Trial) -> None:
    """A worker that sleeps past its session wakes up with work in its hands, after others got its tasks."""
    trial.start_all()
    trial.until_flowing()
    points = (
        "",
        "after_poll",
        "after_apply",
        "after_produce",
        "before_commit",
        "after_flush",
        "inside_commit",
    )
    _sleep_past_the_session(trial, trial.rng.choice(points))


def drowsy(trial: Trial) -> None:
    """A worker that slept past its session takes its time with what it had read: it learns meanwhile that it is no member."""
    trial.start_all()
    trial.until_flowing()
    for _ in range(2):
        _sleep_past_the_session(trial, "after_poll")


def _sleep_past_the_session(trial: Trial, where: str) -> None:
    slot = trial.some_slot()
    paused(trial, slot, where)
    trial.tend(SESSION_S + trial.rng.uniform(0.5, 2.5))
    awake(trial, slot)
    trial.tend(0.5)


def zombie_replaced(trial: Trial) -> None:
    """A worker that sleeps past its session was replaced in its slot, on another machine, when it wakes up.

    As with `twins`, a group of the consumer protocol tells the sleeper with its next transaction, if there is one.
    """
    trial.start_all()
    trial.until_flowing()
    slot = trial.some_slot()
    points = (
        "",
        "after_poll",
        "after_apply",
        "after_produce",
        "before_commit",
        "inside_commit",
        "after_commit",
    )
    paused(trial, slot, trial.rng.choice(points))
    trial.tend(trial.rng.uniform(0.0, 1.0))
    heir = trial.crew.start(f"{slot.name}-heir", number=slot.number)
    trial.tend(SESSION_S + trial.rng.uniform(0.5, 1.5))
    awake(trial, slot)
    at_rest = trial.complete if trial.protocol == "consumer" else lambda: False
    if not trial.tend_until(lambda: slot.lost_to_a_twin or heir.lost_to_a_twin or at_rest(), 15.0):
        trial.wrong("twins", f"the sleeper of slot {slot.name} and its heir are both there after 15 s")
    elif heir.lost_to_a_twin:
        trial.wrong("twins", "the sleeper took the slot back")


def storm(trial: Trial) -> None:
    """Workers come and go at random, politely and not."""
    trial.start_all()
    trial.until_flowing()
    for _ in range(trial.rng.randint(6, 10)):
        trial.tend(trial.rng.uniform(0.1, 0.8))
        slot = trial.some_slot()
        if slot.running() and trial.rng.random() < 0.6:
            kind = trial.rng.choice((signal.SIGTERM, signal.SIGKILL))
            trial.crew.kill(slot, kind, keep=False)
            trial.did(f"{kind.name} {slot.name}")
        elif not slot.running():
            trial.crew.tend()
            trial.crew.start(slot.name)
            trial.did(f"started {slot.name}")
        elif len(trial.crew.slots) < 5:
            trial.did(f"started {trial.crew.start(str(len(trial.crew.slots))).name}")
    for slot in trial.crew.slots.values():
        slot.kept = True


# ---- brokers ------------------------------------------------------------------------------------------------


def broker_kill(trial: Trial) -> None:
    """The only broker is killed under load and started again."""
    broker = trial.bed.broker
    if broker is None:
        raise Undone("there is no broker to kill")
    trial.start_all()
    for _ in range(2):
        trial.until_flowing(20)
        trial.tend(trial.rng.uniform(0.0, 0.8))
        _bounce(trial, broker, "the broker")


def leader_kill(trial: Trial) -> None:
    """The leader of a partition that a stage writes is killed, and comes back."""
    cluster = trial.bed.cluster
    if cluster is None:
        raise Undone("there is no cluster")
    trial.start_all()
    trial.until_flowing(20)
    topic = f"{trial.namespace}{trial.rng.choice(('c.sums', 'c.echo', 'c.state', 'c.items'))}"
    _bounce(trial, cluster.leader(topic, trial.rng.randrange(4)), f"a leader of {topic}")
    cluster.wait_in_sync(topic)


def coordinator_kill(trial: Trial) -> None:
    """The coordinator of all transactions, or of all groups, is killed, and comes back."""
    cluster = trial.bed.cluster
    if cluster is None:
        raise Undone("there is no cluster")
    trial.start_all()
    trial.until_flowing(20)
    if trial.rng.random() < 0.5:
        _bounce(trial, cluster.transaction_coordinator(), "the transactions' coordinator")
    else:
        _bounce(trial, cluster.group_coordinator(), "the groups' coordinator")
    cluster.wait_in_sync("__transaction_state")
    cluster.wait_in_sync("__consumer_offsets")


def _bounce(trial: Trial, broker: Broker, what: str) -> None:
    broker.kill()
    trial.tend(trial.rng.uniform(0.0, 1.5))
    broker.start()
    trial.did(f"killed {what}")


# ---- the protocol -------------------------------------------------------------------------------------------


def open_foreign(trial: Trial) -> None:
    """Somebody's transaction is open on a table while it is restored: what was committed after it can't be seen yet."""
    trial.start_all()
    trial.until_flowing(40)
    stranger = Producer(
        {
            "bootstrap.servers": trial.bootstrap,
            "transactional.id": f"{trial.namespace}stranger",
            "log_level": 0,
        }
    )
    stranger.init_transactions(10)
    stranger.begin_transaction()
    for topic in ("c.sums", "c.state"):
        for partition in range(4):
            stranger.produce(f"{trial.namespace}{topic}", b"stranger", b"\x02stranger\x00\x01", partition)
    stranger.flush(10)
    trial.did("opened a transaction on c.sums and c.state")
    trial.tend(0.6)  # the workers commit more, behind it
    for slot in list(trial.crew.slots.values()):
        if trial.crew.kill(slot) and trial.rng.random() < 0.7:
            trial.crew.lose_disk(slot)
    trial.tend(trial.rng.uniform(2.0, 4.0))
    stranger.abort_transaction(10)


def held(api: Api) -> Callable[[Trial], None]:
    """A request of a transaction is late: it comes to the broker after its client gave up and wrote the next one."""

    def harm(trial: Trial) -> None:
        proxy = trial.bed.proxy
        if proxy is None:
            raise Undone("there is no proxy")
        trial.start_all()
        trial.until_flowing()
        for _ in range(2):
            stall = trial.rng.random() < 0.5
            hold = proxy.hold(
                api,
                owner=f"{trial.namespace}qmtl.",
                skip=trial.rng.randint(0, 12),
                release_at=Api.END_TXN,
                stall=stall,
            )
            if not trial.tend_until(hold.caught.is_set, HOLD_S):
                proxy.release(hold)
                break
            late = trial.tend_until(hold.released.is_set, HOLD_S)
            trial.did(
                f"held {api.name} of {hold.transactional_id[len(trial.namespace) :]}{' and all after' if stall else ''}"
            )
            if not late:  # its writer committed nothing any more
                proxy.release(hold)
                trial.tend_until(hold.released.is_set, 5.0)
        if not trial.row.harm:
            raise Undone(f"no {api.name} came")

    return harm


def answer_lost(api: Api) -> Callable[[Trial], None]:
    """The broker did what it was asked, and its answer never comes."""

    def harm(trial: Trial) -> None:
        proxy = trial.bed.proxy
        if proxy is None:
            raise Undone("there is no proxy")
        trial.start_all()
        trial.until_flowing()
        for _ in range(2):
            hold = proxy.hold(
                api, owner=f"{trial.namespace}qmtl.", skip=trial.rng.randint(0, 12), answer_only=True
            )
            if trial.tend_until(hold.released.is_set, HOLD_S):
                trial.did(f"lost the answer to {api.name}")
                if trial.rng.random() < 0.5:  # the client dies before it could give up
                    trial.crew.kill(trial.some_slot())
            else:
                proxy.release(hold)
        if not trial.row.harm:
            raise Undone(f"no {api.name} came")

    return harm


def disturbed(draw: Callable[[random.Random], Network]) -> Callable[[Trial], None]:
    """The network between one worker and the broker is not well, for longer than the group waits for it, and then it is."""

    def harm(trial: Trial) -> None:
        proxy = trial.bed.proxy
        if proxy is None:
            raise Undone("there is no proxy")
        trial.start_all()
        for _ in range(2):
            trial.until_flowing(10)
            trial.tend(trial.rng.uniform(0.0, 0.8))
            slot, network = trial.some_slot(), draw(trial.rng)
            one = proxy.disturb(network, slot.has_port)
            trial.tend(SESSION_S + trial.rng.uniform(0.5, 2.5))
            proxy.heal(one)
            if one.met.is_set():
                trial.did(f"{slot.name} had {network}")
        if not trial.row.harm:
            raise Undone("nobody felt the network")

    return harm


def _one_way(rng: random.Random) -> Network:
    to_broker = rng.random() < 0.5
    return Network(to_broker=to_broker, to_client=not to_broker)


_LATE_ENDS: Final = frozenset({"LogError", "LogUnreachable", "OutcomeUnknown", "Fenced"})

FAULTS: Final[dict[str, Fault]] = {
    one.name: one
    for one in (
        Fault("kill-random", kill_random),
        Fault("kill-all", kill_all),
        *(Fault(f"point-{name}", at_point(name)) for name in POINTS),
        Fault("twins", twins, ends=frozenset({"Fenced"})),
        Fault("zombie", zombie, workers=(2, 3), ends=frozenset({"Fenced"}), slow_ms=150),
        Fault("drowsy", drowsy, workers=(2, 3), ends=frozenset({"Fenced"}), slow_ms=300),
        Fault("zombie-replaced", zombie_replaced, workers=(1, 3), ends=frozenset({"Fenced"})),
        Fault("storm", storm, workers=(2, 4)),
        Fault(
            "broker-kill",
            broker_kill,
            needs="broker",
            workers=(1, 3),
            ends=OUTAGE,
            call_s=5.0,
            silence_s=45.0,
        ),
        Fault(
            "leader-kill",
            leader_kill,
            needs="cluster",
            workers=(1, 2),
            ends=OUTAGE,
            call_s=5.0,
            silence_s=45.0,
        ),
        Fault(
            "coordinator-kill",
            coordinator_kill,
            needs="cluster",
            workers=(1, 2),
            ends=OUTAGE,
            call_s=5.0,
            silence_s=45.0,
        ),
        Fault("open-foreign", open_foreign, workers=(1, 3)),
        *(
            Fault(
                f"held-{api.name.lower()}",
                held(api),
                needs="proxy",
                workers=(1, 2),
                ends=_LATE_ENDS,
                call_s=1.5,
                transaction_ms=4000,
            )
            for api in (
                Api.PRODUCE,
                Api.ADD_PARTITIONS_TO_TXN,
                Api.ADD_OFFSETS_TO_TXN,
                Api.TXN_OFFSET_COMMIT,
                Api.END_TXN,
            )
        ),
        Fault(
            "answer-end_txn",
            answer_lost(Api.END_TXN),
            needs="proxy",
            workers=(1, 2),
            ends=_LATE_ENDS,
            call_s=1.5,
        ),
        *(
            Fault(
                name,
                disturbed(draw),
                needs="proxy",
                workers=(1, 3),
                ends=_LATE_ENDS,
                call_s=1.5,
                transaction_ms=4000,
            )
            for name, draw in (
                ("slow-network", lambda rng: Network(delay_s=rng.uniform(0.01, 0.1))),
                ("one-way", _one_way),
                ("cut", lambda rng: Network(to_broker=False, to_client=False, lost=True)),
            )
        ),
    )
}
"""Every fault by its name, in the order in which a campaign goes through them."""
