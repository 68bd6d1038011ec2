"""Channels that are opened again after every loss; all in the I/O thread."""

from __future__ import annotations

import logging
from typing import Any, Protocol

logger = logging.getLogger(__name__)

#: Reply codes of a channel and of a connection that this process itself has closed.
NORMAL = (0, 200)
#: Reply codes for what is not permitted, is missing, or exists with other arguments.
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406


class ChannelUser(Protocol):
    """What uses a channel of its own; all of it is called in the I/O thread."""

    def opened(self, channel: Any) -> None:
        """Start to use a new channel."""

    def closed(self, error: Exception) -> float:
        """Stop using the channel; return the seconds to wait before the next one."""

    def unblocked(self) -> None:
        """Go on, as the broker accepts messages again."""


class RecoveringChannel:
    """Opens a channel for one user, and another after each loss, on one connection."""

    def __init__(self, connection: Any, user: ChannelUser) -> None:
        self._connection = connection
        self._user = user
        self._channel: Any = None

    def open(self) -> None:
        """Open a channel, unless the connection is gone."""
        if self._connection.is_open:
            self._connection.channel(on_open_callback=self._opened)

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            close(self._channel)

    def lost(self, error: Exception) -> float:
        """Call `closed` of the user, once for each channel; return its pause."""
        if self._channel is None:
            return 0.0
        self._channel = None
        return self._user.closed(error)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        self._user.opened(channel)

    def _closed(self, _channel: Any, error: Exception) -> None:
        pause = self.lost(error)
        if self._connection.is_open:
            logger.debug("A channel was closed: %s", error)
            self._connection.ioloop.call_later(pause, self.open)


def close(channel: Any) -> None:
    """
    Close a channel so that the broker requeues everything in its order.

    Left to itself, pika cancels the consumers first. The next consumer would then get
    later messages while this process still holds the earlier ones.
    """
    if channel.is_open:
        channel._cancelled.update(channel._consumers)
        channel.close()
