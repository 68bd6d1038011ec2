"""Confirmed publishing: many threads share one connection and its pipeline."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError

from .conf import settings
from .connection import Connection
from .exceptions import TooLarge, Unconfirmed, Unroutable
from .message import Envelope

logger = logging.getLogger(__name__)

#: Seconds before a message that the broker refused is offered again.
REFUSED_PAUSE = 0.1


class Publication(Future[None]):
    """One envelope on its way: done when confirmed, cancelled when given up."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__()
        self.envelope = envelope
        self.returned: str | None = None


class Publisher:
    """
    Publishes with confirms; what is unconfirmed when the connection is lost goes out
    again under the same `message_id` on the next one, until its caller gives up.
    """

    def __init__(self, name: str = "publisher") -> None:
        self.connection = Connection(name, self)
        self._channel: Channel | None = None
        self._waiting: deque[Publication] = deque()
        #: Held to change `_waiting`.
        self._lock = threading.Lock()
        self._unconfirmed: OrderedDict[int, Publication] = OrderedDict()
        self._next_tag = 1
        self._flush_is_due = False
        #: Why the broker did not confirm, as far as we know.
        self._last_problem = ""
        self.connection.start()

    def publish(
        self, *envelopes: Envelope, timeout: float | None = None, limit: bool = True
    ) -> None:
        """
        Publish in order and return when the broker has confirmed each.

        Waits `timeout` seconds (`MESSAGING["CONFIRM_TIMEOUT"]`) in all. Raises
        `TooLarge`, unless `limit` is false, before anything is sent, `Unroutable` when
        no queue takes a mandatory one, and `Unconfirmed` when time is up; nothing is
        sent any more after that.
        """
        for envelope in envelopes:
            if limit and len(envelope.body) > settings.MAX_BODY:
                raise TooLarge
        if len(self._waiting) > settings.MAX_IN_FLIGHT:
            raise Unconfirmed(f"Too many messages wait for the broker. {self._why()}")
        deadline = time.monotonic() + (
            settings.CONFIRM_TIMEOUT if timeout is None else timeout
        )
        publications = [Publication(envelope) for envelope in envelopes]
        with self._lock:
            self._waiting.extend(publications)
        self._flush_soon()
        try:
            for publication in publications:
                publication.result(max(0.0, deadline - time.monotonic()))
        except (FutureTimeout, CancelledError):
            raise Unconfirmed(
                f"The broker did not confirm in time. {self._why()}"
            ) from None
        finally:
            self._give_up(publications)

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection; whoever still waits gets `Unconfirmed` in time."""
        self.connection.close(timeout)

    def _give_up(self, publications: list[Publication]) -> None:
        """Forget those of `publications` that are not confirmed yet."""
        if [one for one in publications if one.cancel()]:
            with self._lock:
                waiting = [one for one in self._waiting if not one.cancelled()]
                self._waiting.clear()
                self._waiting.extend(waiting)

    def _why(self) -> str:
        return self.connection.problem() or self._last_problem

    # What follows runs in the I/O thread.

    def opened(self, channel: Channel) -> None:
        """Take up publishing on a new channel."""
        channel.confirm_delivery(self._confirmed)
        channel.add_on_return_callback(self._returned)
        self._next_tag = 1
        self._channel = channel
        self._flush()

    def closed(self, reason: str) -> None:
        """Put what is unconfirmed back in front, in its order."""
        self._last_problem = reason
        self._channel = None
        with self._lock:
            self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()

    def _flush_soon(self) -> None:
        # One wake-up of the I/O thread serves all that is waiting by then.
        if not self._flush_is_due:
            self._flush_is_due = True
            self.connection.submit(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        while len(self._unconfirmed) < settings.MAX_IN_FLIGHT:
            with self._lock:
                if not self._waiting:
                    return
                publication = self._waiting.popleft()
            if publication.cancelled():
                continue
            envelope = publication.envelope
            self._unconfirmed[self._next_tag] = publication
            self._next_tag += 1
            try:
                channel.basic_publish(
                    envelope.exchange,
                    envelope.routing_key,
                    envelope.body,
                    properties(envelope),
                    mandatory=envelope.mandatory,
                )
            except AMQPError as error:
                # The channel is closing; `closed` puts the message back.
                self._last_problem = repr(error)
                return

    def _returned(
        self, _channel: Channel, method: Any, properties: Any, _body: bytes
    ) -> None:
        # The broker returns a message before it confirms it.
        for publication in reversed(self._unconfirmed.values()):
            if publication.envelope.message_id == properties.message_id:
                publication.returned = f"{method.reply_text}: {method.routing_key!r}"
                break

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        refused = isinstance(method, pika.spec.Basic.Nack)
        last = method.delivery_tag
        if method.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= last]
        else:
            tags = [last]
        for tag in tags:
            publication = self._unconfirmed.pop(tag, None)
            if publication is None or publication.cancelled():
                continue
            if refused:
                self._offer_again(publication)
            elif not publication.set_running_or_notify_cancel():
                continue
            elif publication.returned:
                publication.set_exception(
                    Unroutable(
                        f"No queue takes this message ({publication.returned}): "
                        "run `manage.py topology apply`."
                    )
                )
            else:
                publication.set_result(None)
        if self._waiting:
            self._flush()

    def _offer_again(self, publication: Publication) -> None:
        self._last_problem = "The queue refuses messages for now."
        publication.returned = None
        assert self._channel is not None  # it has just confirmed something

        def offer() -> None:
            with self._lock:
                self._waiting.append(publication)
            self._flush()

        self._channel.connection.ioloop.call_later(REFUSED_PAUSE, offer)


def properties(envelope: Envelope) -> pika.BasicProperties:
    """Give the AMQP properties of a persistent message."""
    return pika.BasicProperties(
        message_id=envelope.message_id,
        type=envelope.type,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        priority=envelope.priority,
        timestamp=envelope.timestamp and int(envelope.timestamp.timestamp()),
        app_id=envelope.app_id or settings.APP_ID,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        headers=envelope.headers or None,
        delivery_mode=pika.DeliveryMode.Persistent.value,
    )


_publishers: dict[int, Publisher] = {}
_lock = threading.Lock()


def publisher() -> Publisher:
    """Give the publisher of this process, made at its first use."""
    # A forked child must not use its parent's socket and has no I/O thread.
    process = os.getpid()
    if process not in _publishers:
        with _lock:
            if process not in _publishers:
                _publishers[process] = Publisher(f"publisher-{process}")
    return _publishers[process]


def close_publisher() -> None:
    """Close the publisher of this process, if it was ever used."""
    with _lock:
        used = _publishers.pop(os.getpid(), None)
    if used is not None:
        used.close()
