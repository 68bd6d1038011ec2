"""`Message`: the fields of a body, one class for each event type."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    get_args,
    get_origin,
)

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic import ValidationError as PydanticError

from .bodies import decoded
from .conf import settings
from .envelope import IF_VERSION, SHORT, Delivery, Envelope
from .exceptions import InvalidMessage
from .fields import readable_errors
from .text import storable

T = TypeVar("T")

#: Maximum characters of an event type: the length of the columns that store it.
TYPE_LENGTH = 100
#: What is wrong with a message whose partition key cannot be read.
NO_KEY = gettext_lazy("It has no partition key.")
#: What is wrong with a message that has no JSON.
UNENCODABLE = "It cannot be encoded as JSON."
#: What is wrong with a field that consumers would receive with another value.
CHANGED = "Encoded as JSON and decoded, it has another value."


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

    # Not private attributes: pydantic would set them up for every message.
    _if_version: ClassVar[int | None] = None
    _origin: ClassVar[Delivery | None] = None

    @property
    def partition_key(self) -> str:
        """Messages with the same key take effect in the order they were accepted."""
        raise NotImplementedError

    @property
    def if_version(self) -> int | None:
        """The version the entity must still have for the message to apply, if any."""
        return self._if_version

    @property
    def origin(self) -> Delivery | None:
        """The delivery it came in; of an event, that of the message that caused it."""
        return self._origin

    @property
    def actor(self) -> str:
        """
        Who has ordered it, such as `token:ana`; "" if that is unknown.

        That is the header of this project or, of what other programs send, the user
        whom the broker has checked.
        """
        return self._origin.envelope.actor if self._origin else ""

    def came_in(self, delivery: Delivery) -> Self:
        """Return this message, which was decoded from a delivery, with its headers."""
        self.__dict__["_origin"] = delivery
        if (version := delivery.envelope.own_header(IF_VERSION)) is not None:
            self.__dict__["_if_version"] = version
        return self

    def encode(self) -> bytes:
        """
        Return the JSON body, as UTF-8.

        Raises `InvalidMessage` if `decode` would not return the same fields for it.
        """
        omitted = {n for n in _optional(type(self)) if getattr(self, n) is None}
        body = validated(lambda: self._as_json(omitted), UNENCODABLE)
        decoded = validated(partial(self.__pydantic_validator__.validate_json, body))
        if "_origin" in self.__dict__:
            decoded.__dict__["_origin"] = self._origin
        if (decoded.__dict__, decoded.model_extra) == (self.__dict__, self.model_extra):
            return body
        changed = [n for n, v in self if decoded.__dict__.get(n, v) != v]
        if changed or decoded.model_extra != self.model_extra:
            raise InvalidMessage({name: [CHANGED] for name in changed or [""]})
        return body

    def _as_json(self, omitted: set[str]) -> bytes:
        # Without warnings about values that `decode` refuses.
        return self.__pydantic_serializer__.to_json(
            self, by_alias=True, exclude=omitted, warnings=False
        )

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

    They are believed only if they came by this exchange: what others have sent to the
    queue of a listener is rejected.
    """

    queue: ClassVar = ""
    #: Whether this project publishes it; False for what it only listens to.
    is_ours: ClassVar[bool] = True

    def came_in(self, delivery: Delivery) -> Self:
        """Return this event; raise `InvalidMessage` if it came by another exchange."""
        if not delivery.envelope.is_event:
            text = _("It is no event: it did not come by the exchange %s.")
            raise InvalidMessage({"": [text % settings.EVENTS_EXCHANGE]})
        return super().came_in(delivery)

    def caused_by(self, message: Message) -> Self:
        """
        Return this event, as one that a message has caused.

        It inherits the correlation id and the trace of the message. A handler that
        takes lists says so; what others publish inherits them without it.
        """
        if message._origin is not None:
            self.__dict__["_origin"] = message._origin
        return self


class Unknown(Message):
    """A message of a type that this process does not know, with its sender's key."""

    queue: ClassVar = ""
    key: str
    #: Why it cannot be decoded.
    problem: str

    @property
    def partition_key(self) -> str:
        """The key that its sender has computed."""
        return self.key


def decode(
    body: bytes, classes: tuple[type[Message], ...], envelope: Envelope | None = None
) -> Message:
    """
    Parse a JSON body as the one of `classes` that its `event_type` names.

    Raises `InvalidMessage`.
    """
    if len(classes) == 1:
        return classes[0].decode(body, envelope)
    read: Callable[[bytes], Message] = _adapter(classes).validator.validate_json
    return validated(lambda: read(plain(body, envelope)))


def event_type_of(message: type[Message]) -> str:
    """
    Return the event type of a message class.

    Raises `ImproperlyConfigured` if it has none or several, if the field has an alias,
    and for a type that cannot be stored or routed.
    """
    field = message.model_fields["event_type"]
    event_type = field.default
    types = get_args(field.annotation)
    is_literal = get_origin(field.annotation) is Literal
    if not is_literal or not isinstance(event_type, str) or types != (event_type,):
        raise ImproperlyConfigured(
            f"{message.__qualname__} must have one event type: declare it as "
            '`event_type: Literal["..."] = "..."`.'
        )
    aliases = (field.alias, field.validation_alias, field.serialization_alias)
    if any(alias not in (None, "event_type") for alias in aliases):
        raise ImproperlyConfigured(
            f"{message.__qualname__}.event_type has an alias, but bodies have the type "
            'under its own name: declare it with `Field("...", alias="event_type")`.'
        )
    if problem := problem_of_type(event_type):
        raise ImproperlyConfigured(f"{message.__qualname__}: {problem}")
    return event_type


def problem_of_type(event_type: str) -> str | None:
    """Return why a text cannot be an event type, or None if it can."""
    if "\0" in event_type or {"*", "#"} & set(event_type.split(".")):
        return f"an event type has no NUL, and no word * or #: {event_type!r}"
    if not 0 < len(event_type) <= TYPE_LENGTH or len(event_type.encode()) > SHORT:
        return (
            f"an event type has 1 to {TYPE_LENGTH} characters, and {SHORT} bytes at "
            f"most: {event_type[:40]!r}..."
        )
    return None


def plain(body: bytes, envelope: Envelope | None) -> bytes:
    """Return a body without the content encoding of its envelope, if it has any."""
    return decoded(body, envelope.content_encoding) if envelope else body


def validated(read: Callable[[], T], problem: str | Promise = "") -> T:
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
        text = problem or _("Enter a valid value.")
        raise InvalidMessage({"": [f"{text} ({type(error).__name__})"]}) from error


def key_of(message: Message) -> str:
    """
    Return the partition key of a message, as text that can be stored.

    Raises `InvalidMessage` if its `partition_key` raises or is not a string.
    """
    key = validated(lambda: message.partition_key, NO_KEY)
    if not isinstance(key, str):
        text = _("The partition key is no text: %r") % (key,)
        raise InvalidMessage({"": [text[:200]]})
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
