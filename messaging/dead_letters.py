"""Messages that were given up: how they are kept and looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from .connection import with_channel
from .inbox import Failure
from .message import Delivery, Envelope
from .topology import dead_queue

#: Characters of a reason that travel in a header. All headers together must stay under
#: 16 KiB, or the broker closes the connection.
REASON_LENGTH = 1000
#: Characters of the original headers that are kept.
HEADERS_LENGTH = 8000


def dead_letter(delivery: Delivery, failure: Failure) -> Envelope:
    """
    Give the envelope that keeps a message for an operator.

    Body and properties stay those of the original; headers say why and whence.
    """
    headers = {
        name: value
        for name, value in delivery.envelope.headers.items()
        # Old brokers take a message that carries these for a routing loop.
        if not name.startswith(("x-death", "x-first-death", "x-last-death"))
    }
    if len(str(headers)) > HEADERS_LENGTH:
        headers = {}
    return delivery.envelope.copy(
        exchange="",
        routing_key=dead_queue(delivery.queue),
        mandatory=True,
        headers=headers
        | {
            "dead-kind": failure.kind,
            "dead-reason": failure.reason[:REASON_LENGTH],
            "dead-exception": failure.exception,
            "dead-queue": delivery.queue,
            "dead-at": datetime.now(UTC).isoformat(),
        },
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as people and scripts see it."""

    message_id: str | None
    queue: str
    kind: str
    reason: str
    exception: str
    failed_at: str | None
    event_type: str | None
    timestamp: str | None
    body: str

    @classmethod
    def of(cls, queue: str, properties: Any, body: bytes) -> DeadLetter:
        """Read what this package, or the broker itself, put into `<queue>.dead`."""
        headers = properties.headers or {}
        by_broker = "dead-kind" not in headers
        return cls(
            message_id=properties.message_id,
            queue=queue,
            kind="poison" if by_broker else headers["dead-kind"],
            reason=(
                "Consumers died on it too often."
                if by_broker
                else headers.get("dead-reason", "")
            ),
            exception=headers.get("dead-exception", ""),
            failed_at=headers.get("dead-at"),
            event_type=properties.type,
            timestamp=(
                datetime.fromtimestamp(properties.timestamp, UTC).isoformat()
                if properties.timestamp
                else None
            ),
            body=body.decode(errors="replace"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the fields, for JSON."""
        return asdict(self)


def browse(queue: str) -> Iterator[DeadLetter]:
    """
    Give the dead letters of a queue, oldest first, and leave them there.

    Raises `MessagingError` when the broker or the queue is away.
    """

    def read_all(channel: Any) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        while True:
            # Unsettled messages go back, in their order, when the connection closes.
            method, properties, body = channel.basic_get(dead_queue(queue))
            if method is None:
                return letters
            letters.append(DeadLetter.of(queue, properties, body))

    yield from with_channel("dead-letters", read_all)
