"""Serve functions: receive a call, run the function, reply, acknowledge."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from messaging.amqp.backoff import Backoff
from messaging.amqp.channels import (
    CONNECTION_FORCED,
    INTERNAL_ERROR,
    NORMAL,
    NOT_FOUND,
    close,
)
from messaging.amqp.connection import Connection
from messaging.amqp.publisher import publisher
from messaging.amqp.queues import ConsumerWatchdog, hide_refusals
from messaging.amqp.subscription import STABLE
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import PublishError, Unconfirmed
from messaging.logs.context import Handling, working_on
from messaging.logs.repetition import RepeatingLogger
from messaging.text import storable
from messaging.topology import declare, takes_replies
from messaging.traces.spans import processing
from messaging.worker import run_until_stopped

from .functions import Served
from .protocol import Reply, Request

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)

#: What to do about a queue that the broker refuses, by reply code.
REMEDIES = {
    403: "The user of MESSAGING['URL'] needs permission to read it, and to configure "
    "it if it is missing; no other program may consume it exclusively.",
    404: "It is missing, and MESSAGING['DECLARE'] is False: whoever makes the topology "
    "must make it.",
    405: "It is exclusive to another connection: end that program, or choose another "
    "name with @serves(..., queue=...).",
}
TRANSIENT_REFUSED = (
    "RabbitMQ refuses transient queues from version 4.3 on: leave durable=False out."
)


class KillsServers(Exception):
    """Every server that received this call has died."""


class Server:
    """
    Serves one function, in as many threads as call `run`.

    It prefetches no more calls than it has threads, so that idle servers get the
    others. A call is acknowledged when the broker has confirmed the reply, so that
    another server runs it if this one dies. Calls past their deadline are dropped.

    It has a connection of its own, as brokers refuse some queues by closing the
    connection. It tries such a queue again after growing pauses.
    """

    def __init__(self, function: Served, threads: int) -> None:
        self._served = function
        self._threads = threads
        self.connection = Connection(f"server-{function.name}", self)
        self._changed = threading.Condition()
        self._requests: deque[Request] = deque()
        self._stopping = False
        self._channel: Any = None
        #: Whether the queue has to be declared, as it does not exist.
        self._is_missing = False
        self._pause = Backoff()
        #: Since when the queue is consumed, on the monotonic clock.
        self._consumed_since: float | None = None
        #: Seconds to wait after this process itself has closed the channel.
        self._pause_after_close = 0.0
        hide_refusals(lambda: self._channel, NOT_FOUND)

    def stop(self) -> None:
        """Finish the running calls, return the others to the queue, end `run`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.connection.submit(self._cancel)

    def run(self) -> None:
        """Serve calls, one at a time, until `stop`."""
        while (request := self._next()) is not None:
            calls = [request.delivery(self._served.queue)]
            with working_on(Handling(calls)), processing(calls, "SERVER"):
                self._serve(request)

    def _next(self) -> Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._stopping)
            return None if self._stopping else self._requests.popleft()

    def _serve(self, request: Request) -> None:
        left = request.seconds_left
        if left is not None and left <= 0:
            logger.warning(
                "A call of %s came %.1f s after its deadline and is dropped; if this "
                "happens to every call, the clocks of callers and servers differ",
                self._served.name,
                -left,
            )
            self._settle(request)
            return
        close_stale_connections()
        reply = self._reply(request)
        close_stale_connections()
        logger.info("A call of %s gave a reply: %s", self._served.name, reply.type)
        self._settle(request, is_done=self._send(request, reply))

    def _reply(self, request: Request) -> Reply:
        if request.is_suspect:
            logger.error("A call of %s kills its servers", self._served.name)
            return Reply.failure(KillsServers())
        return self._served.reply(request.body, request.properties)

    def _send(self, request: Request, reply: Reply) -> bool:
        """Send a reply; return whether the call is done, else it must run again."""
        reply_to = request.properties.reply_to
        if not reply_to:
            return True
        if not takes_replies(storable(reply_to)):
            text = "A reply of %s is not sent to %s, which takes none"
            logger.warning(text, self._served.name, reply_to)
            return True
        # Callers choose deadline and queue: neither may occupy a thread for long.
        wanted = max(settings.CONFIRM_TIMEOUT, request.seconds_left or 0.0)
        timeout = min(wanted, settings.REPLY_TIMEOUT)
        try:
            publisher().publish(reply.envelope(request.properties), timeout=timeout)
        except Unconfirmed as error:
            if publisher().problem() is None:
                text = "The queue %r takes no reply of %s, which is dropped: %s"
                logger.warning(text, reply_to, self._served.name, error)
                return True
            logger.warning("A call of %s is run again: %s", self._served.name, error)
            return False
        except PublishError:
            logger.exception("A reply of %s cannot be sent", self._served.name)
        return True

    def _settle(self, request: Request, *, is_done: bool = True) -> None:
        def settle() -> None:
            # On a newer channel the tag means another call; this one is redelivered.
            channel = request.channel
            if channel is self._channel and channel.is_open:
                (channel.basic_ack if is_done else channel.basic_nack)(request.tag)

        self.connection.submit(settle)

    # The following methods run in the I/O thread.

    def opened(self, channel: Any) -> None:
        """
        Consume the queue as it is, or declare it if it is missing.

        Another program may have declared it with other arguments, which do no harm.
        """
        if self._stopping:
            return
        self._channel = channel
        if self._is_missing:
            declare(channel, self._served.declaration)
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=self._threads)
        channel.basic_consume(
            self._served.queue, self._on_call, callback=self._subscribed
        )

    def closed(self, error: Exception) -> float:
        """Drop the calls that the broker redelivers; return the seconds to wait."""
        self._channel = None
        with self._changed:
            self._requests.clear()
        code = getattr(error, "reply_code", None)
        if code in NORMAL:
            pause, self._pause_after_close = self._pause_after_close, 0.0
            return pause
        if code == NOT_FOUND and settings.DECLARE and not self._is_missing:
            self._is_missing = True
            return 0.0
        self._is_missing = False
        if code in (None, CONNECTION_FORCED):
            text = "Lost the queue %s: %s"
            repeating.warning(text, self._served.queue, error, about=self._served.queue)
            return self._next_pause()
        remedy = REMEDIES.get(code, "")
        if code == INTERNAL_ERROR and not self._served.durable:
            remedy = TRANSIENT_REFUSED
        return self._refused(f"{error}. {remedy}".strip())

    def _refused(self, reason: str) -> float:
        """Log why the queue cannot be used, and return the seconds to wait."""
        name, queue, pause = self._served.name, self._served.queue, self._next_pause()
        repeating.error(
            "%s is not served: its queue %s cannot be used: %s Next attempt in %.1f s.",
            name,
            queue,
            reason,
            pause,
            about=name,
        )
        return pause

    def _next_pause(self) -> float:
        """Return the seconds until the next attempt."""
        since, self._consumed_since = self._consumed_since, None
        if since is not None and time.monotonic() - since > STABLE:
            self._pause = Backoff()
        return self._pause()

    def unblocked(self) -> None:
        """Do nothing: a broker that blocks publishers does not block consumers."""

    def _subscribed(self, _frame: Any) -> None:
        if (channel := self._channel) is not None and channel.is_open:
            queue = self._served.queue
            channel.queue_declare(queue, passive=True, callback=self._counted)

    def _counted(self, frame: Any) -> None:
        if frame.method.consumer_count:
            self._is_missing = False
            self._consumed_since = time.monotonic()
            ConsumerWatchdog(self._channel, self._served.queue, close).start()
            return
        # The consumers of a stream are not counted. Each would get every call.
        reason = "It seems to be a stream; calls need a classic or quorum queue."
        self._pause_after_close = self._refused(reason)
        close(self._channel)

    def _on_call(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is not self._channel:
            return
        request = Request(channel, method, properties, body)
        if self._stopping:
            channel.basic_nack(request.tag)
            return
        with self._changed:
            self._requests.append(request)
            self._changed.notify()

    def _cancelled(self, _frame: Any) -> None:
        text, name = "The broker has cancelled the consumer of %s", self._served.name
        repeating.warning(text, name, about=name)
        close(self._channel)

    def _cancel(self) -> None:
        """Stop consuming, and requeue the calls that no thread has started."""
        channel = self._channel
        if channel is not None and channel.is_open:
            for tag in channel.consumer_tags:
                channel.basic_cancel(tag)
            with self._changed:
                while self._requests:
                    channel.basic_nack(self._requests.popleft().tag)


def run_servers(functions: Sequence[Served], threads: int) -> int:
    """
    Serve functions, each in `threads` threads, until SIGTERM or SIGINT.

    Returns an exit code as `run_until_stopped` does.
    """
    servers = [Server(function, threads) for function in functions]
    for server in servers:
        server.connection.start()

    def stop() -> None:
        for server in servers:
            server.stop()

    loops = [server.run for server in servers for _ in range(threads)]
    return run_until_stopped(loops, stop, *(one.connection for one in servers))
