"""
What calls and answers look like on the wire.

A call is a message with `reply_to` and `correlation_id`; its body is JSON, or text. The
answer goes to the queue `reply_to` with the same `correlation_id` and the type `result`
or `error`; the body of an error is `{"error": {"type": ..., "message": ...}}`. Those
two types and that body are what JsonRPC of aio-pika's patterns uses.
"""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from messaging.exceptions import InvalidCall, Reject, RemoteError
from messaging.message import Envelope

CALL, RESULT, ERROR = "call", "result", "error"
JSON, TEXT = "application/json", "text/plain"
#: Header with the moment, in milliseconds since 1970 by the caller's clock, after which
#: nobody waits for the answer.
DEADLINE = "deadline"
#: Seconds that a caller may wait: a day, well below what a broker takes.
LONGEST = 24 * 60 * 60
#: Characters of a text in an error: an answer that is too large could not be sent.
MAX_TEXT = 20_000
#: Said of exceptions that the server does not expose.
UNSAID = "The function failed; the log of its server says why."


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer, and how to read it."""

    body: bytes
    #: `RESULT` or `ERROR`; other systems may send none, and mean a result.
    type: str | None = RESULT
    content_type: str | None = JSON

    @classmethod
    def of(cls, result: Any, *, text: bool) -> Answer:
        """Tell what a function returned, as text or as JSON; raises `ValueError`."""
        if text:
            return cls(str(result).encode(), content_type=TEXT)
        return cls(to_json(result, inf_nan_mode="strings"))

    @classmethod
    def refusal(cls, error: InvalidCall) -> Answer:
        """Tell what is wrong with a payload."""
        return cls._told(error, str(error), errors=error.errors)

    @classmethod
    def failure(cls, error: Exception, *, exposed: bool = False) -> Answer:
        """Tell why there is no result: all of it only if that may be `exposed`."""
        if isinstance(error, Reject):
            return cls._told(error, error.reason, code=error.code)
        if exposed:
            text = "".join(traceback.format_exception(error))
            return cls._told(error, str(error), traceback=text[-MAX_TEXT:])
        return cls._told(error, UNSAID)

    @classmethod
    def _told(cls, error: Exception, message: str, **more: Any) -> Answer:
        told = {"type": type(error).__name__, "message": message[:MAX_TEXT], **more}
        # Not as results are: this takes any text, be it no valid Unicode.
        return cls(json.dumps({"error": told}).encode(), ERROR)

    def envelope(self, call: Any) -> Envelope:
        """Give what carries it, in reply to a call with those properties."""
        return Envelope(
            self.body,
            routing_key=call.reply_to,
            type=self.type,
            content_type=self.content_type,
            correlation_id=call.correlation_id,
            # The caller may have gone, with its queue.
            mandatory=False,
        )

    def value(self, *, text: bool = False) -> Any:
        """
        Give the result; with `text`, one that does not say what it is comes as text.

        Raises `InvalidCall` or `RemoteError` if that is what the answer tells.
        """
        if self.type == ERROR:
            raise self._error()
        if is_json(self.content_type):
            try:
                return from_json(self.body)
            except ValueError as error:
                raise RemoteError(
                    "InvalidAnswer", f"The answer says it is JSON and is not: {error}."
                ) from None
        if not (text or is_text(self.content_type)):
            try:
                return from_json(self.body)
            except ValueError:
                pass
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            return self.body

    def _error(self) -> InvalidCall | RemoteError:
        told: Any = None
        try:
            told = from_json(self.body)["error"]
            if told["type"] == InvalidCall.__name__ and "errors" in told:
                return InvalidCall(dict(told["errors"]))
            return RemoteError(
                str(told["type"]),
                str(told["message"]),
                str(told.get("code", "")),
                str(told.get("traceback", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return RemoteError("RemoteError", self.body.decode(errors="replace"))


def seconds_left(headers: dict[str, Any] | None) -> float | None:
    """Give the seconds until a caller gives up; None if it said nothing sensible."""
    deadline = (headers or {}).get(DEADLINE)
    if not isinstance(deadline, int | float):
        return None
    left = deadline / 1000 - time.time()
    return left if left <= LONGEST else None


def is_json(content_type: str | None) -> bool:
    """Whether a content type says JSON."""
    name = (content_type or "").partition(";")[0].strip().lower()
    return name == JSON or name.endswith("+json")


def is_text(content_type: str | None) -> bool:
    """Whether a content type says text."""
    return (content_type or "").lower().startswith("text/")
