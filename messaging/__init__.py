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
    Unpublishable,
    Unroutable,
)
from .message import Fact, Message
from .publishing import publishes
from .registry import Applied, handles, listens, projects
from .silence import aloud, silent

__all__ = [  # noqa: RUF022 grouped by what they are for
    # Messages
    "Message",
    "Fact",
    # Publishing
    "publish",
    "publishes",
    "silent",
    "aloud",
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
    "Unpublishable",
    "Unroutable",
]
