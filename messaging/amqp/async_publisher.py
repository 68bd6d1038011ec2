"""Publish from an event loop, which also serves the connection, and await confirms."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

from pika.adapters.asyncio_connection import AsyncioConnection

from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.exceptions import TooLarge

from .confirms import ConfirmChannel
from .connection import CLOSE_TIMEOUT, RECONNECT_PAUSE, Connection, Tolerant, parameters
from .outgoing import PublishRequest
from .publisher import Publisher

logger = logging.getLogger(__name__)


class AsyncPublisher(Publisher):
    """Publishes with confirms on the running event loop; created in that loop."""

    def __init__(self) -> None:
        self.channel = ConfirmChannel()
        self.connection: LoopConnection
        self.connection = LoopConnection(f"front-{os.getpid()}", self.channel)
        self.channel.attach(self.connection)
        self.connection.start()

    async def confirmed(self, envelope: Envelope) -> None:
        """Publish an envelope; returns and raises when, and what, `publish` does."""
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


class LoopConnection(Connection):
    """A connection that recovers, all of which runs in the loop that started it."""

    def start(self) -> None:
        """Connect in the background."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._pause = RECONNECT_PAUSE[0]
        self._connect()

    def submit(self, callback: Callable[[], None]) -> None:
        """Run `callback` in the loop soon, if there is a connection."""
        if self._pika is not None:
            self._loop.call_soon(self._call, callback)

    async def end(self) -> None:
        """Close for good; waits at most `CLOSE_TIMEOUT` for the broker to confirm."""
        self._closing.set()
        self._ended.clear()
        if self._pika is None or self._pika.is_closing:
            return
        for channel in self._channels:
            channel.close()
        self._pika.close()
        try:
            await asyncio.wait_for(self._ended.wait(), CLOSE_TIMEOUT)
        except TimeoutError:
            self._pika.abort()
            await self._ended.wait()

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            # Users may have missed an event: they start again on another connection.
            logger.exception("A callback of %s failed", self.name)
            if self._pika is not None:
                self._pika.abort()

    def _connect(self) -> None:
        if self._closing.is_set():
            return
        self._was_open = False
        try:
            self._pika = LoopStream(
                parameters(self.name),
                on_open_callback=self._opened,
                on_open_error_callback=self._failed,
                on_close_callback=self._failed,
                custom_ioloop=self._loop,
            )
        except Exception as error:  # noqa: BLE001 it must not end the attempts
            self._failed(None, error)

    def _failed(self, connection: Any, error: Any) -> None:
        self._note(error)
        self._lost()
        self._ended.set()
        self._pause = self.pause_after(self._pause)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 no secret
        self._loop.call_later(self._pause * jitter, self._connect)


class LoopStream(Tolerant, AsyncioConnection):  # type: ignore[misc]
    """A connection that an event loop of asyncio serves."""

    def __init__(self, *args: Any, custom_ioloop: Any, **options: Any) -> None:
        self._loop = custom_ioloop
        self._unsent: list[bytes] = []
        super().__init__(*args, custom_ioloop=custom_ioloop, **options)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Send all messages of one turn of the loop in one piece."""
        if not self._unsent:
            self._loop.call_soon(self._send_all)
        self._unsent += marshaled_frames

    def abort(self) -> None:
        """Close the socket; `on_close_callback` follows."""
        self._transport.abort()

    def _send_all(self) -> None:
        frames, self._unsent = self._unsent, []
        if self._transport is not None:
            super()._output_marshaled_frames(frames)
