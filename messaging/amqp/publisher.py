"""Confirmed publishing: many threads share one connection and its pipeline."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

from messaging.conf import settings
from messaging.exceptions import PublishError, TooLarge, Unconfirmed, Unroutable
from messaging.message import PARTITION_KEY, Envelope

from .channels import NOT_FOUND
from .client import declare
from .connection import Connection
from .process import OnePerProcess

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds before a message that the broker refused is offered again.
REFUSED_PAUSE = 0.1
#: Bytes of all properties together: they must fit into one frame of 128 KiB, or the
#: broker closes the connection.
MAX_PROPERTIES = 128 * 1024 - 64
#: Bytes of bodies that await their confirm at a time, for a broker that stops reading
#: leaves them in this process's memory.
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
#: Reply codes with which a broker closes connections for reasons of its own.
NO_FAULT = (320, 541)  # CONNECTION_FORCED, INTERNAL_ERROR
#: What pika raises for values that do not fit into its frames, and on closed channels.
UNSENDABLE = (
    AMQPError,
    struct.error,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
)


class PublishRequest:
    """Some envelopes that one caller publishes and waits for."""

    __slots__ = ("_done", "_left", "given_up", "publications")

    def __init__(self, envelopes: Sequence[Envelope]) -> None:
        self.publications = [Outgoing(self, envelope) for envelope in envelopes]
        #: Whether the caller was answered: nothing may be sent any more.
        self.given_up = False
        self._left = sum(not one.is_settled for one in self.publications)
        # The cheapest thing in Python to wait for with a timeout.
        self._done = threading.Lock()
        self._done.acquire()

    def wait(self, timeout: float) -> bool:
        """Whether everything was settled within `timeout` seconds."""
        return self._left == 0 or self._done.acquire(timeout=max(0.0, timeout))

    def settled_one(self) -> None:
        """Wake the caller after the last one; called in the I/O thread."""
        self._left -= 1
        if not self._left:
            self._done.release()


class Outgoing:
    """One envelope on its way to the broker."""

    __slots__ = ("call", "envelope", "error", "is_settled", "properties", "returned")

    def __init__(self, call: PublishRequest, envelope: Envelope) -> None:
        self.call = call
        self.envelope = envelope
        #: Why the broker gave it back, once it has.
        self.returned: str | None = None
        self.error: PublishError | None = None
        self.properties: Properties | None = None
        try:
            self.properties = Properties(envelope)
        except PublishError as error:
            self.error = error
        self.is_settled = self.error is not None

    def settle(self, error: PublishError | None = None) -> None:
        """Let the caller know; called in the I/O thread."""
        self.error = error
        self.is_settled = True
        self.call.settled_one()


class Properties(pika.BasicProperties):  # type: ignore[misc]
    """Those of a message, encoded in the caller's thread, and once only."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(
            message_id=envelope.message_id,
            type=envelope.type,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            priority=envelope.priority,
            timestamp=envelope.timestamp and int(envelope.timestamp.timestamp()),
            app_id=envelope.app_id or settings.APP_ID,
            correlation_id=envelope.correlation_id,
            reply_to=envelope.reply_to,
            expiration=envelope.expiration,
            user_id=envelope.user_id,
            headers=envelope.headers or None,
            delivery_mode=2 if envelope.persistent else 1,
        )
        try:
            self._pieces = super().encode()
        except UNSENDABLE as error:
            raise PublishError(f"The properties cannot be sent: {error!r}") from error
        if sum(map(len, self._pieces)) > MAX_PROPERTIES:
            raise TooLarge(f"The properties take more than {MAX_PROPERTIES} bytes.")

    def encode(self) -> list[bytes]:
        """Give a list that pika may change."""
        return list(self._pieces)


