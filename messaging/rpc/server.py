"""Serve functions: take a call, run it, answer, acknowledge."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from messaging.amqp.channels import NORMAL, PRECONDITION_FAILED, close
from messaging.amqp.connection import Connection
from messaging.amqp.publisher import publisher
from messaging.backoff import Backoff
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import PublishError, Unconfirmed
from messaging.worker import run_until_stopped

from .protocol import Answer, seconds_left
from .serving import Served

logger = logging.getLogger(__name__)

#: Times a call may come again before it is suspected of killing its servers. Restarts
#: and lost connections cost one each.
INNOCENT_DELIVERIES = 2


class KillsServers(Exception):
    """Servers have died each time they were given this call."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it came from the queue."""

    channel: Any
    tag: int
    properties: Any
    body: bytes

    @property
    def seconds_left(self) -> float | None:
        """Until its caller gives up; None if it did not say."""
        return seconds_left(self.properties.headers)

    @property
    def is_suspect(self) -> bool:
        """Whether servers may have died of it, as far as the queue counts."""
        count = (self.properties.headers or {}).get("x-delivery-count")
        return isinstance(count, int) and count > INNOCENT_DELIVERIES


class Server:
    """
    Serves one function, in as many threads as run `run`.

    It holds no more calls than it works on, so that the others go to whoever is free.
    A call is acknowledged after the broker has confirmed the answer: what a server
    that dies had in hand is run by another. One whose deadline has passed is dropped.
    """

    def __init__(self, function: Served, threads: int) -> None:
        self._served = function
        self._threads = threads
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        self._changed = threading.Condition()
        self._held: deque[Request] = deque()
        self._stopping = False
        self._channel: Any = None
        #: False while a queue that others made with other arguments is used as it is.
        self._declares = True
        self._pause = Backoff()

    def attach(self, connection: Connection) -> None:
        """Use `connection` to get at its I/O thread."""
        self._submit = connection.submit

    def stop(self) -> None:
        """Finish the calls in hand, leave the others to other servers, end `run`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._submit(self._retire)

    def run(self) -> None:
        """Serve calls, one at a time, until `stop`."""
        while (request := self._take()) is not None:
            self._serve(request)

    def _take(self) -> Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._stopping)
            return None if self._stopping else self._held.popleft()

    def _serve(self, request: Request) -> None:
        left = request.seconds_left
        if left is not None and left <= 0:
            logger.warning(
                "A call of %s came %.1f s after its deadline and is dropped; if that "
                "happens to all, the clocks of callers and servers differ",
                self._served.name,
                -left,
            )
            self._settle(request)
            return
        started = time.monotonic()
        close_stale_connections()
        answer = self._answer(request)
        close_stale_connections()
        logger.info(
            "%s: %s in %.1f ms",
            self._served.name,
            answer.type,
            (time.monotonic() - started) * 1000,
        )
        self._settle(request, is_done=self._reply(request, answer))

    def _answer(self, request: Request) -> Answer:
        if request.is_suspect:
            logger.error("A call of %s kills its servers", self._served.name)
            return Answer.failure(KillsServers())
        properties = request.properties
        return self._served.answer(
            request.body, properties.content_type, properties.content_encoding
        )

    def _reply(self, request: Request, answer: Answer) -> bool:
        """Send an answer; whether the call need not be run again."""
        if not request.properties.reply_to:
            return True
        reply = answer.envelope(request.properties)
        patience = max(settings.CONFIRM_TIMEOUT, request.seconds_left or 0.0)
        try:
            publisher().publish(reply, timeout=patience)
        except Unconfirmed as error:
            logger.warning("A call of %s is run again: %s", self._served.name, error)
            return False
        except PublishError:
            logger.exception("An answer of %s cannot be sent", self._served.name)
        return True

    def _settle(self, request: Request, *, is_done: bool = True) -> None:
        def settle() -> None:
            # On another channel the tag means another call; this one comes again.
            if request.channel is self._channel and request.channel.is_open:
                if is_done:
                    request.channel.basic_ack(request.tag)
                else:
                    request.channel.basic_nack(request.tag, requeue=True)

        self._submit(settle)

    # What follows runs in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Declare the queue and subscribe."""
        if self._stopping:
            return
        self._channel = channel
        if self._declares:
            channel.queue_declare(
                self._served.queue,
                durable=self._served.durable,
                arguments=self._served.arguments,
            )
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=self._threads)
        channel.basic_consume(
            self._served.queue, self._arrived, callback=self._subscribed
        )

    def closed(self, error: Exception) -> float:
        """Forget what the broker will deliver again."""
        self._channel = None
        with self._changed:
            self._held.clear()
        code = getattr(error, "reply_code", None)
        if code in NORMAL:
            return 0.0
        logger.warning("Lost the queue %s: %s", self._served.queue, error)
        if code == PRECONDITION_FAILED and self._declares:
            # Made by another program; its calls are no worse for that.
            self._declares = False
            return 0.0
        self._declares = True
        return self._pause()

    def unblocked(self) -> None:
        """Consumers are never blocked."""

    def _subscribed(self, _frame: Any) -> None:
        self._pause = Backoff()

    def _arrived(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is not self._channel:
            return
        request = Request(channel, method.delivery_tag, properties, body)
        if self._stopping:
            channel.basic_nack(request.tag, requeue=True)
            return
        with self._changed:
            self._held.append(request)
            self._changed.notify()

    def _cancelled(self, _frame: Any) -> None:
        logger.warning("The broker has cancelled the consumer of %s", self._served.name)
        close(self._channel)

    def _retire(self) -> None:
        """Take no more, and give back what no thread has begun."""
        channel = self._channel
        if channel is not None and channel.is_open:
            for tag in channel.consumer_tags:
                channel.basic_cancel(tag)
            with self._changed:
                while self._held:
                    channel.basic_nack(self._held.popleft().tag, requeue=True)


def run_servers(functions: Sequence[Served], threads: int) -> int:
    """
    Serve functions, each in so many threads, until SIGTERM or SIGINT.

    Gives an exit code as `run_until_stopped` does.
    """
    servers = [Server(function, threads) for function in functions]
    connection = Connection("server", *servers)
    for server in servers:
        server.attach(connection)
    connection.start()

    def stop() -> None:
        for server in servers:
            server.stop()

    loops = [server.run for server in servers for _ in range(threads)]
    return run_until_stopped(loops, stop, connection)
