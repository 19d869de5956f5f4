"""A TCP proxy between Kafka clients and one broker: it holds back a request, loses an answer, slows, blocks or cuts the network.

    proxy = KafkaProxy()
    with start_broker(advertise_at=proxy.port) as broker, proxy.forwarding_to(broker.behind_proxy):
        held = proxy.hold(Api.END_TXN, release_at=Api.END_TXN)
        apart = proxy.disturb(Network(to_broker=False, to_client=False, lost=True))
        proxy.heal(apart)

It reads the frames of Kafka's protocol (4 bytes length, 2 bytes api key, 2 bytes version, 4 bytes correlation id, then the
client id) as far as the transactional id, which comes first in the body of every request of a transaction. What it does not
hold it passes on unchanged. A request that is held outlives its client: the connection to the broker stays open until it was
released, as with a message that is late on the network.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

from qmtl.testing.broker import free_ports

MAX_FRAME: Final = 128 << 20
SETTLE_S: Final = 0.02
"""How long the broker has for a late request before it gets the next one on another connection; nothing tells when it took it."""


class Api(IntEnum):
    """Requests of a transaction by their api key."""

    PRODUCE = 0
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


_FLEXIBLE_FROM: Final = {
    Api.PRODUCE: 9,
    Api.INIT_PRODUCER_ID: 2,
    Api.ADD_PARTITIONS_TO_TXN: 3,
    Api.ADD_OFFSETS_TO_TXN: 3,
    Api.END_TXN: 3,
    Api.TXN_OFFSET_COMMIT: 3,
}
"""The first version with compact strings and tagged fields (Kafka's message definitions, `flexibleVersions`)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the proxy reads of a frame.

    Attributes:
        transactional_id: empty where there is none, or where it is not looked for.
        aborts: it ends a transaction by an abort.
    """

    api: int
    version: int
    correlation: int
    transactional_id: str
    aborts: bool = False


def read_request(frame: bytes) -> Request:
    """The beginning of a request; `frame` is without its length."""
    api, version = int.from_bytes(frame[0:2], "big"), int.from_bytes(frame[2:4], "big")
    correlation = int.from_bytes(frame[4:8], "big")
    if api not in _FLEXIBLE_FROM:
        return Request(api, version, correlation, "")
    at = 10 + max(0, int.from_bytes(frame[8:10], "big", signed=True))
    if version < _FLEXIBLE_FROM[Api(api)]:
        size = int.from_bytes(frame[at : at + 2], "big", signed=True)
        at += 2
    else:
        _, at = _uvarint(frame, at)  # the header's tagged fields: clients send none
        length, at = _uvarint(frame, at)
        size = length - 1
    name = frame[at : at + size].decode("utf-8", "replace") if size > 0 else ""
    # EndTxn goes on with the producer's id and epoch, and then says whether it commits.
    decision = at + max(0, size) + 10
    return Request(
        api, version, correlation, name, api == Api.END_TXN and frame[decision : decision + 1] == b"\0"
    )


def _uvarint(frame: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = frame[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


@dataclass(eq=False)
class Hold:
    """One request that is to be held, or is.

    Attributes:
        caught: set once the request came; `transactional_id` is then its own.
        released: set once the broker was given it.
    """

    api: Api
    owner: str
    skip: int
    release_at: Api | None
    answer_only: bool
    stall: bool
    caught: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    transactional_id: str = ""
    _go: asyncio.Event = field(default_factory=asyncio.Event)
    _given: asyncio.Event = field(default_factory=asyncio.Event)
    _correlation: int = -1
    _link: _Link | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A network that is not well.

    Attributes:
        delay_s: a frame takes so long on its way, each direction by itself; the next one sets out behind it.
        to_broker, to_client: whether anything passes in this direction. What does not waits for the healing and arrives
            then, however late, as what the sending system sends again and again.
        lost: what waits is lost with the healing, and its connection ends, as when a device between has forgotten it.
    """

    delay_s: float = 0.0
    to_broker: bool = True
    to_client: bool = True
    lost: bool = False


@dataclass(eq=False)
class Disturbance:
    """A network that some clients have until it is healed.

    Attributes:
        whose: says by the port of a client's end of a connection whether it is one of those; asked once per connection.
        met: set once a frame was slowed or stopped.
    """

    network: Network
    whose: Callable[[int], bool]
    met: threading.Event = field(default_factory=threading.Event)
    _healed: asyncio.Event = field(default_factory=asyncio.Event)
    _known: dict[_Link, bool] = field(default_factory=dict)

    def _concerns(self, link: _Link) -> bool:
        if link not in self._known:
            self._known[link] = self.whose(link.port)
        return self._known[link]

    async def _carry(self, *, to_broker: bool) -> None:
        network = self.network
        if not (network.to_broker if to_broker else network.to_client):
            self.met.set()
            await self._healed.wait()
            if network.lost:
                raise ConnectionResetError("lost on a network that was cut")
        elif network.delay_s:
            self.met.set()
            await asyncio.sleep(network.delay_s)


class KafkaProxy:
    """Listens on `port` of 127.0.0.1 while `forwarding_to` a broker, in a thread of its own."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_ports(1)[0]
        self._loop = asyncio.new_event_loop()
        self._holds: list[Hold] = []
        self._disturbances: list[Disturbance] = []
        self._target: tuple[str, int] = ("127.0.0.1", 0)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def forwarding_to(self, address: str) -> Iterator[Self]:
        """Serve clients as long as the context lasts."""
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            server.close()
            self._loop.run_until_complete(self._end())
            self._loop.close()

    def hold(
        self,
        api: Api,
        *,
        owner: str = "",
        skip: int = 0,
        release_at: Api | None = None,
        stall: bool = False,
        answer_only: bool = False,
    ) -> Hold:
        """Hold back the next request of a kind that has a transactional id.

        Args:
            owner: how its transactional id begins; any by itself.
            skip: so many of them pass first.
            release_at: let it go right before the next request of this kind of the same transactional id (no abort: what is late
                has then still another transaction to come into); without, only `release` does.
            stall: hold back everything that follows on its connection too, as a path that is stuck; otherwise only this one.
            answer_only: give the request to the broker and keep back its answer: it is never let go.
        """
        hold = Hold(api, owner, skip, release_at, answer_only, stall)
        self._loop.call_soon_threadsafe(self._holds.append, hold)
        return hold

    def release(self, hold: Hold) -> None:
        """Give a held request to the broker now; one that was not caught is not waited for any more."""

        def let_go() -> None:
            if hold in self._holds:
                self._holds.remove(hold)
            hold._go.set()

        self._loop.call_soon_threadsafe(let_go)

    def disturb(self, network: Network, whose: Callable[[int], bool] = lambda port: True) -> Disturbance:
        """Give clients a bad network until `heal`.

        Connections can still be made: a client sees one that is open and on which nothing comes.

        Args:
            whose: which clients, by the port of their end of a connection; all by itself.
        """
        one = Disturbance(network, whose)
        self._loop.call_soon_threadsafe(self._disturbances.append, one)
        return one

    def heal(self, one: Disturbance) -> None:
        """End a disturbance; what waited goes on its way, or is lost."""

        def well() -> None:
            if one in self._disturbances:
                self._disturbances.remove(one)
            one._healed.set()

        self._loop.call_soon_threadsafe(well)

    async def _end(self) -> None:
        """End what is left of every connection."""
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # ---- in the loop ------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = int(writer.get_extra_info("peername")[1])
            link = _Link(self, port, *await asyncio.open_connection(*self._target))
        except (OSError, TypeError):  # no broker, or a client that has gone already
            writer.close()
            return
        with suppress(asyncio.CancelledError):  # the end of the proxy is nothing to tell of
            await link.relay(reader, writer)

    def _wanted(self, link: _Link, request: Request) -> Hold | None:
        """The hold that a request falls under; a request that lets another go does so first."""
        for hold in self._holds:
            if hold.caught.is_set() or not request.transactional_id or request.api != hold.api:
                continue
            if not request.transactional_id.startswith(hold.owner):
                continue
            if hold.skip:
                hold.skip -= 1
                continue
            hold.transactional_id, hold._correlation, hold._link = (
                request.transactional_id,
                request.correlation,
                link,
            )
            hold.caught.set()
            return hold
        return None

    async def _before(self, request: Request) -> None:
        for hold in list(self._holds):
            if (
                hold.caught.is_set()
                and not hold.answer_only
                and hold.release_at == request.api
                and not request.aborts
                and hold.transactional_id == request.transactional_id
            ):
                self._holds.remove(hold)
                hold._go.set()
                await hold._given.wait()
                await asyncio.sleep(SETTLE_S)

    def _answer_is_lost(self, link: _Link, correlation: int) -> bool:
        for hold in self._holds:
            if hold.answer_only and hold._link is link and hold._correlation == correlation:
                self._holds.remove(hold)
                hold.released.set()
                return True
        return False


class _Link:
    """One client's connection and the broker's side of it; `port` is the client's own."""

    def __init__(
        self, proxy: KafkaProxy, port: int, broker: asyncio.StreamReader, to_broker: asyncio.StreamWriter
    ) -> None:
        self.port = port
        self._proxy = proxy
        self._broker = broker
        self._to_broker = to_broker
        self._late: set[asyncio.Task[None]] = set()

    async def relay(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        answers = asyncio.create_task(self._answers(to_client))
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._requests(client)
            # What is held keeps the broker's side open after the client hung up.
            await asyncio.gather(*self._late, return_exceptions=True)
            if self._late:
                await asyncio.sleep(0.2)
        finally:
            answers.cancel()
            for writer in (self._to_broker, to_client):
                with suppress(OSError):
                    writer.close()

    async def _on_its_way(self, *, to_broker: bool) -> None:
        """Returns when a frame has arrived.

        Raises:
            ConnectionResetError: it is lost.
        """
        for one in list(self._proxy._disturbances):
            if one._concerns(self):
                await one._carry(to_broker=to_broker)

    async def _requests(self, client: asyncio.StreamReader) -> None:
        while True:
            frame = await _frame(client)
            await self._on_its_way(to_broker=True)
            request = read_request(frame)
            await self._proxy._before(request)
            hold = self._proxy._wanted(self, request)
            if hold is None or hold.answer_only:
                self._send(frame)
                await self._to_broker.drain()
                continue
            late = asyncio.create_task(self._deliver(hold, frame))
            self._late.add(late)
            if hold.stall:
                rest = asyncio.create_task(self._swallow(client))
                await late
                rest.cancel()
                return  # the client has heard nothing for so long: its connection ends here

    async def _deliver(self, hold: Hold, frame: bytes) -> None:
        await hold._go.wait()
        with suppress(OSError):
            self._send(frame)
            await self._to_broker.drain()
        hold._given.set()
        hold.released.set()

    async def _swallow(self, client: asyncio.StreamReader) -> None:
        while await client.read(65536):
            pass

    async def _answers(self, to_client: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                frame = await _frame(self._broker)
                await self._on_its_way(to_broker=False)
                if self._proxy._answer_is_lost(self, int.from_bytes(frame[:4], "big")):
                    continue
                with suppress(OSError):  # the client of a late request has gone
                    to_client.write(len(frame).to_bytes(4, "big") + frame)
                    await to_client.drain()
        if not self._late:  # the broker hung up: so does the client's side
            with suppress(OSError):
                to_client.close()

    def _send(self, frame: bytes) -> None:
        self._to_broker.write(len(frame).to_bytes(4, "big") + frame)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME:
        raise OSError("a frame was longer than any of Kafka's")
    return await reader.readexactly(size)


__all__ = ["Api", "Disturbance", "Hold", "KafkaProxy", "Network", "Request", "read_request"]