class Publisher:
    """
    Publishes with confirms; what is unconfirmed when the connection is lost goes out
    again under the same `message_id` on the next one, until its caller gives up.

    Only the I/O thread sends and settles; callers put into `_waiting` and sleep.
    """

    def __init__(self, name: str = "publisher") -> None:
        self.connection = Connection(name, self)
        self._channel: Channel | None = None
        self._waiting: deque[Outgoing] = deque()
        #: In the order of their delivery tags.
        self._unconfirmed: dict[int, Outgoing] = {}
        self._unconfirmed_bytes = 0
        self._next_tag = 1
        #: Held to send and to give up, so that nothing given up is sent.
        self._lock = threading.Lock()
        #: Those among which is the one that made the broker close the channel.
        self._suspects: set[Outgoing] = set()
        self._refused: list[Outgoing] = []
        self._flush_is_due = False
        #: Why the broker did not confirm, as far as we know.
        self._last_problem = ""
        self.connection.start()

    def publish(
        self,
        *envelopes: Envelope,
        timeout: float | None = None,
        limit: bool = True,
        in_turn: bool = False,
    ) -> None:
        """
        Publish in order and return when the broker has confirmed each.

        All are on their way at a time; with `in_turn` those of one partition key go one
        after the other, as `rounds` says why. Waits `timeout` seconds
        (`MESSAGING["CONFIRM_TIMEOUT"]`) in all. Raises `TooLarge`, unless `limit` is
        false, before anything is sent, `Unroutable` when no queue takes a mandatory
        one, `Unconfirmed` when time is up, and otherwise `PublishError`. Nothing is
        sent any more after that.
        """
        if timeout is None:
            timeout = settings.CONFIRM_TIMEOUT
        deadline = time.monotonic() + timeout
        if limit and any(len(one.body) > settings.MAX_BODY for one in envelopes):
            raise TooLarge
        steps = [envelopes]
        if in_turn:
            keyed = rounds(
                envelopes,
                key=lambda one: str(one.headers.get(PARTITION_KEY) or one.message_id),
            )
            steps = [tuple(step.values()) for step in keyed]
        calls = [PublishRequest(step) for step in steps]
        _raise_first(one.error for call in calls for one in call.publications)
        for call in calls:
            _raise_first(self._outcomes(call, deadline))

    def outcomes(
        self, *envelopes: Envelope, timeout: float | None = None
    ) -> list[PublishError | None]:
        """
        Publish, and give for each envelope what `publish` would raise, if so.

        Spool of any size are sent. Raises `Unconfirmed` if too many messages wait.
        """
        if timeout is None:
            timeout = settings.CONFIRM_TIMEOUT
        return self._outcomes(PublishRequest(envelopes), time.monotonic() + timeout)

    def problem(self, patience: float = 0.0) -> str | None:
        """Say why nothing can be published, waiting `patience` for a connection."""
        return self.connection.problem(patience)

    def _outcomes(
        self, call: PublishRequest, deadline: float
    ) -> list[PublishError | None]:
        if len(self._waiting) > settings.MAX_IN_FLIGHT:
            raise Unconfirmed(f"Too many messages wait for the broker. {self._why()}")
        self._waiting.extend(one for one in call.publications if not one.is_settled)
        self._flush_soon()
        done = False
        try:
            done = call.wait(deadline - time.monotonic())
        finally:
            if not done:
                self._give_up(call)
        if done:
            return [one.error for one in call.publications]
        late = Unconfirmed(f"The broker did not confirm in time. {self._why()}")
        return [one.error if one.is_settled else late for one in call.publications]

    def declare(self) -> None:
        """Declare all queues and exchanges; raises what `connection.declare` does."""
        declare()

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection; whoever still waits gets `Unconfirmed` in time."""
        self.connection.close(timeout)

    def _give_up(self, call: PublishRequest) -> None:
        with self._lock:
            call.given_up = True
            self._suspects.difference_update(call.publications)
            for one in call.publications:
                # By identity, and without a switch of threads.
                if one in self._waiting:
                    self._waiting.remove(one)

    def _why(self) -> str:
        return self.problem() or self._last_problem

    def _flush_soon(self) -> None:
        # One wake-up of the I/O thread serves all that is waiting by then.
        if not self._flush_is_due:
            self._flush_is_due = True
            self.connection.submit(self._flush)

    # What follows runs in the I/O thread.

    def opened(self, channel: Channel) -> None:
        """Take up publishing on a new channel."""
        channel.confirm_delivery(self._confirmed)
        channel.add_on_return_callback(self._returned)
        self._next_tag = 1
        self._channel = channel
        self._flush()

    def closed(self, error: Exception) -> float:
        """
        Put what is unconfirmed back in front, in its order.

        If the broker closed the channel because of a message, it does not say which.
        They are then sent one at a time: the next to close the channel is the one.
        """
        self._channel = None
        self._last_problem = str(error)
        with self._lock:
            again = [*self._refused, *self._unconfirmed.values()]
            self._refused.clear()
            self._unconfirmed.clear()
            self._unconfirmed_bytes = 0
            if is_fault_of_a_message(error):
                if len(again) == 1:
                    self._drop_culprit(again.pop(), error)
                # Who has given up has no more use for being found out.
                self._suspects.update(one for one in again if not one.call.given_up)
            for one in reversed(again):
                one.returned = None
                self._put_back(one)
        return 0.0

    def unblocked(self) -> None:
        """Send what has waited for the broker to take messages again."""
        self._flush()

    def _drop_culprit(self, publication: Outgoing, error: Exception) -> None:
        self._suspects.discard(publication)
        logger.error("The broker refuses a message: %s", error)
        kind = (
            Unroutable if getattr(error, "reply_code", 0) == NOT_FOUND else PublishError
        )
        publication.settle(kind(f"The broker refuses this message: {error}"))

    def _put_back(self, publication: Outgoing) -> None:
        if not publication.call.given_up:
            self._waiting.appendleft(publication)

    def _flush(self) -> None:
        self._flush_is_due = False
        with self._lock:
            while self._waiting and self._may_send():
                self._send(self._waiting.popleft())

    def _may_send(self) -> bool:
        if self._channel is None or not self._channel.is_open:
            return False
        if self.connection.blocked:
            return False
        if self._suspects and self._unconfirmed:
            return False
        return (
            len(self._unconfirmed) < settings.MAX_IN_FLIGHT
            and self._unconfirmed_bytes < MAX_BYTES_IN_FLIGHT
        )

    def _send(self, publication: Outgoing) -> None:
        assert self._channel is not None  # or there would be no leave to send
        envelope = publication.envelope
        try:
            self._channel.basic_publish(
                envelope.exchange,
                envelope.routing_key,
                envelope.body,
                publication.properties,
                mandatory=envelope.mandatory,
            )
        except UNSENDABLE as error:
            # Nothing was sent, and the next tag is still free.
            if self._channel.is_open:
                self._drop_culprit(publication, error)
            else:
                self._put_back(publication)
            return
        self._unconfirmed[self._next_tag] = publication
        self._unconfirmed_bytes += len(envelope.body)
        self._next_tag += 1

    def _returned(
        self, _channel: Channel, method: Any, properties: Any, _body: bytes
    ) -> None:
        # The broker returns messages in their order, each before its confirm.
        place = (properties.message_id, method.exchange, method.routing_key)
        for one in self._unconfirmed.values():
            envelope = one.envelope
            if one.returned is None and place == (
                envelope.message_id,
                envelope.exchange,
                envelope.routing_key,
            ):
                one.returned = f"{method.reply_text}: {method.routing_key!r}"
                break

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        refused = isinstance(method, pika.spec.Basic.Nack)
        tags = [method.delivery_tag]
        if method.multiple:
            tags = []
            for tag in self._unconfirmed:
                if tag > method.delivery_tag:
                    break
                tags.append(tag)
        for tag in tags:
            if publication := self._unconfirmed.pop(tag, None):
                self._unconfirmed_bytes -= len(publication.envelope.body)
                self._suspects.discard(publication)
                self._settle(publication, refused)
        if self._waiting:
            self._flush()

    def _settle(self, publication: Outgoing, refused: bool) -> None:
        if refused:
            self._last_problem = "The queue refuses messages for now."
            publication.returned = None
            if not self._refused:
                assert self._channel is not None  # it has just refused something
                loop = self._channel.connection.ioloop
                loop.call_later(REFUSED_PAUSE, self._offer_again)
            self._refused.append(publication)
        elif publication.returned:
            publication.settle(
                Unroutable(
                    f"No queue takes this message ({publication.returned}): "
                    "run `manage.py topology apply`."
                )
            )
        else:
            publication.settle()

    def _offer_again(self) -> None:
        with self._lock:
            for publication in reversed(self._refused):
                self._put_back(publication)
            self._refused.clear()
        self._flush()


def _raise_first(errors: Iterable[PublishError | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def is_fault_of_a_message(error: Exception) -> bool:
    """Whether the broker closed channel or connection because of what was sent."""
    if isinstance(error, ConnectionClosedByBroker):
        return error.reply_code not in NO_FAULT
    return isinstance(error, ChannelClosedByBroker)


def rounds(items: Iterable[T], key: Callable[[T], str]) -> Iterator[dict[str, T]]:
    """
    Divide items so that no two of one key are on their way to the broker at a time.

    Of two that are, a queue that is full for a moment may refuse the first and take
    the second.
    """
    steps: list[dict[str, T]] = []
    counts: dict[str, int] = {}
    for item in items:
        name = key(item)
        turn = counts.get(name, 0)
        counts[name] = turn + 1
        if turn == len(steps):
            steps.append({})
        steps[turn][name] = item
    yield from steps


#: Gives the publisher of this process.
publisher = OnePerProcess(lambda: Publisher(f"publisher-{os.getpid()}"))
