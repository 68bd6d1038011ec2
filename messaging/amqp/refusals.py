"""
Find the messages for which the broker has closed a channel.

It says why, in a text that often names the exchange or the value that it refuses. Where
it does not, `Trial` finds the message.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from messaging.envelope import Envelope
from messaging.exceptions import PublishError, Unroutable
from messaging.text import storable
from messaging.topology import how_to_make

from .channels import CONNECTION_FORCED, NOT_FOUND
from .outgoing import Outgoing

#: What reply texts and permissions call the exchange "".
DEFAULT_EXCHANGE = "amq.default"
#: Portions in which suspects are sent: a few, as an answer takes much less time than a
#: new channel or connection.
PORTIONS = 8


def is_fault_of_a_message(error: Exception) -> bool:
    """Return whether the broker may have closed the channel because of a message."""
    if isinstance(error, ConnectionClosedByBroker):
        return bool(error.reply_code != CONNECTION_FORCED)
    return isinstance(error, ChannelClosedByBroker)


def is_about(error: Exception, envelope: Envelope) -> bool:
    """Return whether the reply text of a closed channel is about an envelope."""
    text = storable(getattr(error, "reply_text", ""))
    exchange = f"exchange '{envelope.exchange or DEFAULT_EXCHANGE}' in vhost '"
    if " topic '" in text:
        return f" topic '{envelope.routing_key}' in {exchange}" in text
    return any(
        phrase in text
        for phrase in (
            exchange,
            f"invalid expiration '{envelope.expiration}':",
            f"user_id property set to '{envelope.user_id}' ",
            f"message size {len(envelope.body)} is larger",
        )
    )


def refusal(error: Exception) -> PublishError:
    """Return the error of a message that the broker does not accept."""
    text = f"The broker refuses this message: {error}"
    if getattr(error, "reply_code", None) == NOT_FOUND:
        return Unroutable(f"{text}: {how_to_make()}.")
    return PublishError(text)


class Trial:
    """
    Finds the message that makes the broker close the channel, among those in question.

    They are sent again in portions, and nothing else meanwhile. After each portion the
    broker is asked anything: it processes a channel in order, so its answer means that
    it has accepted the portion, and comes without waiting for queues as confirms do. If
    it closes the channel instead, the portion is divided. A message for which it does
    so when tried alone is the culprit.
    """

    def __init__(self) -> None:
        self._suspects: set[Outgoing] = set()
        #: Those of them that were sent since the last answer.
        self._tried: set[Outgoing] = set()
        self._is_asking = False
        self._portion = 0

    def allows(self, outgoing: Outgoing) -> bool:
        """Return whether a message may be sent now."""
        if outgoing in self._suspects:
            return not self._is_asking and len(self._tried) < self._portion
        return not self._tried

    def sent(self, outgoing: Outgoing) -> None:
        """Note that a message was sent."""
        if outgoing in self._suspects:
            self._tried.add(outgoing)

    def must_ask(self) -> bool:
        """Return whether the broker must be asked now; it is asked once."""
        must = bool(self._tried) and not self._is_asking
        self._is_asking |= must
        return must

    def answered(self) -> None:
        """Acquit those that were sent before the broker was asked."""
        self._is_asking = False
        self.acquit(self._tried)
        self._tried.clear()

    def acquit(self, several: Iterable[Outgoing]) -> None:
        """Suspect these messages no longer."""
        self._suspects.difference_update(several)

    def culprits(self, error: Exception, sent: Sequence[Outgoing]) -> set[Outgoing]:
        """
        Return the messages for which the channel was closed while `sent` were in it.

        Without any, those in question go on trial on the next channel.
        """
        tried = [one for one in sent if one in self._tried]
        culprits = {one for one in sent if is_about(error, one.envelope)}
        if not culprits and len(tried) == 1:
            culprits.update(tried)
        self.end()
        if not culprits:
            # What is not sent again cannot be found to be the culprit.
            again = (one for one in tried or sent if not one.request.given_up)
            self._suspects.update(again)
            self._portion = math.ceil(len(self._suspects) / PORTIONS)
        return culprits

    def end(self) -> None:
        """Suspect no message."""
        self._suspects.clear()
        self._tried.clear()
        self._is_asking = False
