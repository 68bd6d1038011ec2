"""Connections of pika that read any headers, and notice a silent broker in time."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
from pika.frame import Header, decode_frame
from pika.heartbeat import HeartbeatChecker

from messaging.logs.repetition import RepeatingLogger

from .field_tables import FRAME, exact_headers, may_be_changed

repeating = RepeatingLogger(__name__)

#: Bytes of messages that are sent in one piece.
PIECE = 64 * 1024
#: Seconds between two looks whether a broker is silent, and for how long it may be,
#: beside the interval of its heartbeats.
LOOK_PAUSE, SILENCE = 1.0, 5.0


class Heartbeats(HeartbeatChecker):  # type: ignore[misc]
    """Looks every second whether the broker is silent; pika looks much less often."""

    @property
    def connection_is_idle(self) -> bool:
        """Whether nothing has come for too long; looks that are late count once."""
        return bool(self._idle_byte_intervals * LOOK_PAUSE >= self._timeout + SILENCE)

    def _start_check_timer(self) -> None:
        self._check_interval = LOOK_PAUSE
        super()._start_check_timer()


class Tolerant(pika.connection.Connection):  # type: ignore[misc]
    """
    A connection of pika that leaves out headers which pika does not decode as sent.

    Otherwise a time in milliseconds, read as seconds, would end the connection at every
    delivery of the message.
    """

    def _create_heartbeat_checker(self) -> HeartbeatChecker:
        return Heartbeats(self, self.params.heartbeat)

    def _read_frame(self) -> tuple[int, Any]:
        try:
            size, frame = super()._read_frame()
            is_header = type(frame) is Header
            if not (is_header and may_be_changed(frame.properties.headers)):
                return size, frame
        except (ValueError, OverflowError, OSError, RecursionError, struct.error):
            pass  # pika cannot decode the headers
        return self._read_exact_headers()

    def _read_exact_headers(self) -> tuple[int, Any]:
        read = self._frame_buffer
        exact, left_out = exact_headers(read)
        if left_out:
            names = ", ".join(left_out[:10])
            text = "A message is read without %d headers that pika would change: %s"
            repeating.warning(text, len(left_out), names)
        size = FRAME.size + FRAME.unpack_from(read)[2] + 1
        return size, decode_frame(exact)[1]

    #: What is to be sent in one piece, in a `with` block of `gathering`.
    _gathered: bytearray | None = None

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Send what is published in a `with` block in few pieces: system calls."""
        self._gathered = bytearray()
        try:
            yield
        finally:
            self._emit_gathered()
            self._gathered = None

    def _emit_gathered(self) -> None:
        if self._gathered:
            data, self._gathered = bytes(self._gathered), bytearray()
            self._adapter_emit_data(data)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Send a message in one piece at most."""
        data = b"".join(marshaled_frames)
        self.bytes_sent += len(data)
        self.frames_sent += len(marshaled_frames)
        if self._gathered is None:
            self._adapter_emit_data(data)
            return
        self._gathered += data
        if len(self._gathered) >= PIECE:
            self._emit_gathered()


class Stream(Tolerant, pika.SelectConnection):  # type: ignore[misc]
    """A connection that its own loop serves."""
