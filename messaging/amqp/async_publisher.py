"""Publish from an event loop, which also serves the connection, and await confirms."""

from __future__ import annotations

import asyncio
import os

from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.exceptions import TooLarge

from .confirms import ConfirmChannel
from .loop_connection import LoopConnection
from .outgoing import PublishRequest
from .publisher import Publisher


class AsyncPublisher(Publisher):
    """
    Publishes with confirms on the running event loop, in which it is created.

    Use only `confirmed` and `end` there: the other methods block the loop.
    """

    def __init__(self) -> None:
        self.channel = ConfirmChannel()
        self.connection: LoopConnection
        self.connection = LoopConnection(f"front-{os.getpid()}", self.channel)
        self.channel.attach(self.connection)
        self.connection.start()

    async def confirmed(self, envelope: Envelope) -> None:
        """Publish an envelope, await its confirm, and raise what `publish` raises."""
        if len(envelope.body) > settings.MAX_BODY:
            raise TooLarge
        request = AwaitedRequest(envelope)
        if error := request.outgoing[0].error:
            raise error
        self.send(request)
        done = False
        try:
            done = await request.settled(settings.CONFIRM_TIMEOUT)
        finally:
            if not done:
                self.channel.cancel(request)
        (error,) = request.end(None if done else self.late())
        if error:
            raise error

    async def end(self) -> None:
        """Close the connection, within `CLOSE_TIMEOUT`."""
        await self.connection.end()


class AwaitedRequest(PublishRequest):
    """One envelope that a coroutine waits for, on the loop that sends it."""

    __slots__ = ("_future",)

    def __init__(self, envelope: Envelope) -> None:
        super().__init__([envelope])
        self._future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def settled(self, timeout: float) -> bool:
        """Return whether the envelope was settled within `timeout` seconds."""
        timer = self._future.get_loop().call_later(timeout, self._resolve, False)
        try:
            return await self._future
        finally:
            timer.cancel()

    def count_settled(self) -> None:
        """Wake the coroutine."""
        self._resolve(True)

    def _resolve(self, value: bool) -> None:
        if not self._future.done():
            self._future.set_result(value)
