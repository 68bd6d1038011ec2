"""Hostile messages, made of valid ones, and what must survive them."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any

import pika
from pydantic import Field

from messaging import InvalidMessage, Message, MessagingError
from messaging.amqp.deliveries import envelope_of
from messaging.amqp.encoding import for_partition
from messaging.amqp.headers import from_json, to_json
from messaging.asyncapi.document import document
from messaging.bodies import event_type, legible
from messaging.conf import settings
from messaging.dead_letters.letters import Failure, letter_from_queue, letter_of
from messaging.envelope import OWN, PARTITIONS, Delivery, Envelope, at_origin
from messaging.message import decode, key_of
from messaging.models import DeadLetter
from messaging.operations import Outcome
from messaging.registry import bindings, handlers, messages_of, projections
from messaging.rpc.arguments import Parameters
from messaging.rpc.functions import Served
from messaging.rpc.protocol import ERROR, Reply, seconds_left
from messaging.traces.trace_context import TRACEPARENT, trace_of
from reports import reactions

QUEUES = (
    "users_queue", "reports_queue", "report_files_queue", "notifications_queue",
    reactions.QUEUE,
)  # fmt: skip
#: Where nobody may send replies, and queues that do not exist.
ADDRESSES = [
    None, "", "users_queue", "users_queue.0", "reports_queue.dead", "events", "x" * 255,
    "nowhere", "\x00",
]  # fmt: skip
#: Bytes at which decoders fail, to be put anywhere.
PIECES = [
    b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b'"', b"{", b"}",
    b"[" * 400, b"{}" * 50, b"1e999", b"-0", b"NaN", b"null", b"9" * 5_000,
    b"\xef\xbb\xbf", b'"event_type":"user.create",', "\u202e\u2066".encode(), b"\r\n",
]  # fmt: skip
#: Values that are valid JSON, for any field.
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**63, 2**64, 1e308, float("inf"), float("nan"), "",
    " ", "\0", "\ud800", "x" * 300, "1", "٣", "9999-12-31T23:59:59.999999-23:59",
    "2024-02-30", "a@b.c", "ñ" * 200 + "@b.c", "http://[::1]/", "=1+1", "\x1b[2J", [],
    {}, [[[]]], {"$gt": ""}, {"event_type": 1},
]  # fmt: skip
ENCODINGS: list[Any] = [None] * 4 + [
    "gzip",
    "deflate",
    "gzip, UTF-8",
    "br",
    "x" * 255,
    b"\xff",
]
#: Values that headers may have.
HEADERS: list[Any] = [
    None, True, 0, -1, 2**31, 2**62, "", "x" * 300, "\x00", "00-" + "1" * 32, b"\xff",
    datetime(2024, 1, 1, tzinfo=UTC), [1, [2, ["x"]]], {"a": {"b": [None]}},
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "events",
    "7d793037-a076-4c1f-8a3b-2f1d0a5c9e11", [{"reason": "rejected", "count": 2**62}],
]  # fmt: skip
NAMES = [*OWN, TRACEPARENT, "tracestate", "partition-key", "deadline", "x-death", "CC"]


#: What replies look like.
REPLIES: list[dict[str, Any]] = [
    {"error": {"type": "InvalidCall", "message": "x", "errors": {"text": ["x"]}}},
    {"error": {"type": "ValueError", "message": "x", "code": "x", "traceback": "x"}},
    {"status": "done", "reference": "1", "code": "", "reason": ""},
    {"status": "failed", "reference": "", "code": "x", "reason": "x"},
]


def served(
    text: str, number: Annotated[int, Field(ge=0)] = 1, day: date | None = None
) -> str:
    """Return the text: it is served to others."""
    return text


SERVED = Served("fuzzed", "fuzzed", served, False, False, True, Parameters(served))
#: What calls of it look like.
CALLS: list[dict[str, Any]] = [
    {"text": "a"},
    {"text": "a", "number": 7, "day": "2024-01-01"},
]


@contextmanager
def reacting() -> Iterator[None]:
    """Register what anonymises the reports of deleted users, which is an option."""
    before = [dict(one) for one in (handlers, bindings, projections)]
    reactions.connect()
    yield
    for registered, old in zip((handlers, bindings, projections), before, strict=True):
        registered.clear()
        registered.update(old)


@cache
def samples() -> list[dict[str, Any]]:
    """Return the examples of all messages in the AsyncAPI document."""
    return [
        example["payload"]
        for channel in document()["channels"].values()
        for message in channel["messages"].values()
        for example in message.get("examples", ())
    ]


def samples_for(queue: str) -> list[dict[str, Any]]:
    """Return the same, most of them of messages that a queue accepts."""
    own = [one for one in samples() if one["event_type"] in handlers[queue]]
    return samples() + own * (2 * len(samples()) // len(own))


def as_read(text: bytes) -> str | bytes:
    """Return a short text as pika reads it."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def delivered(
    body: bytes, exchange: Any, routing_key: Any, **properties: Any
) -> Envelope:
    """Return a message as the consumer gets it of pika."""
    method = SimpleNamespace(exchange=exchange, routing_key=routing_key)
    return envelope_of(method, pika.BasicProperties(**properties), body)


