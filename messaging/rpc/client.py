"""Call functions that other processes serve, and receive their replies."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import cycle
from typing import Any, Self

from pydantic_core import PydanticSerializationError, to_json

from messaging.amqp.backoff import Backoff
from messaging.amqp.channels import UNREFUSED
from messaging.amqp.connection import Connection
from messaging.amqp.process import OnePerProcess
from messaging.amqp.publisher import publisher
from messaging.amqp.queues import QueueProbe
from messaging.amqp.reply_queue import consume
from messaging.conf import settings
from messaging.envelope import PARTITIONS, SHORT, Envelope
from messaging.exceptions import CallTimeout, NoServer, Unconfirmed, Unroutable
from messaging.logs.context import inheriting
from messaging.logs.repetition import RepeatingLogger
from messaging.traces.spans import sending

from .functions import queue_of
from .protocol import CALL, DEADLINE, JSON, MAX_TIMEOUT, TEXT, Reply

repeating = RepeatingLogger(__name__)

#: The beginning of the names of reply queues.
REPLIES = "replies."
#: Finished requests that are remembered, to classify replies that come after them.
MAX_FINISHED = 10_000


def call(
    name: str, payload: Any = None, *, timeout: float | None = None, text: bool = False
) -> Any:
    """
    Call the function served under `name` by this or another program; return its result.

    A dictionary holds the arguments by name; None means no arguments. With `text` the
    payload is sent as plain text, and a reply without a content type is returned as
    text. Waits at most `timeout` seconds in all (`MESSAGING["CALL_TIMEOUT"]`).

    Raises `NoServer` at once if no process serves the name, `InvalidCall` if the
    payload is refused, `RemoteError` if the function fails, `CallTimeout` if no reply
    comes in time, `TooLarge`, or another `PublishError` if the call cannot be sent.
    """
    if timeout is None:
        timeout = settings.CALL_TIMEOUT
    if not 0 < timeout <= MAX_TIMEOUT:
        raise ValueError(
            f"timeout is {timeout}; it must be above 0 and at most a day, in seconds."
        )
    queue = queue_of(name)
    if not 0 < len(queue.encode()) <= SHORT:
        raise ValueError(f"The name of a queue has 1 to {SHORT} bytes.")
    deadline = time.monotonic() + timeout
    envelope = envelope_for(queue, payload, timeout, text=text)
    try:
        with replies().expected(str(envelope.correlation_id), timeout) as reply:
            if not replies().probe.is_consumed(queue, seconds_until(deadline)):
                raise NoServer(f"No process serves {name!r}. Start `manage.py serve`.")
            envelope = envelope.copy(reply_to=replies().address)
            with sending([envelope]) as (sent,):
                publisher().publish(sent, timeout=seconds_until(deadline))
            return reply.result(seconds_until(deadline)).value(text=text)
    except Unroutable:
        raise NoServer(f"No process serves {name!r}: it has no queue.") from None
    except ReplyLost:
        raise CallTimeout(
            f"{name!r} may have been called, but the connection by which its reply "
            "would come was lost."
        ) from None
    except (TimeoutError, Unconfirmed) as error:
        reason = str(error) or replies().problem() or ""
        raise CallTimeout(
            f"{name!r} did not answer within {timeout:g} s. {reason}".rstrip()
        ) from None


def envelope_for(
    queue: str, payload: Any, timeout: float, *, text: bool = False
) -> Envelope:
    """Return the envelope of a call; raises `ValueError` as `encode` does."""
    call_id = str(uuid.uuid4())
    milliseconds = max(1, int(timeout * 1000))
    call = Envelope(
        encode(payload, text=text),
        routing_key=queue,
        message_id=call_id,
        type=CALL,
        content_type=TEXT if text else JSON,
        correlation_id=call_id,
        reply_to=replies().address,
        expiration=str(milliseconds),
        headers={DEADLINE: int(time.time() * 1000) + milliseconds},
    )
    return inheriting([call])[0]


def encode(payload: Any, *, text: bool) -> bytes:
    """Return the body of a call; raises `ValueError` for what JSON cannot represent."""
    if text:
        if isinstance(payload, bytes):
            return payload
        return b"" if payload is None else str(payload).encode()
    try:
        return to_json({} if payload is None else payload, inf_nan_mode="strings")
    except PydanticSerializationError as error:
        raise ValueError(f"The payload cannot be sent as JSON: {error}.") from None


def seconds_until(deadline: float) -> float:
    """Return the seconds until a time of the monotonic clock, at least 0."""
    return max(0.0, deadline - time.monotonic())


def dropped_replies() -> dict[str, int]:
    """
    Return how many replies to this process were dropped because no request awaits them.

    They are counted as "duplicate" (one has already been delivered), "late" (its
    caller has given up) or "unknown".
    """
    return dict(replies().dropped)


class CannotWait(TimeoutError):
    """No reply can be received now, or too many are awaited."""


class ReplyLost(TimeoutError):
    """The reply queue was lost with its connection, and what was sent to it too."""


def new_address() -> str:
    """Return a name for a reply queue."""
    return f"{REPLIES}{uuid.uuid4()}"


class Replies:
    """
    The exclusive reply queue of this process; `address` goes into `reply_to`.

    One connection serves all threads that wait. The queue exists as long as the
    connection: when that is lost, with its node or without, all who wait get
    `ReplyLost`. Each connection has a queue of another name, because a broker that has
    not noticed the end of the last one keeps its queue locked.

    Without `MESSAGING["DECLARE"]` it is no queue: see `reply_queue.py`.
    """

    def __init__(self) -> None:
        self.address = new_address()
        self.probe = QueueProbe()
        self._pause = Backoff()
        #: Why the broker refuses the queue, if it does.
        self._refusal: str | None = None
        #: Replies that no request awaits: "duplicate", "late" or "unknown".
        self.dropped: Counter[str] = Counter()
        #: By correlation id; a request that is sent twice may be awaited twice.
        self._pending: dict[str, list[Future[Reply]]] = {}
        #: Those of them whose request may name the present queue.
        self._sent: set[Future[Reply]] = set()
        #: How to count a further reply to a finished request; the oldest come first.
        self._finished: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        #: What may be published to, in turn: a user may lack the permission for one.
        self._exchanges = cycle(["", PARTITIONS])
        self.connection = Connection(f"replies-{os.getpid()}", self, self.probe)

    def connect(self) -> Self:
        """Start connecting in the background, and return self."""
        self.probe.attach(self.connection.submit)
        self.connection.start()
        return self

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection; the broker deletes the queue with it."""
        self.connection.close(timeout)

    @contextmanager
    def expected(
        self, correlation_id: str, timeout: float, limit: float = math.inf
    ) -> Iterator[Future[Reply]]:
        """
        Yield the future of a reply; enter before the request is published.

        Raises `CannotWait` if the queue is not ready within `timeout` seconds, and at
        once if `limit` replies are awaited already. The future raises `ReplyLost`.
        """
        reply: Future[Reply] = Future()
        with self._lock:
            if sum(map(len, self._pending.values())) >= limit:
                raise CannotWait(f"{limit} replies are awaited already.")
            self._pending.setdefault(correlation_id, []).append(reply)
        try:
            if not self._ready.wait(timeout):
                raise CannotWait(self.problem() or "There is no reply queue yet.")
            with self._lock:
                self._sent.add(reply)
            yield reply
        finally:
            self._give_up(correlation_id, reply)

    def problem(self) -> str | None:
        """Return why no reply can arrive right now, or None."""
        return self.connection.problem() or self._refusal

    def _give_up(self, correlation_id: str, reply: Future[Reply]) -> None:
        """Stop waiting; a reply that comes after the last waiter has left is late."""
        with self._lock:
            self._sent.discard(reply)
            pending = self._pending.get(correlation_id, [])
            if reply in pending:
                pending.remove(reply)
                if not pending:
                    self._finish(correlation_id, "late")

    def _finish(self, correlation_id: str, further: str) -> list[Future[Reply]]:
        """Remove and return the waiters of a request; the lock must be held."""
        pending = self._pending.pop(correlation_id, [])
        self._finished[correlation_id] = further
        if len(self._finished) > MAX_FINISHED:
            self._finished.popitem(last=False)
        return pending

    # The following methods run in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Consume a new queue."""
        exchange = next(self._exchanges)
        consume(channel, self.address, exchange, self._received, self._subscribed)

    def _subscribed(self, address: str) -> None:
        self.address = address
        self._refusal = None
        self._pause = Backoff()
        self._ready.set()

    def closed(self, error: Exception) -> float:
        """Prepare the next queue; return the seconds until it may be declared."""
        self._ready.clear()
        self.address = new_address()
        with self._lock:
            lost = [reply for reply in self._sent if not reply.done()]
        for reply in lost:
            reply.set_exception(ReplyLost("The reply queue was lost."))
        if getattr(error, "reply_code", None) in UNREFUSED:
            return 0.0
        self._refusal = f"The broker refuses the reply queue: {error}."
        repeating.error("The broker refuses the reply queue: %s", error)
        return self._pause()

    def unblocked(self) -> None:
        """Do nothing: a broker that blocks publishers does not block consumers."""

    def _received(
        self, _channel: Any, _method: Any, properties: Any, body: bytes
    ) -> None:
        correlation_id = str(properties.correlation_id)
        with self._lock:
            pending = []
            if correlation_id in self._pending:
                pending = self._finish(correlation_id, "duplicate")
        for reply in pending:
            if reply.done():
                continue  # it was lost, and its caller has yet to notice
            reply.set_result(Reply(body, properties.type, properties.content_type))
        if not pending:
            kind = self._finished.get(correlation_id, "unknown")
            self.dropped[kind] += 1
            text = "Dropped a reply, %s: %s"
            repeating.info(text, kind, correlation_id, about=kind)


#: Returns the reply queue of this process.
replies = OnePerProcess(lambda: Replies().connect())
