"""
The I/O half of publishing: send what callers wait for, and settle it.

The upper half of `ConfirmChannel` is called in the threads of callers. Everything below
its comment runs in the connection's I/O thread, which alone sends and settles.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import Any

import pika
from pika.channel import Channel

from messaging.conf import settings
from messaging.exceptions import Unconfirmed, Unroutable
from messaging.logs.repetition import RepeatingLogger
from messaging.topology import how_to_make

from .channels import NORMAL
from .connection import Connection
from .encoding import UNSENDABLE
from .outgoing import Outgoing, PublishRequest
from .refusals import Trial, is_fault_of_a_message, refusal

repeating = RepeatingLogger(__name__)

#: Seconds before a message that a queue refused is sent again.
REFUSED_PAUSE = 0.1
#: Seconds without a confirm after a queue has refused a message, until another node is
#: tried, at first and at most; they double. A channel that met a quorum queue without a
#: leader refuses or keeps all that follows (RabbitMQ 3.10), but it may also be full.
PATIENCE = (1.0, 60.0)
#: Bytes of bodies that await their confirm at a time: if the broker stops reading, they
#: stay in the memory of this process.
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
#: Seconds between two looks, and looks without any confirm, although some are due,
#: after which another node is tried: this one may be cut off from the others.
LOOK_PAUSE, LOOKS = 0.5, 20
#: Seconds in which messages that are sent again go alone, to be confirmed before others
#: make the broker close the channel once more.
HEAD_START = 0.2


class ConfirmChannel:
    """
    A channel with publisher confirms that all callers share.

    Messages are sent in the order in which they were added. What is unconfirmed when
    the channel is lost is sent again, first and under the same `message_id`, on the
    next one, unless its caller has given up. If the broker closed the channel because
    of a message, that one is settled with an error.
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
        #: How often nothing had been confirmed since the last look.
        self._looks = 0
        #: Held to send and to cancel, so that nothing cancelled is sent.
        self._lock = threading.Lock()
        #: Unconfirmed messages that were sent on an earlier channel too, and until when
        #: they have a head start, on the monotonic clock.
        self._sent_again: set[Outgoing] = set()
        self._head_start = 0.0
        self._trial = Trial()
        #: Messages that a queue refused (`basic.nack`) and that are sent again.
        self._refused: list[Outgoing] = []
        #: By exchange and routing key: since when this channel refuses messages there,
        #: and how long that is borne.
        self._refusing: dict[tuple[str, str], float] = {}
        self._patience = PATIENCE[0]
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
            self._sent_again.difference_update(request.outgoing)
            self._trial.acquit(request.outgoing)
            for one in request.outgoing:
                # Compared by identity, and no other thread runs in between.
                if one in self._waiting:
                    self._waiting.remove(one)

    # What follows runs in the I/O thread.

    def opened(self, channel: Channel) -> None:
        """Publish on a new channel."""
        channel.confirm_delivery(self._confirmed)
        channel.add_on_return_callback(self._returned)
        self._next_tag = 1
        self._channel = channel
        self._looks = 0
        self._refusing.clear()
        if len(settings.urls) > 1:
            self._look_again(channel)
        if self._sent_again:
            self._head_start = time.monotonic() + HEAD_START
            channel.connection.ioloop.call_later(HEAD_START, self._flush)
        self._flush()

    def _look_again(self, channel: Any) -> None:
        look = partial(self._look, channel)
        channel.connection.ioloop.call_later(LOOK_PAUSE, look)

    def _look(self, channel: Any) -> None:
        if not channel.is_open or channel is not self._channel:
            return
        is_due = bool(self._unconfirmed) and not self._connection.blocked
        self._looks = self._looks + 1 if is_due else 0
        if not self._refusing:
            self._patience = PATIENCE[0]
        if self._looks > LOOKS:
            leave(channel, "The node confirms nothing.")
        elif self._refuses_for_long():
            self._patience = min(2 * self._patience, PATIENCE[1])
            leave(channel, "The node refuses messages.")
        else:
            self._look_again(channel)

    def _refuses_for_long(self) -> bool:
        """Return whether a queue has refused what is still to be confirmed."""
        too_early = time.monotonic() - self._patience
        suspects = {one for one, since in self._refusing.items() if since < too_early}
        due = (*self._unconfirmed.values(), *self._refused) if suspects else ()
        return any(place_of(one) in suspects for one in due)

    def unblocked(self) -> None:
        """Send what has waited until the broker accepts messages again."""
        self._flush()

    def _flush(self) -> None:
        self._flush_is_due = False
        if not self._is_open():
            return
        assert self._channel is not None  # it is open
        with self._lock, self._channel.connection.gathering():
            while self._waiting and self._may_send(self._waiting[0]):
                self._send(self._waiting.popleft())
            if self._is_open() and self._trial.must_ask():
                self._channel.basic_qos(callback=self._answered)

    def _is_open(self) -> bool:
        return self._channel is not None and self._channel.is_open

    def _may_send(self, outgoing: Outgoing) -> bool:
        if not self._is_open() or self._connection.blocked:
            return False
        if self._sent_again and self._must_wait(outgoing):
            return False
        return (
            len(self._unconfirmed) < settings.MAX_IN_FLIGHT
            and self._unconfirmed_bytes < MAX_BYTES_IN_FLIGHT
        )

    def _must_wait(self, outgoing: Outgoing) -> bool:
        """Return whether a message must wait for some of those that are sent again."""
        if outgoing not in self._sent_again and time.monotonic() < self._head_start:
            return True
        return not self._trial.allows(outgoing)

    def _send(self, outgoing: Outgoing) -> None:
        assert self._channel is not None  # checked by `_may_send`
        envelope = outgoing.envelope
        source = outgoing.request.while_open
        if source is not None and not source.is_open:
            self._sent_again.discard(outgoing)
            self._trial.acquit([outgoing])
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
                outgoing.settle(refusal(error))
            else:
                self._send_again(outgoing)
            return
        self._unconfirmed[self._next_tag] = outgoing
        self._unconfirmed_bytes += len(envelope.body)
        self._next_tag += 1
        if self._sent_again:
            self._trial.sent(outgoing)

    def _answered(self, _frame: Any) -> None:
        self._trial.answered()
        self._flush()

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
        self._looks = 0
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
                if self._sent_again:
                    self._sent_again.discard(outgoing)
                    self._trial.acquit([outgoing])
                self._settle(outgoing, refused)
        if self._waiting:
            self._flush()

    def _settle(self, outgoing: Outgoing, refused: bool) -> None:
        if refused:
            self._retry_refused(outgoing)
            return
        if self._refusing:
            self._refusing.pop(place_of(outgoing), None)
        if outgoing.returned:
            outgoing.settle(
                Unroutable(
                    f"No queue takes this message ({outgoing.returned}): "
                    f"{how_to_make()}."
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
        self._refusing.setdefault(place_of(outgoing), time.monotonic())

    def _send_refused(self) -> None:
        with self._lock:
            for outgoing in reversed(self._refused):
                self._send_again(outgoing)
            self._refused.clear()
        self._flush()

    def closed(self, error: Exception) -> float:
        """Settle what is at fault, and keep the rest in its order for a new channel."""
        self._channel = None
        if getattr(error, "reply_code", None) not in NORMAL:
            self.last_problem = str(error)
        with self._lock:
            sent = list(self._unconfirmed.values())
            culprits: set[Outgoing] = set()
            if is_fault_of_a_message(error):
                culprits = self._trial.culprits(error, sent)
            else:
                self._trial.end()
            again = [one for one in (*self._refused, *sent) if one not in culprits]
            self._refused.clear()
            self._unconfirmed.clear()
            self._unconfirmed_bytes = 0
            self._sent_again = {one for one in again if not one.request.given_up}
            for one in reversed(again):
                one.returned = None
                self._send_again(one)
        if culprits:
            text = "The broker refuses %d of the messages: %s"
            repeating.warning(text, len(culprits), error)
        for one in culprits:
            one.settle(refusal(error))
        return 0.0

    def _send_again(self, outgoing: Outgoing) -> None:
        """Put a message back in front, with the lock held."""
        if not outgoing.request.given_up:
            self._waiting.appendleft(outgoing)


def leave(channel: Any, why: str) -> None:
    """End the connection of a channel, as after missed heartbeats, to try another."""
    channel.connection._terminate_stream(ConnectionError(why))


def place_of(outgoing: Outgoing) -> tuple[str, str]:
    """Return exchange and routing key of a message."""
    return outgoing.envelope.exchange, outgoing.envelope.routing_key
