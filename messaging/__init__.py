"""Writes through RabbitMQ that are never lost, doubled or reordered."""

from .api import publish
from .calls import call
from .exceptions import (
    CallError,
    CallTimeout,
    InvalidCall,
    InvalidMessage,
    MessagingError,
    NoServer,
    NotYet,
    PublishError,
    Reject,
    RemoteError,
    Retry,
    TooLarge,
    Unconfirmed,
    Unpublishable,
    Unroutable,
)
from .message import Fact, Message
from .publishing import publishes
from .registry import Applied, handles, listens, projects
from .serving import serves
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
    # Calling
    "call",
    "serves",
    # Errors
    "MessagingError",
    "InvalidMessage",
    "CallError",
    "CallTimeout",
    "InvalidCall",
    "NoServer",
    "RemoteError",
    "PublishError",
    "Reject",
    "NotYet",
    "Retry",
    "TooLarge",
    "Unconfirmed",
    "Unpublishable",
    "Unroutable",
]
