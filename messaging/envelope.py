"""
What travels: `Envelope` (a body and its properties) and `Delivery` (one from a queue).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from .conf import settings
from .text import storable

#: Namespace of the primary keys in the inbox.
INBOX_IDS = uuid.UUID("6f0a2f6e-6a3c-5b0e-9d7c-0c8f2b1f7a11").bytes

#: Maximum length in bytes of names and text properties in AMQP 0-9-1, which are short
#: strings (section 4.2.5.3).
SHORT = 255
#: Header that holds the partition key of a message.
PARTITION_KEY = "partition_key"
#: Properties that most messages do not have.
RARE = (
    "content_type",
    "content_encoding",
    "priority",
    "app_id",
    "correlation_id",
    "reply_to",
)
#: The AMQP properties that a handler may need.
PROPERTIES = ("message_id", "type", "timestamp", *RARE)
#: Attributes of an envelope that the outbox stores in one JSON column.
UNUSUAL = (*RARE, "expiration", "user_id", "persistent")
#: The exchange that routes to partitions. Only this package publishes to it, so that
#: its own headers are believed in what comes from there, and nowhere else.
PARTITIONS = "messaging.partitions"
#: Header that holds the version an entity must have for the message to apply.
IF_VERSION = "if_version"
#: Header by which repetitions of one request are recognised.
IDEMPOTENCY_KEY = "idempotency-key"
#: Header that counts how often an operator has requeued a message.
REPLAYS = "replays"
#: Header with the id that a message without `message_id` got when it was forwarded.
ASSIGNED_ID = "assigned-id"
#: Header that marks a forwarded message without `message_id` as redelivered.
REDELIVERED = "redelivered"
#: Headers that record how a forwarded or requeued message was published originally.
ORIGIN_EXCHANGE = "origin-exchange"
ORIGIN_ROUTING_KEY = "origin-routing-key"
ORIGIN_USER = "origin-user-id"
#: Header with the time at which it was sent, in milliseconds since 1970. Other programs
#: are not likely to use its name.
SENT_AT = "messaging-sent-at"
#: Header that names who has ordered what a message does: `token:NAME`, `account:ID`,
#: `command:USER@HOST` or `amqp:USER`.
ACTOR = "messaging-actor"
#: A condition that is never met, as no entity has this version.
NEVER = -1
#: UUIDs as this package writes them.
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _is_number(value: Any, last: int = 2**63 - 1) -> bool:
    return isinstance(value, int) and 0 <= value <= last


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and UUID.fullmatch(value) is not None


#: The headers that only this package sets, and whether it may have set a value: whoever
#: may publish to `PARTITIONS` may set others.
OWN: dict[str, Callable[[Any], bool]] = {
    IF_VERSION: _is_number,
    IDEMPOTENCY_KEY: _is_id,
    REPLAYS: partial(_is_number, last=2**31 - 1),
    ASSIGNED_ID: _is_id,
    REDELIVERED: lambda value: value is True,
    ORIGIN_EXCHANGE: _is_text,
    ORIGIN_ROUTING_KEY: _is_text,
    ORIGIN_USER: _is_text,
    SENT_AT: partial(_is_number, last=2**47),  # in the year 6429
    ACTOR: _is_text,
}


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def random_id() -> str:
    """Return a UUID of version 4, as `uuid.uuid4` does in four times the time."""
    try:
        digits = _random.pop()
    except IndexError:
        # Many at once: it is a system call, which lets another thread run first.
        block = os.urandom(1024).hex()
        digits, *others = (block[n : n + 32] for n in range(0, len(block), 32))
        _random.extend(others)
    return _uuid(digits, 4)


#: Random digits for ids to come.
_random: deque[str] = deque()
os.register_at_fork(after_in_child=_random.clear)


def _uuid(digits: str, version: int) -> str:
    """Return a UUID (RFC 9562) of random digits or those of a digest."""
    variant = "89ab"[int(digits[16], 16) & 3]
    return (
        f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-"
        f"{variant}{digits[17:20]}-{digits[20:32]}"
    )


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body and the AMQP properties it travels with."""

    body: bytes
    routing_key: str
    exchange: str = ""
    message_id: str | None = field(default_factory=random_id)
    type: str | None = None
    content_type: str | None = "application/json"
    content_encoding: str | None = None
    priority: int | None = None
    timestamp: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    app_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    #: Milliseconds after which it expires in a queue, as a string of digits.
    expiration: str | None = None
    #: The broker accepts only the name of the connection's user.
    user_id: str | None = None
    #: Whether it survives a restart of the broker, in a durable queue.
    persistent: bool = True
    headers: dict[str, Any] = field(default_factory=dict)
    #: Whether publishing fails if no queue takes the message.
    mandatory: bool = True

    @property
    def key(self) -> str:
        """Envelopes with the same key are published from the outbox in order."""
        return self.partition_key or f"{self.exchange} {self.routing_key}"

    @property
    def partition_key(self) -> str | None:
        """The header of that name as text, or None if it is missing, None or ""."""
        given = self.headers.get(PARTITION_KEY)
        return None if given is None else storable(given) or None

    def own_header(self, name: str) -> Any:
        """
        Return a header of this package, or None if it is missing or not believed.

        What came through `PARTITIONS` is believed, and the actor of an event.
        """
        if self.exchange != PARTITIONS and not (name == ACTOR and self.is_event):
            return None
        value = self.headers.get(name)
        if value is None or OWN[name](value):
            return value
        return NEVER if name == IF_VERSION else None

    @property
    def own(self) -> dict[str, Any]:
        """Its headers of this package that are believed."""
        given = {name: self.own_header(name) for name in OWN if name in self.headers}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def origin_exchange(self) -> str:
        """The exchange to which it was published, before it was forwarded."""
        if self.exchange != PARTITIONS:
            return self.exchange
        return self.own_header(ORIGIN_EXCHANGE) or ""

    @property
    def is_event(self) -> bool:
        """Whether it came by the exchange of events, as only the relay needs to."""
        return self.origin_exchange == str(settings.EVENTS_EXCHANGE)

    @property
    def sender(self) -> str | None:
        """The publisher's user, which the broker has checked; None if it named none."""
        return self.own_header(ORIGIN_USER) or self.user_id

    @property
    def actor(self) -> str:
        """Who has ordered what it does; "" if that is unknown."""
        if given := self.own_header(ACTOR):
            return storable(given, SHORT)
        return storable(f"amqp:{self.sender}", SHORT) if self.sender else ""

    @property
    def sent_ms(self) -> int | None:
        """
        When it was sent, in milliseconds since 1970; None if that is unknown.

        AMQP's timestamp has whole seconds: of these the end is taken, so that waiting
        times are not overstated.
        """
        if sent := self.own_header(SENT_AT):
            return int(sent)
        at = self.timestamp
        return int(at.timestamp()) * 1000 + 999 if at else None

    @property
    def unusual(self) -> dict[str, Any]:
        """The rare properties that differ from their defaults."""
        given = _unusual_of(self)
        if given == _USUAL:
            return {}  # nearly always
        values = zip(UNUSUAL, given, _USUAL, strict=True)
        return {name: value for name, value, usual in values if value != usual}

    def copy(self, **changes: Any) -> Envelope:
        """Return a copy with `changes`."""
        return replace(self, **changes)


