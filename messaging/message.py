"""
`Message` (the fields of a body, one class per event type), `Envelope` and `Delivery`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Self, TypeVar

from django.utils.translation import gettext as _
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic import ValidationError as PydanticError

from .bodies import decoded
from .exceptions import InvalidMessage
from .fields import readable_errors
from .text import describe, storable

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Namespace of the primary keys in the inbox.
INBOX_IDS = uuid.UUID("6f0a2f6e-6a3c-5b0e-9d7c-0c8f2b1f7a11")

#: Maximum length in bytes of names and text properties in AMQP 0-9-1, which are short
#: strings (section 4.2.5.3).
SHORT = 255
#: Maximum characters of an event type: the length of the columns that store it.
TYPE_LENGTH = 100
#: Header that holds the partition key of a message.
PARTITION_KEY = "partition_key"
#: What is wrong with a message whose partition key cannot be read.
NO_KEY = "It has no partition key."
#: What is wrong with a message that has no JSON.
UNENCODABLE = "It cannot be encoded as JSON."
#: What is wrong with a field that consumers would receive with another value.
CHANGED = "Encoded as JSON and decoded, it has another value."
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
#: The headers that only this package sets.
OWN = (
    IF_VERSION,
    IDEMPOTENCY_KEY,
    REPLAYS,
    ASSIGNED_ID,
    REDELIVERED,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    ORIGIN_USER,
)


class Message(BaseModel):
    """
    The fields of one event type: the definition that publishers, consumers, HTTP
    serializers and the documentation share.

        class UserDelete(Message):
            event_type: Literal["user.delete"] = "user.delete"
            queue: ClassVar = "users_queue"
            user_id: Annotated[int, Field(ge=1)]

    Fields that are None by default are left out of the body while they are None;
    unknown fields are ignored.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,  # JSON has no such numbers
    )

    event_type: str
    #: The queue that takes this message.
    queue: ClassVar[str]
    #: Name of the URL that shows what the message was about, given its reference.
    view_name: ClassVar[str | None] = None

    # Not a private attribute: pydantic would set one up for every message.
    _if_version: ClassVar[int | None] = None

    @property
    def partition_key(self) -> str:
        """Messages with the same key take effect in the order they were accepted."""
        raise NotImplementedError

    @property
    def if_version(self) -> int | None:
        """The version the entity must still have for the message to apply, if any."""
        return self._if_version

    def expecting(self, version: int | None) -> Self:
        """Return this message, to be applied only if its entity has `version`."""
        if version is None:
            return self
        conditional = self.model_copy()
        conditional.__dict__["_if_version"] = version
        return conditional

    def encode(self) -> bytes:
        """
        Return the JSON body, as UTF-8.

        Raises `InvalidMessage` if `decode` would not return the same fields for it.
        """
        omitted = {n for n in _optional(type(self)) if getattr(self, n) is None}
        body = validated(lambda: self._as_json(omitted), UNENCODABLE)
        decoded = type(self).decode(body)
        if (decoded.__dict__, decoded.model_extra) == (self.__dict__, self.model_extra):
            return body
        changed = [n for n, v in self if decoded.__dict__.get(n, v) != v]
        if changed or decoded.model_extra != self.model_extra:
            raise InvalidMessage({name: [CHANGED] for name in changed or [""]})
        return body

    def _as_json(self, omitted: set[str]) -> bytes:
        # Without warnings about values that `decode` refuses.
        text = self.model_dump_json(by_alias=True, exclude=omitted, warnings=False)
        return text.encode()

    @classmethod
    def decode(cls, body: bytes, envelope: Envelope | None = None) -> Self:
        """
        Parse a JSON body. `envelope` is the one it was delivered in, if any.

        Raises `InvalidMessage`.
        """
        return validated(lambda: cls.model_validate_json(plain(body, envelope)))

    @classmethod
    def parse(cls, data: Any, *, strict: bool = True) -> Self:
        """
        Build a message from parsed JSON, or from form data with `strict=False`.

        Raises `InvalidMessage`, also if its partition key cannot be computed.
        """
        message = validated(lambda: cls.model_validate(data, strict=strict))
        key_of(message)
        return message


