"""A TCP proxy that can fail as networks do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from pika import spec
from pika.frame import Method, decode_frame


class Proxy:
    """Forwards bytes between clients and one server until it is made to fail."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen: set[socket.socket] = set()
        #: Whether new connections are closed at once.
        self.refuses = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that sits in accept() keeps the socket open; this wakes it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all current connections."""
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._pairs.clear()

    def freeze(self) -> None:
        """Discard what arrives on current connections; new ones work."""
        self._frozen.update(end for pair in self._pairs for end in pair)

    def abandon(self) -> None:
        """Cut the clients' ends of all current connections; the server notices none."""
        self.freeze()
        for client, _ in self._pairs:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._pairs.append((client, server))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._frozen:
                    sink.sendall(data)
        if source not in self._frozen:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)


class RefusingProxy(Proxy):
    """Forwards to a broker, but closes connections with 541 for some AMQP methods."""

    def __init__(
        self, port: int, refuses: Callable[[Any], bool], text: str = "INTERNAL_ERROR"
    ) -> None:
        super().__init__(port)
        self._refuses = refuses
        self._text = text
        #: How many connections it has closed.
        self.refused = 0

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        if (source, sink) not in self._pairs:
            super()._pump(source, sink)
            return
        unread = b""
        with suppress(OSError):
            while data := source.recv(65536):
                unread += data
                accepted, unread, refused = self._accepted(unread)
                sink.sendall(accepted)
                if refused is not None:
                    self._close(source, sink, refused)
                    return
            sink.shutdown(socket.SHUT_RDWR)

    def _accepted(self, data: bytes) -> tuple[bytes, bytes, Any]:
        """Return whole frames that are accepted, the rest, and the method refused."""
        end = 0
        while (read := decode_frame(data[end:]))[0]:
            method = getattr(read[1], "method", None)
            if method is not None and self._refuses(method):
                return data[:end], b"", method
            end += read[0]
        return data[:end], data[end:], None

    def _close(self, client: socket.socket, server: socket.socket, method: Any) -> None:
        self.refused += 1
        class_id, method_id = divmod(method.INDEX, 65536)
        close = spec.Connection.Close(541, self._text, class_id, method_id)
        client.sendall(Method(0, close).marshal())
        self._frozen.add(server)
        server.shutdown(socket.SHUT_RDWR)
        # A client that cannot write may never read why.
        while client.recv(65536):
            pass
