"""
Publish and wait for the broker's confirms.

All of this runs in the threads of callers; `confirms.py` sends, in the I/O thread.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.exceptions import PublishError, TooLarge, Unconfirmed

from .channels import ChannelUser
from .client import declare
from .confirms import ConfirmChannel
from .connection import Connection
from .outgoing import Outgoing, PublishRequest, ordering_key, rounds
from .process import OnePerProcess
from .wake_up import HINT, REFUSED_PAUSE


class Publisher:
    """Publishes with confirms; threads and `channel_users` share its connection."""

    #: The last hint to relays, and when the next one may follow if it was refused.
    _hint: Outgoing | None = None
    _next_hint = 0.0

    def __init__(
        self,
        name: str = "publisher",
        *channel_users: ChannelUser,
        heartbeat: int | None = None,
    ) -> None:
        self.channel = ConfirmChannel()
        self.connection = Connection(
            name, self.channel, *channel_users, heartbeat=heartbeat
        )
        self.channel.attach(self.connection)
        self.connection.start()

    def publish(
        self,
        *envelopes: Envelope,
        timeout: float | None = None,
        in_turn: bool = False,
    ) -> None:
        """
        Publish envelopes and return when the broker has confirmed each.

        They are sent in order; with `in_turn` those of one partition key are also
        confirmed one after the other (see `rounds`). `timeout` (default
        `MESSAGING["CONFIRM_TIMEOUT"]`) is for all.

        Raises, before anything is sent, `TooLarge` for a body over
        `MESSAGING["MAX_BODY"]` and `PublishError` for properties that cannot be
        encoded; after that `Unroutable` when no queue takes a mandatory message,
        `Unconfirmed` when the time is up, and `PublishError` when the broker refuses a
        message. No further round is sent after an error.
        """
        deadline = deadline_after(timeout)
        if any(len(one.body) > settings.MAX_BODY for one in envelopes):
            raise TooLarge
        in_rounds = [envelopes]
        if in_turn:
            in_rounds = [tuple(r.values()) for r in rounds(envelopes, ordering_key)]
        requests = [PublishRequest(one) for one in in_rounds]
        unsendable = (one.error for request in requests for one in request.outgoing)
        for error in filter(None, unsendable):
            raise error
        for request in requests:
            for error in filter(None, self.send_and_wait(request, deadline)):
                raise error

    def outcomes(
        self, *envelopes: Envelope, timeout: float | None = None, while_open: Any = None
    ) -> list[PublishError | None]:
        """
        Publish bodies of any size and return each envelope's error, or None.

        With `while_open`, a channel of the same connection, nothing is sent once that
        channel is closed.
        """
        request = PublishRequest(envelopes, while_open)
        return self.send_and_wait(request, deadline_after(timeout))

    def send_and_wait(
        self, request: PublishRequest, deadline: float
    ) -> list[PublishError | None]:
        """Return each envelope's error, or None; raise if too many wait already."""
        self.send(request)
        done = False
        try:
            done = request.wait(deadline - time.monotonic())
        finally:
            if not done:
                self.channel.cancel(request)
        return request.end(None if done else self.late())

    def send(self, request: PublishRequest) -> None:
        """Send a request as soon as possible; raise if too many wait already."""
        if self.channel.waiting > settings.MAX_IN_FLIGHT:
            raise Unconfirmed(f"Too many messages wait for the broker. {self._why()}")
        self.channel.send(request)

    def wake_relay(self) -> None:
        """Send relays a hint, unless the last one is on its way; do not wait."""
        if last := self._hint:
            if not last.is_settled:
                return
            if last.error:  # each refusal costs a channel
                self._next_hint = time.monotonic() + REFUSED_PAUSE
        self._hint = None
        if time.monotonic() >= self._next_hint:
            request = PublishRequest([HINT])
            with suppress(Unconfirmed):
                self.send(request)
                self._hint = request.outgoing[0]

    def late(self) -> Unconfirmed:
        """Return the error of what was not confirmed in time."""
        return Unconfirmed(f"The broker did not confirm in time. {self._why()}")

    def _why(self) -> str:
        return self.problem() or self.channel.last_problem

    def problem(self, patience: float = 0.0) -> str | None:
        """Return why nothing can be published within `patience` seconds, or None."""
        return self.connection.problem(patience)

    def declare(self) -> None:
        """Declare all queues and exchanges; raises what `client.declare` raises."""
        declare()

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection; callers that wait get `Unconfirmed` in the end."""
        self.connection.close(timeout)


def deadline_after(timeout: float | None) -> float:
    """Return the end, on the monotonic clock, of a wait that begins now."""
    seconds = settings.CONFIRM_TIMEOUT if timeout is None else timeout
    return time.monotonic() + float(seconds)


#: Returns the publisher of this process.
publisher = OnePerProcess(lambda: Publisher(f"publisher-{os.getpid()}"))


def wake_relay() -> None:
    """Send relays a hint, if this process has a publisher."""
    if one := publisher.existing:
        one.wake_relay()
