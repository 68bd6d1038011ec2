"""Writes through RabbitMQ, applied exactly once and in order."""

#: Of this package; `pyproject.toml` reads it.
__version__ = "0.1.0"

from .amqp.client import Client, Incoming, connect
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
    Unavailable,
    Unconfirmed,
    Unpublishable,
    Unroutable,
)
from .message import Event, Message
from .outbox.model_events import publishes
from .outbox.suppression import suppressed, unsuppressed
from .publish import publish, send
from .received import Received
from .registry import Applied, handles, listens, projects, touches
from .rpc.client import call
from .rpc.functions import serves
from .sources import Exchange, direct, fanout, headers, topic
from .topology import Queue

__all__ = [  # noqa: RUF022 grouped by purpose
    # Messages
    "Message",
    "Event",
    "Received",
    # Publishing
    "publish",
    "send",
    "publishes",
    "suppressed",
    "unsuppressed",
    # Handling
    "handles",
    "listens",
    "projects",
    "touches",
    "Applied",
    # Exchanges to listen to
    "direct",
    "fanout",
    "headers",
    "topic",
    # Tools
    "connect",
    "Client",
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
    "Unavailable",
    "Unconfirmed",
    "Unpublishable",
    "Unroutable",
]
