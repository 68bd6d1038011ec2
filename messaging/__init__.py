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
from .received import Received
from .registry import Applied, handles, listens, projects
from .sending import send
from .serving import serves
from .session import Incoming, Session, session
from .silence import aloud, silent
from .sources import Exchange, direct, fanout, headers, topic
from .topology import Queue

__all__ = [  # noqa: RUF022 grouped by what they are for
    # Messages
    "Message",
    "Fact",
    "Received",
    # Publishing
    "publish",
    "send",
    "publishes",
    "silent",
    "aloud",
    # Handling
    "handles",
    "listens",
    "projects",
    "Applied",
    # Exchanges to listen to
    "direct",
    "fanout",
    "headers",
    "topic",
    # Tools
    "session",
    "Session",
    "Incoming",
    "Exchange",
    "Queue",
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