class Event(Message):
    """
    A change of an entity, published to every queue that is bound to it.

    Events go to the exchange `MESSAGING["EVENTS_EXCHANGE"]` with the event type as
    routing key. Publish them inside the transaction of the change.
    """

    queue: ClassVar = ""


def decode(
    body: bytes, classes: tuple[type[Message], ...], envelope: Envelope | None = None
) -> Message:
    """
    Parse a JSON body as the one of `classes` that its `event_type` names.

    Raises `InvalidMessage`.
    """
    if len(classes) == 1:
        return classes[0].decode(body, envelope)
    adapter = _adapter(classes)
    return validated(lambda: adapter.validate_json(plain(body, envelope)))


def plain(body: bytes, envelope: Envelope | None) -> bytes:
    """Return a body without the content encoding of its envelope, if it has any."""
    return decoded(body, envelope.content_encoding) if envelope else body


def validated(read: Callable[[], T], problem: str = "") -> T:
    """
    Return what `read` returns, with any exception turned into `InvalidMessage`.

    Validators are user code: whatever they raise is a fault of the message, which
    `problem` describes where pydantic does not.
    """
    try:
        return read()
    except PydanticError as error:
        raise InvalidMessage(readable_errors(error)) from None
    except InvalidMessage:
        raise
    except Exception as error:
        logger.warning("A validator failed: %s", describe(error), exc_info=True)
        text = problem or _("Enter a valid value.")
        raise InvalidMessage({"": [f"{text} ({type(error).__name__})"]}) from error


def key_of(message: Message) -> str:
    """
    Return the partition key of a message, as text that can be stored.

    Raises `InvalidMessage` if its `partition_key` raises or is not a string.
    """
    key = validated(lambda: message.partition_key, NO_KEY)
    if not isinstance(key, str):
        raise InvalidMessage({"": [f"The partition key is no string: {key!r}"[:200]]})
    return storable(key)


@cache
def _optional(message: type[Message]) -> frozenset[str]:
    """Return the names of the fields that are None by default."""
    fields = message.model_fields.items()
    return frozenset(name for name, field in fields if field.default is None)


@cache
def _adapter(classes: tuple[type[Message], ...]) -> TypeAdapter[Message]:
    union: Any = classes[0]
    for other in classes[1:]:
        union |= other
    return TypeAdapter(Annotated[union, Field(discriminator="event_type")])


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body and the AMQP properties it travels with."""

    body: bytes
    routing_key: str
    exchange: str = ""
    message_id: str | None = field(default_factory=lambda: str(uuid.uuid4()))
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

    @property
    def own(self) -> dict[str, Any]:
        """Its headers of this package; {} unless it came through `PARTITIONS`."""
        if self.exchange != PARTITIONS:
            return {}
        return {name: self.headers[name] for name in OWN if name in self.headers}

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

    def __post_init__(self) -> None:
        """Assign an id to a message that has none."""
        if self.envelope.message_id is None and not self.assigned_id:
            assigned = self.envelope.own.get(ASSIGNED_ID) or str(uuid.uuid4())
            object.__setattr__(self, "assigned_id", assigned)

    @property
    def message_id(self) -> str:
        """The `message_id` of its sender, or the assigned one."""
        return self.envelope.message_id or self.assigned_id

    @property
    def inbox_id(self) -> str:
        """The primary key of the message in the inbox."""
        return inbox_id(self.queue, self.message_id)


def inbox_id(queue: str, message_id: str) -> str:
    """
    Return the primary key in the inbox of a message, in the form of a UUID.

    An id identifies a message within its queue: what comes through an exchange may be
    in several queues, and each handles it once.
    """
    return str(uuid.uuid5(INBOX_IDS, f"{message_id} in {queue}"))
