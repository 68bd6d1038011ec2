"""A proxy whose connections can be cut, frozen, or left half open."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

#: Bytes forwarded at a time.
CHUNK = 65536
#: SO_LINGER with timeout 0: closing sends a reset and discards unsent data.
RESET = struct.pack("ii", 1, 0)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through the proxy: two sockets and two directions."""

    def __init__(self, near: Stream, far: Stream) -> None:
        self._writers = (near[1], far[1])
        self._directions = [
            asyncio.ensure_future(self._forward(near[0], far[1])),
            asyncio.ensure_future(self._forward(far[0], near[1])),
        ]
        self._flows = asyncio.Event()
        self._forgotten = False

    @property
    def client_port(self) -> int | None:
        """The port at the client's end, which a Unix socket has not."""
        name = self._writers[0].get_extra_info("peername")
        return int(name[1]) if name else None

    def freeze(self) -> None:
        """Stop forwarding; data is kept."""
        self._flows.clear()

    def thaw(self) -> None:
        """Forward the data kept so far and all that follows."""
        if not self._forgotten:
            self._flows.set()

    def forget(self) -> None:
        """Never forward anything again, without closing the connection."""
        self._forgotten = True
        self._flows.clear()

    def cut(self) -> None:
        """Reset both ends; data in transit is lost."""
        for writer in self._writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, RESET
                )
            writer.transport.abort()
        for direction in self._directions:
            direction.cancel()

    async def closed(self) -> None:
        """Return when either end has closed, and close the other."""
        await asyncio.wait(self._directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in self._directions:
            direction.cancel()
        for writer in self._writers:
            writer.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            # A frozen network does not pass on the end of a stream either.
            await self._flows.wait()


class Proxy:
    """
    Forwards a local port or Unix socket to another one.

    It runs in its own thread; its methods may be called from any thread. With `tls`,
    clients of its port must use TLS, which ends here.
    """

    def __init__(
        self,
        address: int | Path,
        target: int | Path,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self._tls = tls
        self.target = target
        self._links: list[Link] = []
        self._frozen = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, name=f"proxy-{address}", daemon=True
        )
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        """Start listening."""
        self._server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._accept, self.address)
            if isinstance(self.address, Path)
            else asyncio.start_server(
                self._accept, "127.0.0.1", self.address, ssl=self._tls
            )
        )
        self._thread.start()

    def stop(self) -> None:
        """Reset all connections and stop listening."""
        if self._thread.is_alive():
            self._submit(self._loop.stop)
            self._thread.join()

    def cut(self, ports: Collection[int] | None = None) -> None:
        """Reset all connections, or only those from these ports of the client."""
        self._each(Link.cut, ports)

    def forget(self) -> None:
        """
        Leave all connections half open: no more data arrives on them.

        New connections work.
        """
        self._each(Link.forget)

    def freeze(self) -> None:
        """Stop forwarding on all connections, without closing them."""
        self._set_frozen(True)
        self._each(Link.freeze)

    def thaw(self) -> None:
        """Forward the data kept since `freeze` and all that follows."""
        self._set_frozen(False)
        self._each(Link.thaw)

    def _set_frozen(self, frozen: bool) -> None:
        def set_frozen() -> None:
            self._frozen = frozen

        self._submit(set_frozen)

    def _each(
        self, action: Callable[[Link], None], ports: Collection[int] | None = None
    ) -> None:
        def act() -> None:
            for link in list(self._links):
                if ports is None or link.client_port in ports:
                    action(link)

        self._submit(act)

    def _submit(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            if self._server is not None:
                self._server.close()
            for link in self._links:
                link.cut()
            if tasks := asyncio.all_tasks(self._loop):
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=1))
            self._loop.close()

    async def _connect(self) -> Stream:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        link = Link((reader, writer), far)
        if not self._frozen:
            link.thaw()
        self._links.append(link)
        try:
            await link.closed()
        finally:
            self._links.remove(link)