_unusual_of = attrgetter(*UNUSUAL)
_USUAL = _unusual_of(Envelope(b"", ""))


@dataclass(frozen=True, slots=True)
class Delivery:
    """An envelope as delivered from a queue."""

    envelope: Envelope
    #: The logical queue, as in the registry.
    queue: str
    tag: int
    #: The broker's name of the queue or partition it came from; "" if unknown.
    source: str = ""
    #: The channel to which `tag` belongs.
    channel: Any = None
    redelivered: bool = False
    #: Name of the subscription; unique together with `tag`.
    consumer_tag: str = ""
    #: The id of a message without `message_id`, which it got on its way or gets here.
    assigned_id: str = ""
    #: Whether it comes from the table of parked messages.
    is_parked: bool = False
    #: Failed attempts before this one.
    attempts: int = 0

    def __post_init__(self) -> None:
        """Assign an id to a message that has none."""
        if self.envelope.message_id is None and not self.assigned_id:
            assigned = self.envelope.own_header(ASSIGNED_ID) or random_id()
            object.__setattr__(self, "assigned_id", assigned)

    @property
    def is_nameless(self) -> bool:
        """Whether its sender gave it no `message_id`."""
        return self.envelope.message_id is None

    @property
    def sender(self) -> str | None:
        """The user of the broker who published it, if its publisher said so."""
        return self.envelope.sender

    @property
    def is_again(self) -> bool:
        """Whether the broker says that it may have been delivered before."""
        again = self.envelope.own_header(REDELIVERED)
        return self.redelivered or again is not None

    @property
    def mark(self) -> str:
        """
        An id that is the same at every delivery from one queue.

        An ingress and a partition may have a message at the same time, and each removes
        its own mark. What has no id is known by its body.
        """
        assigned = self.envelope.own_header(ASSIGNED_ID)
        if not (self.envelope.message_id or assigned or self.is_parked):
            return digest(self.envelope.body)
        if self.source == self.queue:
            return digest(f"ingress {self.inbox_id}".encode())
        return self.inbox_id

    @property
    def replays(self) -> int:
        """How often an operator has sent it again."""
        return self.envelope.own_header(REPLAYS) or 0

    @property
    def message_id(self) -> str:
        """The `message_id` of its sender, or the assigned one."""
        return self.envelope.message_id or self.assigned_id

    @property
    def inbox_id(self) -> str:
        """The primary key of the message in the inbox."""
        return inbox_id(self.queue, self.message_id)


def digest(content: bytes) -> str:
    """Return a digest, as 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def inbox_id(queue: str, message_id: str) -> str:
    """
    Return the primary key in the inbox of a message: a UUID of version 5.

    An id identifies a message within its queue: what comes through an exchange may be
    in several queues, and each handles it once.
    """
    name = INBOX_IDS + f"{message_id} in {queue}".encode()
    return _uuid(hashlib.sha1(name, usedforsecurity=False).hexdigest(), 5)


def at_origin(envelope: Envelope) -> Envelope:
    """Return an envelope as it was published, without headers of this package."""
    headers = {n: v for n, v in envelope.headers.items() if n not in OWN}
    if envelope.exchange != PARTITIONS:
        is_same = len(headers) == len(envelope.headers)
        return envelope if is_same else envelope.copy(headers=headers)
    key = envelope.own_header(ORIGIN_ROUTING_KEY)
    return envelope.copy(
        exchange=envelope.origin_exchange,
        routing_key=envelope.routing_key if key is None else key,
        user_id=envelope.own_header(ORIGIN_USER),
        headers=headers,
    )
