"""
What calls and replies look like on the wire.

A call is a message with `reply_to` and `correlation_id`; its body is JSON or text. The
reply goes to the queue `reply_to` with the same `correlation_id` and the type `result`
or `error`; the body of an error is `{"error": {"type": ..., "message": ...}}`. These
two types and that body are those of JsonRPC in aio-pika's patterns.
"""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from messaging.amqp.deliveries import envelope_of
from messaging.conf import settings
from messaging.envelope import SHORT, Delivery, Envelope
from messaging.exceptions import InvalidCall, Reject, RemoteError
from messaging.text import storable

CALL, RESULT, ERROR = "call", "result", "error"
JSON, TEXT = "application/json", "text/plain"
#: Header: the time, in milliseconds since 1970 by the caller's clock, after which the
#: caller no longer waits for the reply.
DEADLINE = "deadline"
#: Seconds that a caller may wait: a day, well below the largest `expiration` of AMQP.
MAX_TIMEOUT = 24 * 60 * 60
#: Redeliveries of a call that do not yet make it suspect of killing its servers:
#: restarts and lost connections cost one each.
INNOCENT_DELIVERIES = 2
#: Characters of a text in an error: a reply that is too large could not be sent.
MAX_TEXT = 20_000
#: The message of exceptions that the server does not expose.
HIDDEN = "The function failed; the log of its server says why."


@dataclass(frozen=True, slots=True)
class Request:
    """A call as delivered by the queue of its server."""

    channel: Any
    method: Any
    properties: Any
    body: bytes

    @property
    def tag(self) -> int:
        """Its number in the channel."""
        tag: int = self.method.delivery_tag
        return tag

    def delivery(self, queue: str) -> Delivery:
        """Return it without its body, for the log."""
        envelope = envelope_of(self.method, self.properties, b"")
        return Delivery(envelope, queue, self.tag)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, below 0 after it; None if there is none."""
        return seconds_left(self.properties.headers)

    @property
    def is_suspect(self) -> bool:
        """Whether servers may have died of it; only quorum queues count deliveries."""
        count = (self.properties.headers or {}).get("x-delivery-count")
        return isinstance(count, int) and count > INNOCENT_DELIVERIES


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of a reply, and the properties that say how to read it."""

    body: bytes
    #: `RESULT` or `ERROR`; other systems may send none, which means a result.
    type: str | None = RESULT
    content_type: str | None = JSON

    @classmethod
    def of(cls, result: Any, *, text: bool) -> Reply:
        """Encode a result as text or JSON; raises `ValueError`."""
        if text:
            return cls(str(result).encode(), content_type=TEXT)
        return cls(to_json(result, inf_nan_mode="strings"))

    @classmethod
    def refusal(cls, error: InvalidCall) -> Reply:
        """Encode why a payload was refused."""
        return cls._error(error, str(error), errors=error.errors)

    @classmethod
    def failure(cls, error: Exception, *, exposed: bool = False) -> Reply:
        """
        Encode why a function failed.

        Message and traceback of errors other than `Reject` are included only if
        `exposed`.
        """
        if isinstance(error, Reject):
            return cls._error(error, error.reason, code=error.code)
        if exposed:
            text = storable("".join(traceback.format_exception(error)))
            return cls._error(error, storable(error), traceback=text[-MAX_TEXT:])
        return cls._error(error, HIDDEN)

    @classmethod
    def _error(cls, error: Exception, message: str, **more: Any) -> Reply:
        kind, text = storable(type(error).__name__), storable(message, MAX_TEXT)
        fields = {"type": kind, "message": text, **more}
        # Not `to_json`, which refuses text that is not valid Unicode.
        return cls(json.dumps({"error": fields}).encode(), ERROR)

    def envelope(self, call: Any) -> Envelope:
        """Return the envelope of this reply to a call with the properties `call`."""
        return Envelope(
            self.body,
            routing_key=call.reply_to,
            type=self.type,
            content_type=self.content_type,
            correlation_id=call.correlation_id,
            # The caller may have ended, and its queue with it.
            mandatory=False,
        )

    def value(self, *, text: bool = False) -> Any:
        """
        Return the result; with `text`, one without a content type is read as text.

        Raises `InvalidCall` or `RemoteError` if the reply is an error, or too large.
        """
        if len(self.body) > settings.MAX_BODY:
            reason = f"The reply takes more than {settings.MAX_BODY} bytes."
            raise RemoteError("InvalidAnswer", reason)
        if self.type == ERROR:
            raise self._exception()
        if is_json(self.content_type):
            try:
                return from_json(self.body)
            except ValueError as error:
                reason = f"The reply claims to be JSON and is not: {error}."
                raise RemoteError("InvalidAnswer", reason) from None
        if not (text or is_text(self.content_type)):
            try:
                return from_json(self.body)
            except ValueError:
                pass
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            return self.body

    def _exception(self) -> InvalidCall | RemoteError:
        try:
            fields: Any = from_json(self.body)["error"]
            if fields["type"] == InvalidCall.__name__ and "errors" in fields:
                return InvalidCall(errors_of(fields["errors"]))
            return RemoteError(
                storable(fields["type"], SHORT),
                storable(fields["message"], MAX_TEXT),
                storable(fields.get("code", ""), SHORT),
                storable(fields.get("traceback", ""), MAX_TEXT),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return RemoteError("RemoteError", storable(self.body, MAX_TEXT))


def errors_of(given: Any) -> dict[str, list[str]]:
    """Return the errors by argument that a server has sent, whatever it has sent."""
    return {
        storable(name, SHORT): [storable(text, MAX_TEXT) for text in listed(errors)]
        for name, errors in given.items()
    }


def listed(value: Any) -> list[Any]:
    """Return a list as it is, and any other value as its only item."""
    return value if isinstance(value, list) else [value]


def seconds_left(headers: dict[str, Any] | None) -> float | None:
    """Return the seconds until a call's deadline; None if it has no valid one."""
    deadline = (headers or {}).get(DEADLINE)
    if not isinstance(deadline, int | float):
        return None
    left = deadline / 1000 - time.time()
    return left if left <= MAX_TIMEOUT else None


def is_json(content_type: str | None) -> bool:
    """Return whether a content type means JSON."""
    name = storable(content_type or "").partition(";")[0].strip().lower()
    return name == JSON or name.endswith("+json")


def is_text(content_type: str | None) -> bool:
    """Return whether a content type means text."""
    return storable(content_type or "").lower().startswith("text/")
