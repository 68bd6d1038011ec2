"""A proxy before several processes that serve HTTP."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from .proxy import Proxy, Stream
from .server import ServerError

#: Seconds between two looks at who is ready, and for an answer.
LOOK_PAUSE, PATIENCE = 0.3, 2.0
#: Seconds for a process to become ready, or to be known as not ready.
READY_DEADLINE = 60.0


class Balancer(Proxy):
    """
    Spreads connections over several ports, and avoids those that are not ready.

    A process is not ready if it answers 503, or nothing, at `/health/ready`. If none
    is ready, any is used.
    """

    def __init__(self, address: int, targets: Sequence[int]) -> None:
        super().__init__(address, targets[0])
        self._targets = targets
        #: Those that are ready.
        self.ready: set[int] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start listening, and looking at who is ready."""
        self._watching = self._loop.create_task(self._watch())
        super().start()

    def stop(self) -> None:
        """Reset all connections and stop listening."""
        if watching := self._watching:
            self._submit(watching.cancel)
        super().stop()

    def wait(self, target: int, *, ready: bool) -> None:
        """Return once a process is known to be ready, or not to be."""
        deadline = time.monotonic() + READY_DEADLINE
        while (target in self.ready) is not ready:
            if time.monotonic() > deadline:
                raise ServerError(f"On port {target}, readiness remains {not ready}.")
            time.sleep(0.05)

    async def _connect(self) -> Stream:
        shuffled = random.sample(self._targets, len(self._targets))
        *first, last = sorted(shuffled, key=lambda one: one not in self.ready)
        for target in first:
            try:
                return await asyncio.open_connection("127.0.0.1", target)
            except OSError:
                self.ready.discard(target)
        return await asyncio.open_connection("127.0.0.1", last)

    async def _watch(self) -> None:
        while True:
            for target in self._targets:
                if await is_ready(target):
                    self.ready.add(target)
                else:
                    self.ready.discard(target)
            await asyncio.sleep(LOOK_PAUSE)


async def is_ready(port: int) -> bool:
    """Return whether the process that serves a port says that it is ready."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status = (await reader.readline()).split()
            writer.close()
    except OSError:  # also when it is late
        return False
    return len(status) > 1 and status[1] != b"503"
