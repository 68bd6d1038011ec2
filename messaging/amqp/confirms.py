"""
The I/O half of publishing: send what callers wait for, and settle it.

The upper half of `ConfirmChannel` is called in the threads of callers. Everything below
its comment runs in the connection's I/O thread, which alone sends and settles.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from messaging.conf import settings
from messaging.exceptions import PublishError, Unconfirmed, Unroutable

from .channels import NOT_FOUND
from .connection import Connection
from .encoding import UNSENDABLE
from .outgoing import Outgoing, PublishRequest

logger = logging.getLogger(__name__)

#: Seconds before a message that a queue refused is sent again.
REFUSED_PAUSE = 0.1
#: Bytes of bodies that await their confirm at a time: if the broker stops reading, they
#: stay in the memory of this process.
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
#: Reply codes with which a broker closes connections for reasons of its own.
NO_FAULT = (320, 541)  # CONNECTION_FORCED, INTERNAL_ERROR


class ConfirmChannel:
    """
    A channel with publisher confirms that all callers share.

    Messages are sent in the order in which they were added. What is unconfirmed when
    the channel is lost is sent again, first and under the same `message_id`, on the
    next one, unless its caller has given up.
    """

    def __init__(self) -> None:
        #: Why messages were not confirmed, as far as it is known.
        self.last_problem = ""
        self._connection: Connection
        self._channel: Channel | None = None
        self._waiting: deque[Outgoing] = deque()
        #: By delivery tag, in ascending order.
        self._unconfirmed: dict[int, Outgoing] = {}
        self._unconfirmed_bytes = 0
        self._next_tag = 1
        #: Held to send and to cancel, so that nothing cancelled is sent.
        self._lock = threading.Lock()
        #: Messages one of which made the broker close the channel.
        self._suspects: set[Outgoing] = set()
        #: Messages that a queue refused (`basic.nack`) and that are sent again.
        self._refused: list[Outgoing] = []
        self._flush_is_due = False

    def attach(self, connection: Connection) -> None:
        """Use `connection`, which must not be started yet."""
        self._connection = connection

    @property
    def waiting(self) -> int:
        """The number of messages that are still to be sent."""
        return len(self._waiting)

    def send(self, request: PublishRequest) -> None:
        """Send the messages of a request as soon as possible, and settle each."""
        self._waiting.extend(one for one in request.outgoing if not one.is_settled)
        # One wake-up of the I/O thread serves all that is waiting by then.
        if not self._flush_is_due:
            self._flush_is_due = True
            self._connection.submit(self._flush)

    def cancel(self, request: PublishRequest) -> None:
        """Send nothing more of a request, now or after a reconnection."""
        with self._lock:
            request.given_up = True
            self._suspects.difference_update(request.outgoing)
            for one in request.outgoing:
                # By identity, and without a switch of threads.
                if one in self._waiting:
                    self._waiting.remove(one)

    # What follows runs in the I/O thread.

    def opened(self, channel: Channel) -> None:
        """Publish on a new channel."""
        channel.confirm_delivery(self._confirmed)
        channel.add_on_return_callback(self._returned)
        self._next_tag = 1
        self._channel = channel
        self._flush()

    def unblocked(self) -> None:
        """Send what has waited until the broker accepts messages again."""
        self._flush()

    def _flush(self) -> None:
        self._flush_is_due = False
        with self._lock:
            while self._waiting and self._may_send():
                self._send(self._waiting.popleft())

    def _may_send(self) -> bool:
        if self._channel is None or not self._channel.is_open:
            return False
        if self._connection.blocked:
            return False
        if self._suspects and self._unconfirmed:
            return False
        return (
            len(self._unconfirmed) < settings.MAX_IN_FLIGHT
            and self._unconfirmed_bytes < MAX_BYTES_IN_FLIGHT
        )

    def _send(self, outgoing: Outgoing) -> None:
        assert self._channel is not None  # checked by `_may_send`
        envelope = outgoing.envelope
        source = outgoing.request.while_open
        if source is not None and not source.is_open:
            outgoing.settle(Unconfirmed("The channel it came by is closed."))
            return
        try:
            self._channel.basic_publish(
                envelope.exchange,
                envelope.routing_key,
                envelope.body,
                outgoing.properties,
                mandatory=envelope.mandatory,
            )
        except UNSENDABLE as error:
            # Nothing was sent, and the next tag is still free.
            if self._channel.is_open:
                self._reject(outgoing, error)
            else:
                self._send_again(outgoing)
            return
        self._unconfirmed[self._next_tag] = outgoing
        self._unconfirmed_bytes += len(envelope.body)
        self._next_tag += 1

    def _returned(
        self, _channel: Channel, method: Any, properties: Any, _body: bytes
    ) -> None:
        # The broker returns messages in their order, each before its confirm.
        returned = (properties.message_id, method.exchange, method.routing_key)
        for one in self._unconfirmed.values():
            envelope = one.envelope
            if one.returned is None and returned == (
                envelope.message_id,
                envelope.exchange,
                envelope.routing_key,
            ):
                one.returned = f"{method.reply_text}: {method.routing_key!r}"
                break

    def _confirmed(self, frame: Any) -> None:
        """Settle what an ack or a nack of the broker is about."""
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
            if outgoing := self._unconfirmed.pop(tag, None):
                self._unconfirmed_bytes -= len(outgoing.envelope.body)
                self._suspects.discard(outgoing)
                self._settle(outgoing, refused)
        if self._waiting:
            self._flush()

    def _settle(self, outgoing: Outgoing, refused: bool) -> None:
        if refused:
            self._retry_refused(outgoing)
        elif outgoing.returned:
            outgoing.settle(
                Unroutable(
                    f"No queue takes this message ({outgoing.returned}): "
                    "run `manage.py topology apply`."
                )
            )
        else:
            outgoing.settle()

    def _retry_refused(self, outgoing: Outgoing) -> None:
        """Send a message again after a pause: its queue may be full for a moment."""
        self.last_problem = "The queue refuses messages for now."
        outgoing.returned = None
        if not self._refused:
            assert self._channel is not None  # the nack came on it
            loop = self._channel.connection.ioloop
            loop.call_later(REFUSED_PAUSE, self._send_refused)
        self._refused.append(outgoing)

    def _send_refused(self) -> None:
        with self._lock:
            for outgoing in reversed(self._refused):
                self._send_again(outgoing)
            self._refused.clear()
        self._flush()

    def closed(self, error: Exception) -> float:
        """
        Keep what is unconfirmed, in its order, for the next channel.

        If the broker closed the channel because of a message, it does not say which.
        Those in question are then sent one at a time: the next to close the channel is
        the culprit.
        """
        self._channel = None
        self.last_problem = str(error)
        with self._lock:
            again = [*self._refused, *self._unconfirmed.values()]
            self._refused.clear()
            self._unconfirmed.clear()
            self._unconfirmed_bytes = 0
            if is_fault_of_a_message(error):
                if len(again) == 1:
                    self._reject(again.pop(), error)
                # What is not sent again cannot be found to be the culprit.
                self._suspects.update(one for one in again if not one.request.given_up)
            for one in reversed(again):
                one.returned = None
                self._send_again(one)
        return 0.0

    def _send_again(self, outgoing: Outgoing) -> None:
        """Put a message back in front, with the lock held."""
        if not outgoing.request.given_up:
            self._waiting.appendleft(outgoing)

    def _reject(self, outgoing: Outgoing, error: Exception) -> None:
        """Settle a message that the broker does not accept."""
        self._suspects.discard(outgoing)
        logger.error("The broker refuses a message: %s", error)
        code = getattr(error, "reply_code", None)
        kind = Unroutable if code == NOT_FOUND else PublishError
        outgoing.settle(kind(f"The broker refuses this message: {error}"))


def is_fault_of_a_message(error: Exception) -> bool:
    """Return whether the broker closed channel or connection because of a message."""
    if isinstance(error, ConnectionClosedByBroker):
        return error.reply_code not in NO_FAULT
    return isinstance(error, ChannelClosedByBroker)
