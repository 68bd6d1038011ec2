"""The verb that calls functions served by other processes."""

from __future__ import annotations

import time
import uuid
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from messaging.amqp.publisher import publisher
from messaging.conf import settings
from messaging.exceptions import CallTimeout, NoServer, Unconfirmed, Unroutable
from messaging.message import SHORT, Envelope

from .protocol import CALL, DEADLINE, JSON, LONGEST, TEXT
from .replies import replies
from .serving import queue_of


def call(
    name: str, payload: Any = None, *, timeout: float | None = None, text: bool = False
) -> Any:
    """
    Call what is served under `name`, here or by another program; give its answer.

    A dictionary holds the arguments by name; None means no arguments. With `text` the
    payload is sent as plain text, and an answer that does not say what it is comes
    back as text. Waits `timeout` seconds in all (`MESSAGING["CALL_TIMEOUT"]`).

    Raises `NoServer` at once if nobody serves the name, `InvalidCall` if the payload
    is refused, `RemoteError` if the function fails, `CallTimeout` if no answer comes
    in time, `TooLarge`, or another `PublishError` if the call cannot be sent.
    """
    if timeout is None:
        timeout = settings.CALL_TIMEOUT
    if not 0 < timeout <= LONGEST:
        raise ValueError(f"timeout is {timeout}; give seconds above 0, at most a day.")
    queue = queue_of(name)
    if not 0 < len(queue.encode()) <= SHORT:
        raise ValueError(f"The name of a queue has 1 to {SHORT} bytes.")
    deadline = time.monotonic() + timeout
    envelope = envelope_for(queue, payload, timeout, text=text)
    try:
        with replies().expected(str(envelope.correlation_id), timeout) as answer:
            if not replies().presence.is_consumed(queue, left(deadline)):
                raise NoServer(f"Nobody serves {name!r}. Start `manage.py serve`.")
            publisher().publish(envelope, timeout=left(deadline))
            return answer.result(left(deadline)).value(text=text)
    except Unroutable:
        raise NoServer(f"Nobody serves {name!r}: it has no queue.") from None
    except (TimeoutError, Unconfirmed) as error:
        why = str(error) or replies().problem() or ""
        raise CallTimeout(
            f"{name!r} did not answer within {timeout:g} s. {why}".rstrip()
        ) from None


def envelope_for(
    queue: str, payload: Any, timeout: float, *, text: bool = False
) -> Envelope:
    """Give the envelope in which a call travels."""
    identity = str(uuid.uuid4())
    milliseconds = max(1, int(timeout * 1000))
    return Envelope(
        encoded(payload, text=text),
        routing_key=queue,
        message_id=identity,
        type=CALL,
        content_type=TEXT if text else JSON,
        correlation_id=identity,
        reply_to=replies().address,
        expiration=str(milliseconds),
        headers={DEADLINE: int(time.time() * 1000) + milliseconds},
    )


def encoded(payload: Any, *, text: bool) -> bytes:
    """Give the body of a call; raises `ValueError` for what JSON cannot hold."""
    if text:
        if isinstance(payload, bytes):
            return payload
        return b"" if payload is None else str(payload).encode()
    try:
        return to_json({} if payload is None else payload, inf_nan_mode="strings")
    except PydanticSerializationError as error:
        raise ValueError(f"The payload cannot be sent as JSON: {error}.") from None


def left(deadline: float) -> float:
    """Give the seconds until a moment of the monotonic clock."""
    return max(0.0, deadline - time.monotonic())


def dropped_replies() -> dict[str, int]:
    """
    Give how many answers came to this process that nobody waited for.

    They are counted as "duplicate" (of one that was taken), "late" (its caller has
    given up) or "unknown".
    """
    return dict(replies().dropped)
