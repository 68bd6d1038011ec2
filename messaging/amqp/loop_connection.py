"""
A connection without a thread of its own: an event loop serves it among other tasks.

All of it runs in the loop that called `start`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pika.adapters.asyncio_connection import AsyncioConnection

from messaging.logs.repetition import RepeatingLogger

from .connection import CLOSE_TIMEOUT, Connection
from .streams import Tolerant

repeating = RepeatingLogger(__name__)


class LoopConnection(Connection):
    """A connection that recovers, served by the running event loop."""

    def start(self) -> None:
        """Connect in the background."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
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
        except Exception:  # noqa: BLE001 it is logged
            # Users may have missed an event: they start again on another connection.
            text = "A callback of %s failed"
            repeating.error(text, self.name, about=self.name, exc_info=True)
            if self._pika is not None:
                self._pika.abort()

    def _connect(self) -> None:
        if self._closing.is_set():
            return
        self._was_open = False
        try:
            self._pika = LoopStream(
                self.parameters(),
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
        self._loop.call_later(self.next_pause(), self._connect)


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
        """Close the socket, if there is one; `on_close_callback` follows."""
        if self._transport is not None:
            self._transport.abort()

    def _send_all(self) -> None:
        frames, self._unsent = self._unsent, []
        if self._transport is not None:
            super()._output_marshaled_frames(frames)
