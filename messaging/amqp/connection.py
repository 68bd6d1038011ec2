"""
One AMQP connection whose I/O runs in a thread of its own.

Heartbeats are answered however long the work in other threads takes, and a lost
connection is made again with growing pauses until `close()`.
"""

from __future__ import annotations

import logging
import random
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError
from pika.frame import decode_frame

from messaging.conf import settings

from .channels import ChannelKeeper, ChannelUser
from .frames import FRAME, without_headers

logger = logging.getLogger(__name__)

#: Seconds: the first pause before connecting again, and the longest.
RECONNECT_PAUSE = (0.1, 5.0)
#: Seconds for the broker to confirm that a failed connection is closed.
GOODBYE = 1.0
#: What pika raises when it cannot connect; the errors of connectors are a kind apart.
UNCONNECTED = (AMQPError, AMQPConnectorException, OSError)


def parameters(name: str) -> pika.URLParameters:
    """Give the parameters of a connection that shows as `name` in the console."""
    result = pika.URLParameters(settings.URL)
    result.heartbeat = settings.HEARTBEAT
    result.socket_timeout = 5
    result.stack_timeout = 10
    result.client_properties = {"connection_name": f"{settings.APP_ID}:{name}"}
    return result


def broker_address() -> str:
    """Give host, port and virtual host of the broker, without credentials."""
    url = urlsplit(settings.URL)
    return f"{url.hostname}:{url.port or 5672}{url.path or '/'}"


class Stream(pika.SelectConnection):  # type: ignore[misc]
    """
    Hands a message to the socket in one piece, which saves two system calls.

    Survives headers that pika cannot read, such as a time in milliseconds taken for
    seconds: the connection would be lost at every delivery of the message.
    """

    def _read_frame(self) -> tuple[int, Any]:
        try:
            frame: tuple[int, Any] = super()._read_frame()
        except (
            ValueError,
            OverflowError,
            OSError,
            RecursionError,
            struct.error,
        ) as error:
            logger.warning("The headers of a message are left out: %s", error)
            read = self._frame_buffer
            size = FRAME.size + FRAME.unpack_from(read)[2] + 1
            return size, decode_frame(without_headers(read))[1]
        return frame

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Hand a message to the socket in one piece, which saves two system calls."""
        data = b"".join(marshaled_frames)
        self.bytes_sent += len(data)
        self.frames_sent += len(marshaled_frames)
        self._adapter_emit_data(data)


class Connection:
    """
    A connection that stays: its `users` get a fresh channel each time it is made.

    Nothing of pika may be touched outside the I/O thread; `submit` gets there.
    """

    def __init__(self, name: str, *users: ChannelUser) -> None:
        self.name = name
        self._users = users
        self._keepers: list[ChannelKeeper] = []
        self._closing = threading.Event()
        self._open = threading.Event()
        #: Held to use or replace `_pika` from different threads.
        self._lock = threading.Lock()
        self._pika: pika.SelectConnection | None = None
        self.blocked: str | None = None
        self.last_error = "not connected yet"
        self._thread = threading.Thread(
            target=self._run, name=f"amqp-{name}", daemon=True
        )

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the I/O thread runs, connected or not."""
        return self._thread.is_alive()

    def close(self, timeout: float = 5.0) -> None:
        """Close for good; waits up to `timeout` seconds for the broker's goodbye."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.submit(self._say_goodbye)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def submit(self, callback: Callable[[], None]) -> None:
        """
        Run `callback` in the I/O thread soon.

        Without a connection it is dropped: whoever needs it is told by `opened`.
        """
        with self._lock:
            if self._pika is not None:
                self._pika.ioloop.add_callback_threadsafe(callback)

    def problem(self, patience: float = 0.0) -> str | None:
        """
        Say why nothing can be published right now, if so.

        Waits `patience` seconds for a connection that is being made.
        """
        if not self._open.wait(patience):
            return f"No connection to {broker_address()}: {self.last_error}."
        # Read once, for the I/O thread may reset it at any time.
        if blocked := self.blocked:
            return f"The broker takes no messages for now: {blocked}."
        return None

    def _run(self) -> None:
        pause = RECONNECT_PAUSE[0]
        while not self._closing.is_set():
            self._was_open = False
            try:
                self._connect_and_serve()
            except Exception:
                # It must not end this thread: nobody else would connect again.
                logger.exception("%s failed; connecting anew", self.name)
            pause = RECONNECT_PAUSE[0] if self._was_open else pause * 2
            pause = min(pause, RECONNECT_PAUSE[1])
            self._closing.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 jitter

    def _connect_and_serve(self) -> None:
        """Live through one connection, from its making to its loss."""
        connection = Stream(
            parameters(self.name),
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._failed,
        )
        self._keepers = [ChannelKeeper(connection, user) for user in self._users]
        with self._lock:
            self._pika = connection
        try:
            # `close` sets the flag first: either it is seen here, or its callback runs.
            if not self._closing.is_set():
                connection.ioloop.start()
        except Exception:
            # Of the callbacks that were due one has failed, and users may have missed
            # what it was to tell them; they begin again on another connection.
            logger.exception("The I/O loop of %s failed", self.name)
            leave(connection)
        finally:
            self._open.clear()
            with self._lock:
                self._pika = None
            self.blocked = None
            for keeper in self._keepers:
                try:
                    keeper.lost(ConnectionError("the connection is gone"))
                except Exception:
                    # The others must be told all the same.
                    logger.exception("A user of %s failed", self.name)
            connection.ioloop.close()

    def _opened(self, connection: pika.SelectConnection) -> None:
        self._was_open = True
        self._open.set()
        logger.info("%s is connected to %s", self.name, broker_address())
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        for keeper in self._keepers:
            keeper.open()

    def _failed(self, connection: pika.SelectConnection, error: Any) -> None:
        self.last_error = readable(error)
        if not self._closing.is_set():
            logger.warning(
                "%s has no connection to %s: %s",
                self.name,
                broker_address(),
                self.last_error,
            )
        connection.ioloop.stop()

    def _blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = frame.method.reason
        logger.critical("The broker takes no messages for now: %s", self.blocked)

    def _unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = None
        logger.info("The broker takes messages again")
        for user in self._users:
            user.unblocked()

    def _say_goodbye(self) -> None:
        if self._pika is not None:
            if self._pika.is_open:
                for keeper in self._keepers:
                    keeper.close()
                self._pika.close()
            elif not self._pika.is_closing:
                self._pika.ioloop.stop()


def leave(connection: pika.SelectConnection) -> None:
    """Close a connection whose loop has failed, so that the broker need not guess."""
    with suppress(Exception):
        connection.close()
        connection.ioloop.call_later(GOODBYE, connection.ioloop.stop)
        connection.ioloop.start()


def readable(error: BaseException) -> str:
    """Give what a person can use of an error, which pika may have wrapped twice."""
    wrapped = [
        *getattr(error, "exceptions", ()),
        getattr(error, "exception", None),
        *error.args,
    ]
    for cause in wrapped:
        if isinstance(cause, BaseException):
            return readable(cause)
    return f"{type(error).__name__}: {error}"
