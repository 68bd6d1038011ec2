"""
One AMQP connection whose I/O runs in a thread of its own.

Heartbeats are answered however long the work in other threads takes, and a lost
connection is made again until `close()`: to another node at once, to all of them after
growing pauses. pika's objects are touched in the I/O thread only; other threads use
`Connection.submit`.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from messaging.conf import settings
from messaging.logs.repetition import RepeatingLogger

from .addresses import Address, broker_address, in_order
from .channels import ChannelUser, RecoveringChannel
from .streams import Stream

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)
if not (of_pika := logging.getLogger("pika")).level:
    # It writes several lines for each attempt, where this package writes one a minute.
    of_pika.setLevel(logging.CRITICAL)

#: Seconds: the pause before trying the next node, and the longest before trying all of
#: them again.
RECONNECT_PAUSE = (0.1, 5.0)
#: Seconds for the broker to confirm that a failed connection is closed.
CLOSE_TIMEOUT = 1.0
#: What pika raises when it cannot connect; its connectors' errors are no `AMQPError`.
UNCONNECTED = (AMQPError, AMQPConnectorException, OSError)

#: The connections of this process.
_existing: WeakSet[Connection] = WeakSet()
os.register_at_fork(after_in_child=_existing.clear)


class Connection:
    """
    A connection that recovers: each of its `users` gets a new channel every time.

    The first half is called in any thread, what follows the comment in the I/O thread.
    `heartbeat` is in seconds (`MESSAGING["HEARTBEAT"]`).
    """

    def __init__(
        self, name: str, *users: ChannelUser, heartbeat: int | None = None
    ) -> None:
        self.name = name
        self._heartbeat = heartbeat
        self._users = users
        self._channels = [RecoveringChannel(user) for user in users]
        self._closing = threading.Event()
        self._open = threading.Event()
        #: Held to use or replace `_pika`.
        self._lock = threading.Lock()
        self._pika: pika.SelectConnection | None = None
        #: The node that it is connected to, or that it tries.
        self.address: Address | None = None
        #: The nodes that are still to be tried before all of them are.
        self._untried: list[Address] = []
        self._pause = RECONNECT_PAUSE[0]
        self._was_open = False
        #: Whether it was lost, or could not be made, since it was last open.
        self._was_lost = False
        #: Why the broker blocks publishers, if it does.
        self.blocked: str | None = None
        self.last_error = "not connected yet"
        self._thread = threading.Thread(
            target=self._run, name=f"amqp-{name}", daemon=True
        )
        _existing.add(self)

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the I/O thread is running, connected or not."""
        return self._thread.is_alive()

    def close(self, timeout: float = 5.0) -> None:
        """Close for good; waits at most `timeout` seconds for the broker to confirm."""
        if not self._closing.is_set():
            self._closing.set()
            self.submit(self._close)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def submit(self, callback: Callable[[], None]) -> None:
        """
        Run `callback` in the I/O thread soon.

        Without a connection it is dropped, as `opened` will be called later.
        """
        with self._lock:
            if self._pika is not None:
                self._pika.ioloop.add_callback_threadsafe(callback)

    def problem(self, patience: float = 0.0) -> str | None:
        """
        Return why nothing can be published right now, or None.

        Waits up to `patience` seconds for a connection.
        """
        if not self._open.wait(patience):
            return f"No connection to {self._where()}: {self.last_error}."
        # The broker says so only to those connections that have published.
        blocked = (why for one in list(_existing) if (why := one.blocked))
        if why := next(blocked, None):
            return f"The broker takes no messages for now: {why}."
        return None

    def _where(self) -> str:
        return str(self.address or broker_address())

    # What follows runs in the I/O thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            self._was_open = False
            try:
                self._connect_and_serve()
            except Exception:  # noqa: BLE001 it is logged
                # It must not end this thread, which alone connects again.
                text = "%s failed; connecting anew"
                repeating.error(text, self.name, about=self.name, exc_info=True)
            self._closing.wait(self.next_pause())

    def next_pause(self) -> float:
        """Return the pause before connecting again."""
        if self._was_open:
            self._untried = []  # in a new order, with the lost node at its end
            self._pause = RECONNECT_PAUSE[0]
        elif not self._untried:
            self._pause = min(self._pause * 2, RECONNECT_PAUSE[1])
        pause = RECONNECT_PAUSE[0] if self._untried else self._pause
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 jitter

    def parameters(self) -> pika.URLParameters:
        """Choose the node to try next, and return how to connect to it."""
        if not self._untried:
            self._untried = in_order()
        self.address = self._untried.pop(0)
        return self.address.parameters(self.name, self._heartbeat)

    def _connect_and_serve(self) -> None:
        """Connect, and serve the connection until it is lost."""
        connection = Stream(
            self.parameters(),
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._failed,
        )
        with self._lock:
            self._pika = connection
        try:
            # `close` sets the flag first: either it is seen here, or its callback runs.
            if not self._closing.is_set():
                connection.ioloop.start()
        except Exception:  # noqa: BLE001 it is logged
            # A callback has failed, and users may have missed an event: they start
            # again on another connection.
            text = "The I/O loop of %s failed"
            repeating.error(text, self.name, about=self.name, exc_info=True)
            force_close(connection)
        finally:
            self._lost()
            connection.ioloop.close()

    def _lost(self) -> None:
        self._open.clear()
        with self._lock:
            self._pika = None
        self.blocked = None
        for channel in self._channels:
            try:
                channel.lost(ConnectionError("the connection is gone"))
            except Exception:
                # The other users must be notified, too.
                logger.exception("A user of %s failed", self.name)

    def _opened(self, connection: pika.SelectConnection) -> None:
        self._was_open = True
        self._open.set()
        if self.address is not None:
            self.address.works()
        if self._was_lost or len(settings.urls) > 1:
            text = "%s is connected to %s" + " again" * self._was_lost
            where = self._where()
            repeating.info(text, self.name, where, about=(self.name, where))
        self._was_lost = False
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        for channel in self._channels:
            channel.open(connection)

    def _failed(self, connection: pika.SelectConnection, error: Any) -> None:
        self._note(error)
        connection.ioloop.stop()

    def _note(self, error: Any) -> None:
        self.last_error = readable(error)
        self._was_lost = True
        if not self._closing.is_set():
            if self.address is not None:
                self.address.has_failed()
            repeating.warning(
                "%s has no connection to %s: %s",
                self.name,
                self._where(),
                self.last_error,
                about=(self.name, self.address),
            )

    def _blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = frame.method.reason
        text = "The broker takes no messages for now: %s"
        repeating.critical(text, self.blocked, about=self.name)

    def _unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = None
        repeating.info("The broker takes messages again", about=self.name)
        for user in self._users:
            user.unblocked()

    def _close(self) -> None:
        if self._pika is not None:
            if self._pika.is_open:
                for channel in self._channels:
                    channel.close()
                self._pika.close()
            elif not self._pika.is_closing:
                self._pika.ioloop.stop()


def force_close(connection: pika.SelectConnection) -> None:
    """Close a connection whose loop has failed, so that the broker notices at once."""
    with suppress(Exception):
        connection.close()
        connection.ioloop.call_later(CLOSE_TIMEOUT, connection.ioloop.stop)
        connection.ioloop.start()


def readable(error: BaseException) -> str:
    """Return type and text of the cause of an error, which pika may have wrapped."""
    wrapped = [
        *getattr(error, "exceptions", ()),
        getattr(error, "exception", None),
        *error.args,
    ]
    for cause in wrapped:
        if isinstance(cause, BaseException):
            return readable(cause)
    return f"{type(error).__name__}: {error}"
