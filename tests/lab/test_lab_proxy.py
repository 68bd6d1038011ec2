"""The proxy of the crash lab: the effect of each network fault on a connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from messaging.lab.processes import free_port
from messaging.lab.proxy import Proxy
from tests.support.waiting import eventually


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that echoes everything."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    proxy = Proxy(free_port(), echo)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection that is known to work."""
    with connect(proxy) as client:
        assert asked(client, b"hello") == b"hello"
        yield client


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.address), timeout=5)


def asked(client: socket.socket, data: bytes, patience: float = 5) -> bytes:
    client.settimeout(patience)
    client.sendall(data)
    return client.recv(1000)


def is_frozen(client: socket.socket) -> bool:
    try:
        client.settimeout(0.2)
        client.recv(1000)
    except TimeoutError:
        return True
    return False


def test_a_cut_connection_is_reset_and_a_new_one_works(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.cut()

    with pytest.raises(ConnectionResetError):
        client.recv(1000)
    with connect(proxy) as other:
        assert asked(other, b"again") == b"again"


def test_one_client_alone_can_be_cut(proxy: Proxy, client: socket.socket) -> None:
    with connect(proxy) as other:
        assert asked(other, b"hello") == b"hello"
        proxy.cut({other.getsockname()[1]})
        with pytest.raises(ConnectionResetError):
            other.recv(1000)

    assert asked(client, b"still here") == b"still here"


def test_a_frozen_connection_goes_on_where_it_stopped(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.freeze()
    client.sendall(b"held back")
    assert is_frozen(client)
    proxy.thaw()

    client.settimeout(5)
    assert client.recv(1000) == b"held back"


def test_bytes_that_are_held_back_are_lost_with_a_cut(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.freeze()
    client.sendall(b"held back")
    assert is_frozen(client)
    proxy.cut()
    proxy.thaw()

    client.settimeout(5)
    with pytest.raises(ConnectionResetError):
        client.recv(1000)


def test_a_forgotten_connection_stays_silent_while_new_ones_work(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.forget()
    proxy.freeze()
    proxy.thaw()
    client.sendall(b"into the void")

    assert is_frozen(client)
    with connect(proxy) as other:
        assert asked(other, b"again") == b"again"


def test_an_orderly_close_gets_through(proxy: Proxy, client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)

    assert client.recv(1000) == b""
    eventually(lambda: not proxy._links, "the proxy forgets the connection")


def test_an_unavailable_server_closes_the_connection() -> None:
    proxy = Proxy(free_port(), free_port())
    proxy.start()
    try:
        with connect(proxy) as client:
            assert client.recv(1000) == b""
    finally:
        proxy.stop()
