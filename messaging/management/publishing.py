"""What `publish` sends: bodies from the command line, a file or stdin, in envelopes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json

from messaging.amqp.encoding import pack
from messaging.envelope import Envelope
from messaging.exceptions import MessagingError, TopologyMismatch, Unroutable
from messaging.publish import dispatch

#: Messages, and bytes of bodies, that are sent before their confirms are waited for.
PORTION = (500, 4 * 1024 * 1024)
#: Bytes that are read at a time.
BUFFER = 1024 * 1024


def read_bodies(
    given: str | None, file: Path | None, *, lines: bool
) -> Iterator[list[bytes]]:
    """Yield the bodies of the messages; in one list those that arrived together."""
    if given not in (None, "-"):
        yield [os.fsencode(given)]
    elif file:
        with file.open("rb") as opened:
            yield from _bodies_of(opened, lines)
    else:
        yield from _bodies_of(sys.stdin.buffer, lines)


def publish_bodies(
    groups: Iterable[list[bytes]], pack_body: Callable[[bytes], Iterable[Envelope]]
) -> Iterator[int]:
    """
    Publish the envelopes of all bodies, and yield the count of each confirmed portion.

    Raises `MessagingError`; what came before a bad body has been published then.
    """
    for bodies in groups:
        envelopes = (envelope for body in bodies for envelope in pack_body(body))
        for portion in _portions(envelopes):
            dispatch(portion)
            yield len(portion)


def packer(
    *, json: bool, count: int, **properties: Any
) -> Callable[[bytes], Iterator[Envelope]]:
    """
    Return a function that yields `count` envelopes of a body, with these properties.

    With `json` it raises `MessagingError` for a body that is not JSON.
    """
    if json:
        properties.setdefault("content_type", "application/json")

    def pack_body(body: bytes) -> Iterator[Envelope]:
        if json:
            _check_json(body)
        for _ in range(count):
            yield pack(_as_text(body), **properties)

    return pack_body


def explained(error: Exception) -> str:
    """Return the text of an error, and which option may help."""
    text = str(error)
    if isinstance(error, Unroutable):
        text = text.replace(
            "run `manage.py topology apply`.",
            "bind a queue, or use --optional if it may go to no queue.",
        )
        if "no exchange" in text:
            text += ": --declare TYPE makes it."
    elif isinstance(error, TopologyMismatch):
        text += ": leave --declare out to use it as it is."
    return text


def _bodies_of(file: IO[bytes], lines: bool) -> Iterator[list[bytes]]:
    if not lines:
        yield [file.read()]
        return
    rest = b""
    while data := file.read1(BUFFER):  # type: ignore[attr-defined]
        *complete, rest = (rest + data).split(b"\n")
        yield [line for line in map(_without_end, complete) if line]
    if rest := _without_end(rest):
        yield [rest]


def _without_end(line: bytes) -> bytes:
    # Windows ends lines with \r\n.
    return line.removesuffix(b"\r")


def _portions(envelopes: Iterable[Envelope]) -> Iterator[list[Envelope]]:
    """Yield portions that are small enough to be confirmed in time."""
    portion: list[Envelope] = []
    size = 0
    try:
        for envelope in envelopes:
            portion.append(envelope)
            size += len(envelope.body)
            if len(portion) >= PORTION[0] or size >= PORTION[1]:
                yield portion
                portion, size = [], 0
    except MessagingError:
        # What came before the bad body is published.
        if portion:
            yield portion
        raise
    if portion:
        yield portion


def _as_text(body: bytes) -> bytes | str:
    """Return text if the body is UTF-8, which decides about its content type."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _check_json(body: bytes) -> None:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MessagingError(f"It is not JSON: {error}: {body[:80]!r}.") from None
