"""A network that the proxy disturbs: what waits arrives after the healing, what is lost never does, others feel nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from qmtl.testing.proxy import KafkaProxy, Network
from tests.contract.driving import until


class Echo:
    """Answers every frame with itself, and remembers all."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(ConnectionError):  # by a client that has gone
            while (frame := receive(client)) is not None:
                self.got.append(frame)
                send(client, frame)

    def close(self) -> None:
        self._listener.close()


def send(one: socket.socket, frame: bytes) -> None:
    one.sendall(len(frame).to_bytes(4, "big") + frame)


def receive(one: socket.socket) -> bytes | None:
    """The next frame; None at the end of the connection."""
    try:
        head = one.recv(4, socket.MSG_WAITALL)
        return one.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if head else None
    except ConnectionError:
        return None


def frame(number: int) -> bytes:
    """Of no request of a transaction."""
    return b"\x00\x03\x00\x0c" + number.to_bytes(4, "big")


@pytest.fixture
def doors() -> Iterator[tuple[Echo, KafkaProxy]]:
    proxy = KafkaProxy()
    with closing(Echo()) as echo, proxy.forwarding_to(echo.address):
        yield echo, proxy


def connect(proxy: KafkaProxy) -> socket.socket:
    """A connection over which one frame went and came back."""
    one = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)
    send(one, frame(0))
    assert receive(one) == frame(0)
    return one


def test_what_can_not_reach_the_broker_reaches_it_after_the_healing_though_its_client_has_gone(
    doors: tuple[Echo, KafkaProxy],
) -> None:
    echo, proxy = doors
    with connect(proxy) as client:
        apart = proxy.disturb(Network(to_broker=False))
        send(client, frame(1))
        send(client, frame(2))
        assert apart.met.wait(10)
    assert echo.got == [frame(0)]
    proxy.heal(apart)
    until(lambda: echo.got == [frame(0), frame(1), frame(2)])


def test_what_can_not_come_back_was_done_and_its_answer_comes_with_the_healing(
    doors: tuple[Echo, KafkaProxy],
) -> None:
    echo, proxy = doors
    with connect(proxy) as client:
        apart = proxy.disturb(Network(to_client=False))
        send(client, frame(1))
        until(lambda: frame(1) in echo.got)
        assert apart.met.wait(10)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(20)
        proxy.heal(apart)
        assert receive(client) == frame(1)


def test_what_is_lost_never_arrives_and_a_new_connection_works(doors: tuple[Echo, KafkaProxy]) -> None:
    echo, proxy = doors
    with connect(proxy) as client:
        apart = proxy.disturb(Network(to_broker=False, to_client=False, lost=True))
        send(client, frame(1))
        assert apart.met.wait(10)
        proxy.heal(apart)
        assert receive(client) is None
    with connect(proxy):
        assert frame(1) not in echo.got


def test_a_slow_network_takes_its_time_in_both_directions(doors: tuple[Echo, KafkaProxy]) -> None:
    _, proxy = doors
    with connect(proxy) as client:
        slow = proxy.disturb(Network(delay_s=0.1))
        until(lambda: slow in proxy._disturbances)
        begun = time.monotonic()
        send(client, frame(1))
        assert receive(client) == frame(1)
        assert time.monotonic() - begun >= 0.2


def test_only_those_feel_a_disturbance_whom_it_concerns(doors: tuple[Echo, KafkaProxy]) -> None:
    echo, proxy = doors
    with connect(proxy) as one, connect(proxy) as other:
        port = one.getsockname()[1]
        apart = proxy.disturb(Network(to_broker=False), lambda asked: asked == port)
        send(one, frame(1))
        assert apart.met.wait(10)
        send(other, frame(2))
        assert receive(other) == frame(2)
        assert frame(1) not in echo.got
        proxy.heal(apart)
        assert receive(one) == frame(1)