class Fuzzer:
    """An endless source of messages, the same for the same seed."""

    def __init__(self, seed: int, like: list[dict[str, Any]] | None = None) -> None:
        """Begin with a seed; bodies are made of those of all messages, or of others."""
        self.random = random.Random(seed)
        self._samples = like or samples()
        self._fields = sorted({name for sample in self._samples for name in sample})

    def body(self) -> bytes:
        """Return a body: valid, with odd values, or damaged."""
        choice = self.random.choice
        fields = dict(choice(self._samples))
        for _ in range(max(0, self.random.randrange(-2, 4))):
            name = choice([*fields, *fields, choice(self._fields)])
            if self.random.random() < 0.2:
                fields.pop(name, None)
            else:
                fields[name] = choice(VALUES)
        body = bytearray(json.dumps(fields).encode())
        for _ in range(max(0, self.random.randrange(-6, 4))):
            at = self.random.randrange(len(body) + 1)
            end = at + self.random.randrange(8)
            body[at:end] = choice([*PIECES, self.random.randbytes(3), b""])
        return bytes(body)

    def envelope(self) -> Envelope:
        """Return a message as it may be delivered from a partition or an ingress."""
        choice = self.random.choice
        body, encoding = self.body(), choice(ENCODINGS)
        if isinstance(encoding, str) and self.random.random() < 0.7:
            packed = (
                gzip.compress(body, 1) if "gzip" in encoding else zlib.compress(body)
            )
            body = packed[: self.random.randrange(len(packed) // 2, 2 * len(packed))]
        return delivered(
            body,
            # Headers of ours are believed in what comes through the first of them.
            exchange=choice([PARTITIONS, "", "amq.topic", "x" * 255]),
            routing_key=choice(["users_queue", "", "x" * 255, "\x00", b"\xff" * 80]),
            message_id=choice([None, "", "id", "x" * 255, b"\xff" * 255]),
            type=choice([None, "", "user.create", "x" * 255, "\x00", b"\xff"]),
            content_type=choice([None, "", "application/json", "text/plain"]),
            content_encoding=encoding,
            correlation_id=choice([None, "", "x"]),
            reply_to=choice([*ADDRESSES, "amq.rabbitmq.reply-to"]),
            headers=self.headers(),
        )

    def headers(self) -> dict[str, Any]:
        """Return headers, ours among them, with values of any type."""
        count = max(0, self.random.randrange(-3, 5))
        names = self.random.sample(NAMES, count)
        return {name: self.random.choice(HEADERS) for name in names}

    def envelopes(self, count: int) -> Iterator[Envelope]:
        """Yield messages."""
        return (self.envelope() for _ in range(count))


def decoded(queue: str, envelope: Envelope) -> Message | None:
    """
    Decode a message as the consumer of a queue does.

    Returns None for one that is refused, after making its dead letter. Any error but
    `InvalidMessage` is a mistake of the decoder.
    """
    try:
        message = decode(envelope.body, messages_of(queue), envelope)
        key_of(message)
    except InvalidMessage as error:
        delivery = Delivery(envelope, queue, 1)
        letter_of(delivery, Failure("rejected", str(error)))
        return None
    return message


def archived(queue: str, envelope: Envelope) -> DeadLetter:
    """Return the dead letter of a message from the queue of dead letters."""
    return letter_from_queue(envelope, queue)


def called(envelope: Envelope) -> bool:
    """Answer a call of the function, whose every error is a reply; is it a result?"""
    reply = SERVED.reply(envelope.body, envelope)
    seconds_left(envelope.headers)
    assert len(reply.envelope(envelope).body) <= settings.MAX_BODY
    return reply.type != ERROR


def answered(envelope: Envelope) -> bool:
    """Read a reply as who has called a function or waits for an outcome; is it one?"""
    is_result = True
    for kind in (None, ERROR):
        try:
            Reply(envelope.body, kind, envelope.content_type).value()
        except MessagingError:
            is_result = is_result and kind == ERROR
    with suppress(ValueError):
        Outcome.decode(envelope.body)
    return is_result


def read_everything(queue: str, envelope: Envelope) -> None:
    """Read all that is read of a message but its body: properties and headers."""
    delivery = Delivery(envelope, queue, 1)
    assert isinstance(delivery.message_id, str)
    assert delivery.inbox_id
    assert delivery.mark
    # Only our processes count them.
    assert delivery.replays == 0 or envelope.exchange == PARTITIONS
    event_type(envelope)
    legible(envelope.body, envelope.content_encoding)
    at_origin(envelope)
    trace_of(envelope.headers)
    seconds_left(envelope.headers)
    assert from_json(to_json(envelope.headers)) is not None
    archived(queue, envelope)
    for_partition(delivery, f"{queue}.0")
    answered(envelope)
