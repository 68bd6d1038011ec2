"""Channels that are opened again after every loss."""

from __future__ import annotations

import logging
from typing import Any, Protocol

logger = logging.getLogger(__name__)

#: Reply codes of what this process itself has closed: a channel, and a connection.
NORMAL = (0, 200)
#: With which the broker says that something is not there, or has other arguments.
NOT_FOUND, PRECONDITION_FAILED = 404, 406


class ChannelUser(Protocol):
    """What lives on a channel of its own; all of it is called in the I/O thread."""

    def opened(self, channel: Any) -> None:
        """Use the new channel."""

    def closed(self, error: Exception) -> float:
        """Forget the channel; give the seconds to wait before there is another."""

    def unblocked(self) -> None:
        """Go on, for the broker takes messages again."""


class ChannelKeeper:
    """Keeps one user supplied with a channel for as long as a connection lasts."""

    def __init__(self, connection: Any, user: ChannelUser) -> None:
        self._connection = connection
        self._user = user
        self._channel: Any = None

    def open(self) -> None:
        """Open a channel, unless the connection is gone."""
        if self._connection.is_open:
            self._connection.channel(on_open_callback=self._opened)

    def close(self) -> None:
        """Close the channel, in order."""
        if self._channel is not None:
            close(self._channel)

    def lost(self, error: Exception) -> float:
        """Tell the user, once, that its channel is gone."""
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
    Close a channel so that the broker takes everything back in its order.

    Left to itself, pika cancels the consumers first. The next in line would then get
    later messages while the earlier ones are still in the hands of this process.
    """
    if channel.is_open:
        channel._cancelled.update(channel._consumers)
        channel.close()
