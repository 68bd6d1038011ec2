"""Messages of other programs: any body, from any exchange, without an event type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, Literal, Self, TypeVar

from django.utils.translation import gettext as _
from pydantic import InstanceOf, TypeAdapter

from .bodies import decoded, is_decodable
from .envelope import REPLAYS, Envelope, at_origin, digest
from .exceptions import InvalidMessage
from .message import NO_KEY, Message, validated
from .text import storable

#: The event type under which a queue of `listens` has its handler.
ANY_TYPE: Final = "received"

Body = TypeVar("Body")
#: Converts a body and its content encoding into the value that handlers receive.
Reader = Callable[[bytes, str | None], Any]


class Received(Message, Generic[Body]):
    """
    A message from a queue of `listens`, with a body of the requested type.

        @listens("birds_only", topic("nature", "*.bird"), body=Bird)
        def note(received: Received[Bird]) -> None:
            Sighting.objects.create(name=received.body.bird_name)
    """

    event_type: Literal["received"] = ANY_TYPE
    queue: ClassVar = ""
    body: Body
    #: Body and properties as delivered.
    envelope: InstanceOf[Envelope]
    key: str = ""
    #: How often an operator has sent it again.
    replays: int = 0

    #: Set by `received_as`.
    body_type: ClassVar[Any]
    reader: ClassVar[Reader]
    key_of: ClassVar[Callable[[Any], object] | None] = None

    @property
    def routing_key(self) -> str:
        """The routing key it was published with."""
        return self.envelope.routing_key

    @property
    def exchange(self) -> str:
        """The exchange it was published to."""
        return self.envelope.exchange

    @property
    def headers(self) -> dict[str, Any]:
        """The headers set by its sender."""
        return self.envelope.headers

    @property
    def partition_key(self) -> str:
        """The result of `key` of `listens`, the sender's key, or one of its own."""
        return self.key

    @classmethod
    def decode(cls, body: bytes, envelope: Envelope | None = None) -> Self:
        """Parse the body; raises `InvalidMessage`."""
        given = envelope or Envelope(body, "", message_id=None)
        parts = {
            "body": cls.reader(body, given.content_encoding),
            "envelope": at_origin(given),
            "replays": given.own_header(REPLAYS) or 0,
        }
        key = cls.model_construct(**parts)._find_key()
        # pydantic's mypy plugin takes `Self` for this class, not for a subclass.
        return cls.model_construct(**parts, key=key)  # type: ignore[return-value]

    def _find_key(self) -> str:
        key_of = type(self).key_of
        key = None if key_of is None else validated(lambda: key_of(self), NO_KEY)
        if key is not None:
            return storable(key)
        if sent := self.envelope.partition_key or self.envelope.message_id:
            return storable(sent)
        return digest(self.envelope.body)


def received_as(
    body: Any, key: Callable[[Any], object] | None = None
) -> type[Received[Any]]:
    """Return the class of messages whose bodies are parsed as the type `body`."""
    read = reader_of(body)

    class ReceivedBody(Received[Any]):
        body_type: ClassVar[Any] = body
        reader: ClassVar[Reader] = staticmethod(read)
        key_of: ClassVar[Callable[[Any], object] | None] = (
            None if key is None else staticmethod(key)
        )

    return ReceivedBody


def reader_of(body: Any) -> Reader:
    """
    Return a function that decompresses a body and parses it: unchanged for `bytes`,
    decoded from UTF-8 for `str`, and validated by pydantic from JSON for other types.
    """
    if body is bytes:
        return read_bytes
    read = read_text if body is str else TypeAdapter(body).validate_json

    return lambda raw, encoding: validated(lambda: read(decoded(raw, encoding)))


def read_bytes(raw: bytes, encoding: str | None) -> bytes:
    """Decompress a body; return one in an encoding that is not supported as it is."""
    return decoded(raw, encoding) if is_decodable(encoding) else raw


def read_text(raw: bytes) -> str:
    """Decode UTF-8; raises `InvalidMessage`."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidMessage({"": [_("Enter a text.")]}) from None
