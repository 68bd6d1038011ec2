"""Channels that are opened again after every loss; all in the I/O thread."""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol

logger = logging.getLogger(__name__)

#: Reply codes of a channel and of a connection that this process itself has closed.
NORMAL = (0, 200)
#: Reply codes for what is not permitted, is missing, or exists with other arguments.
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406
#: Reply codes with which a broker closes connections: it stops, or it has failed.
CONNECTION_FORCED, INTERNAL_ERROR = 320, 541
#: Reply codes, if there is one, of a channel that has ended without being refused.
UNREFUSED = (None, CONNECTION_FORCED, *NORMAL)


class ChannelUser(Protocol):
    """What uses a channel of its own; all of it is called in the I/O thread."""

    def opened(self, channel: Any) -> None:
        """Start to use a new channel."""

    def closed(self, error: Exception) -> float:
        """Stop using the channel; return the seconds to wait before the next one."""

    def unblocked(self) -> None:
        """Go on, as the broker accepts messages again."""


class RecoveringChannel:
    """Opens a channel for one user, and another after each loss, on any connection."""

    def __init__(self, user: ChannelUser) -> None:
        self._user = user
        self._channel: Any = None
        #: When the pause that the user wants is over, on the monotonic clock.
        self._not_before = 0.0

    def open(self, connection: Any) -> None:
        """Open a channel once the pause is over, unless the connection is gone then."""

        def open_now() -> None:
            if connection.is_open:
                connection.channel(on_open_callback=self._opened)

        pause = max(0.0, self._not_before - time.monotonic())
        connection.ioloop.call_later(pause, open_now)

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            close(self._channel)

    def lost(self, error: Exception) -> None:
        """Call `closed` of the user, once for each channel."""
        if self._channel is not None:
            self._channel = None
            self._not_before = time.monotonic() + self._user.closed(error)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        self._user.opened(channel)

    def _closed(self, channel: Any, error: Exception) -> None:
        self.lost(error)
        if channel.connection.is_open:
            logger.debug("A channel was closed: %s", error)
            self.open(channel.connection)


def close(channel: Any) -> None:
    """
    Close a channel so that the broker requeues everything in its order.

    Left to itself, pika cancels the consumers first. The next consumer would then get
    later messages while this process still holds the earlier ones.
    """
    if channel.is_open:
        channel._cancelled.update(channel._consumers)
        channel.close()
