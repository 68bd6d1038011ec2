"""Writes through RabbitMQ that are never lost, doubled or reordered."""

from .api import publish
from .exceptions import (
    InvalidMessage,
    MessagingError,
    NotYet,
    PublishError,
    Reject,
    Retry,
    TooLarge,
    Unconfirmed,
    Unroutable,
)
from .message import Fact, Message
from .registry import Applied, handles, listens, projects

__all__ = [  # noqa: RUF022 grouped by what they are for
    # Messages
    "Message",
    "Fact",
    # Publishing
    "publish",
    # Handling
    "handles",
    "listens",
    "projects",
    "Applied",
    # Errors
    "MessagingError",
    "InvalidMessage",
    "PublishError",
    "Reject",
    "NotYet",
    "Retry",
    "TooLarge",
    "Unconfirmed",
    "Unroutable",
]
