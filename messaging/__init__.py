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
    Unroutable,
)
from .message import Fact, Message
from .registry import Applied, handles, listens, projects
from .serving import serves

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
    "Unroutable",
]
