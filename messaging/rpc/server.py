"""Serve functions: receive a call, run the function, reply, acknowledge."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from messaging.amqp.channels import NORMAL, PRECONDITION_FAILED, close
from messaging.amqp.connection import Connection
from messaging.amqp.publisher import publisher
from messaging.backoff import Backoff
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import InvalidCall, PublishError, Reject, Unconfirmed
from messaging.registry import Function, refuse_deferred
from messaging.worker import run_until_stopped

from .arguments import Parameters
from .protocol import Reply, Request

logger = logging.getLogger(__name__)


class KillsServers(Exception):
    """Every server that received this call has died."""


@dataclass(frozen=True)
class Served:
    """A function, the queue of its calls, and how it replies."""

    name: str
    queue: str
    function: Callable[..., Any]
    text: bool
    expose_errors: bool
    durable: bool
    parameters: Parameters = field(repr=False)

    def reply(self, body: bytes, properties: Any) -> Reply:
        """Run the function with the arguments in `body`; return its result or error."""
        try:
            arguments = self.parameters.read(body, properties, text=self.text)
        except InvalidCall as error:
            logger.info("%s refused a payload: %s", self.name, error)
            return Reply.refusal(error)
        try:
            return self._result(arguments)
        except Reject as error:
            logger.info("%s refused a call: %s", self.name, error)
            return Reply.failure(error)
        except Exception as error:
            # The caller gets an error reply whatever it is, and the server goes on.
            logger.exception("%s failed", self.name)
            return Reply.failure(error, exposed=self.expose_errors)

    def _result(self, arguments: dict[str, Any]) -> Reply:
        reply = Reply.of(self.function(**arguments), text=self.text)
        if len(reply.body) > settings.MAX_BODY:
            raise ValueError(f"The result of {self.name} is too large.")
        return reply


#: By name; filled by `@serves` in the `handlers.py` of each app.
served: dict[str, Served] = {}


def serves(
    name: str,
    *,
    queue: str | None = None,
    text: bool = False,
    expose_errors: bool = False,
    durable: bool = True,
) -> Callable[[Function], Function]:
    """
    Serve a function under `name`, through the queue `queue` (by default `name`).

        @serves("price")
        def price(article: str, amount: Annotated[int, Field(ge=1)] = 1) -> Decimal:

    The arguments are checked against the type hints before it runs; it raises `Reject`
    for what it refuses. It may run twice for one call, if a server dies or loses its
    connection before the reply is confirmed, so it should be idempotent.

    With `text` it replies in plain text instead of JSON. With `expose_errors` callers
    get the messages and tracebacks of its exceptions. `durable=False` makes the queue a
    transient classic one, for systems that declare it so.
    """
    if not name or queue == "":
        raise ImproperlyConfigured("@serves needs a name and a queue.")

    def register(function: Function) -> Function:
        refuse_deferred(function)
        queues = {one.queue: one for one in served.values()}
        other = served.get(name) or queues.get(queue or name)
        if other is not None:
            raise ImproperlyConfigured(
                f"{name!r} is served by two functions: {other.function.__qualname__} "
                f"and {function.__qualname__}. Each needs its own name and queue."
            )
        served[name] = Served(
            name=name,
            queue=queue or name,
            function=function,
            text=text,
            expose_errors=expose_errors,
            durable=durable,
            parameters=Parameters(function),
        )
        return function

    return register


def queue_of(name: str) -> str:
    """Return the queue of a name; that of a function served elsewhere is its name."""
    return served[name].queue if name in served else name


class Server:
    """
    Serves one function, in as many threads as call `run`.

    It prefetches no more calls than it has threads, so that idle servers get the
    others. A call is acknowledged when the broker has confirmed the reply, so that
    another server runs it if this one dies. Calls past their deadline are dropped.
    """

    def __init__(self, function: Served, threads: int) -> None:
        self._served = function
        self._threads = threads
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        self._changed = threading.Condition()
        self._requests: deque[Request] = deque()
        self._stopping = False
        self._channel: Any = None
        #: False while the queue exists with other arguments, and is used as it is.
        self._declares = True
        self._pause = Backoff()

    def attach(self, connection: Connection) -> None:
        """Use the I/O thread of `connection`."""
        self._submit = connection.submit

    def stop(self) -> None:
        """Finish the running calls, return the others to the queue, end `run`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._submit(self._cancel)

    def run(self) -> None:
        """Serve calls, one at a time, until `stop`."""
        while (request := self._next()) is not None:
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
        started = time.monotonic()
        close_stale_connections()
        reply = self._reply(request)
        close_stale_connections()
        milliseconds = (time.monotonic() - started) * 1000
        logger.info("%s: %s in %.1f ms", self._served.name, reply.type, milliseconds)
        self._settle(request, is_done=self._send(request, reply))

    def _reply(self, request: Request) -> Reply:
        if request.is_suspect:
            logger.error("A call of %s kills its servers", self._served.name)
            return Reply.failure(KillsServers())
        return self._served.reply(request.body, request.properties)

    def _send(self, request: Request, reply: Reply) -> bool:
        """Send a reply; return whether the call is done, else it must run again."""
        if not request.properties.reply_to:
            return True
        timeout = max(settings.CONFIRM_TIMEOUT, request.seconds_left or 0.0)
        try:
            publisher().publish(reply.envelope(request.properties), timeout=timeout)
        except Unconfirmed as error:
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

        self._submit(settle)

    # The following methods run in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Declare the queue and consume it."""
        if self._stopping:
            return
        self._channel = channel
        queue, durable = self._served.queue, self._served.durable
        if self._declares:
            # A transient queue must be a classic one.
            arguments = {"x-queue-type": settings.QUEUE_TYPE} if durable else {}
            channel.queue_declare(queue, durable=durable, arguments=arguments)
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=self._threads)
        channel.basic_consume(queue, self._on_call, callback=self._subscribed)

    def closed(self, error: Exception) -> float:
        """Drop the calls that the broker redelivers; return the seconds to wait."""
        self._channel = None
        with self._changed:
            self._requests.clear()
        code = getattr(error, "reply_code", None)
        if code in NORMAL:
            return 0.0
        logger.warning("Lost the queue %s: %s", self._served.queue, error)
        if code == PRECONDITION_FAILED and self._declares:
            # Another program declared it with other arguments, which do no harm.
            self._declares = False
            return 0.0
        self._declares = True
        return self._pause()

    def unblocked(self) -> None:
        """Do nothing: a broker that blocks publishers does not block consumers."""

    def _subscribed(self, _frame: Any) -> None:
        self._pause = Backoff()

    def _on_call(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is not self._channel:
            return
        request = Request(channel, method.delivery_tag, properties, body)
        if self._stopping:
            channel.basic_nack(request.tag)
            return
        with self._changed:
            self._requests.append(request)
            self._changed.notify()

    def _cancelled(self, _frame: Any) -> None:
        logger.warning("The broker has cancelled the consumer of %s", self._served.name)
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
    connection = Connection("server", *servers)
    for server in servers:
        server.attach(connection)
    connection.start()

    def stop() -> None:
        for server in servers:
            server.stop()

    loops = [server.run for server in servers for _ in range(threads)]
    return run_until_stopped(loops, stop, connection)
