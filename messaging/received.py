"""Messages of strangers, which have no event type: any body, from any exchange."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from django.utils.translation import gettext as _
from pydantic import InstanceOf, TypeAdapter

from .exceptions import InvalidMessage
from .message import NO_KEY, PARTITION_KEY, Envelope, Message, validated
from .text import storable

Body = TypeVar("Body")
#: What makes the body that handlers get of that which came.
Reader = Callable[[bytes], Any]

#: Headers of a message that is sent straight to its queue, from the dead letters or
#: from another partition: whence it came the first time.
ORIGIN_EXCHANGE = "origin-exchange"
ORIGIN_ROUTING_KEY = "origin-routing-key"


class Received(Message, Generic[Body]):
    """
    A message that came to a queue of `listens`, with the body that was asked for.

        @listens("birds_only", topic("nature", "*.bird"), body=Bird)
        def note(received: Received[Bird]) -> None:
            Sighting.objects.create(name=received.body.bird_name)
    """

    event_type: Literal["received"] = "received"
    queue: ClassVar = ""
    body: Body
    #: Body and properties as they came.
    envelope: InstanceOf[Envelope]
    key: str = ""

    #: Set by `received_as`.
    reader: ClassVar[Reader]
    key_of: ClassVar[Callable[[Any], object] | None] = None

    @property
    def routing_key(self) -> str:
        """The key it was published with."""
        return self.envelope.routing_key

    @property
    def exchange(self) -> str:
        """The exchange it was published to."""
        return self.envelope.exchange

    @property
    def headers(self) -> dict[str, Any]:
        """Those of its sender."""
        return self.envelope.headers

    @property
    def partition_key(self) -> str:
        """What `listens` was told, or the sender's; else it is alone with its key."""
        return self.key

    @classmethod
    def decode(cls, body: bytes, envelope: Envelope | None = None) -> Self:
        """Read the body; raises `InvalidMessage`."""
        envelope = at_origin(envelope or Envelope(body, "", message_id=None))
        parts = {"body": cls.reader(body), "envelope": envelope}
        key = cls.model_construct(**parts)._find_key()
        # The plugin of pydantic forgets that the class may be one that inherits.
        return cls.model_construct(**parts, key=key)  # type: ignore[return-value]

    def _find_key(self) -> str:
        sent = self.headers.get(PARTITION_KEY) or self.envelope.message_id
        if self.key_of is None:
            digest = hashlib.blake2b(self.envelope.body, digest_size=16)
            return storable(sent or digest.hexdigest())
        key_of = type(self).key_of
        return validated(lambda: storable(key_of(self)), NO_KEY)  # type: ignore[misc]


def received_as(
    body: Any, key: Callable[[Any], object] | None = None
) -> type[Received[Any]]:
    """Give the class of messages whose bodies are read as a type."""
    read = reader_of(body)

    class ReceivedBody(Received[Any]):
        reader: ClassVar[Reader] = staticmethod(read)
        key_of: ClassVar[Callable[[Any], object] | None] = key and staticmethod(key)

    return ReceivedBody


def reader_of(body: Any) -> Reader:
    """
    Give what reads a body: as it is for `bytes`, text in UTF-8 for `str`, and for any
    other type JSON that pydantic makes one of.
    """
    if body is bytes:
        return bytes
    read = read_text if body is str else TypeAdapter(body).validate_json

    return lambda raw: validated(lambda: read(raw))


def read_text(raw: bytes) -> str:
    """Give a text; raises `InvalidMessage`."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidMessage({"": [_("Enter a text.")]}) from None


def origin_of(envelope: Envelope) -> dict[str, str]:
    """Give the headers that tell whence a message came that is sent on."""
    if not envelope.exchange:
        return {}
    return {
        ORIGIN_EXCHANGE: envelope.exchange,
        ORIGIN_ROUTING_KEY: envelope.routing_key,
    }


def at_origin(envelope: Envelope) -> Envelope:
    """Give an envelope with the exchange and key it was published with."""
    exchange = envelope.headers.get(ORIGIN_EXCHANGE)
    key = envelope.headers.get(ORIGIN_ROUTING_KEY)
    if not (isinstance(exchange, str) and isinstance(key, str)):
        return envelope
    rest = {
        name: value
        for name, value in envelope.headers.items()
        if name not in (ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY)
    }
    return envelope.copy(exchange=exchange, routing_key=key, headers=rest)
