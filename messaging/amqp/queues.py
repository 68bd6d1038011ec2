"""
Ask the broker about a queue: is it there, is it consumed.

A passive declaration answers both. `QueueProbe` asks when a caller wants to know,
`ConsumerWatchdog` asks again and again about the consumer of this process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from messaging.logs.repetition import RepeatingLogger

from .channels import NOT_FOUND

repeating = RepeatingLogger(__name__)

#: Seconds for which an answer of the broker is valid, so that many calls ask once.
FRESH = 0.1
#: Seconds between two questions of a watchdog.
WATCH_PAUSE = 4.0


def hide_refusals(channel: Callable[[], Any], *codes: int) -> None:
    """Hide pika's warnings of refusals with these codes, on the channel returned."""

    def is_news(record: logging.LogRecord) -> bool:
        given = record.args if isinstance(record.args, tuple) else ()
        return channel() not in given or not any(code in given for code in codes)

    logging.getLogger("pika.channel").addFilter(is_news)


class QueueProbe:
    """
    Asks the broker about queues, one after the other, on a channel of its own.

    A mandatory message is returned only if there is no queue at all. Durable queues
    exist longer than their servers and would make a caller wait until its deadline.

    `is_consumed` is called in any thread; what follows its comment runs in the I/O
    thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._questions: dict[str, Future[bool]] = {}
        #: When a queue was last consumed, on the monotonic clock.
        self._seen: dict[str, float] = {}
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        self._channel: Any = None
        self._asked: str | None = None

    def attach(self, submit: Callable[[Callable[[], None]], None]) -> None:
        """Use `submit` to run code in the I/O thread."""
        self._submit = submit
        hide_refusals(lambda: self._channel, NOT_FOUND)

    def is_consumed(self, queue: str, patience: float) -> bool:
        """
        Return whether a queue exists and has a consumer.

        Raises `TimeoutError` if the broker does not answer within `patience` seconds.
        """
        if time.monotonic() - self._seen.get(queue, -FRESH) < FRESH:
            return True
        with self._lock:
            answer = self._questions.get(queue)
            if answer is None:
                answer = self._questions[queue] = Future()
        self._submit(self._ask)
        return answer.result(patience)

    # What follows runs in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Ask on a new channel."""
        self._channel = channel
        self._ask()

    def closed(self, error: Exception) -> float:
        """Answer the question for which the broker closed the channel."""
        self._channel = None
        asked, self._asked = self._asked, None
        if asked is not None and (code := getattr(error, "reply_code", None)):
            # If it refuses to answer (403), publishing will show what is wrong.
            self._answer(asked, code != NOT_FOUND)
        return 0.0

    def unblocked(self) -> None:
        """Do nothing: questions are never blocked."""

    def _ask(self) -> None:
        if self._asked is None and self._channel is not None:
            with self._lock:
                self._asked = next(iter(self._questions), None)
            if self._asked is not None:
                self._channel.queue_declare(
                    self._asked, passive=True, callback=self._answered
                )

    def _answered(self, frame: Any) -> None:
        queue, self._asked = self._asked, None
        if queue is not None:
            self._answer(queue, frame.method.consumer_count > 0)
        self._ask()

    def _answer(self, queue: str, consumed: bool) -> None:
        if consumed:
            self._seen[queue] = time.monotonic()
        else:
            self._seen.pop(queue, None)
        with self._lock:
            answer = self._questions.pop(queue)
        answer.set_result(consumed)


class ConsumerWatchdog:
    """
    Asks the broker at intervals whether it still has a consumer of a queue.

    Calls `on_lost(channel)` when it has none, and closes the connection when it does
    not answer. It lives as long as `channel` and runs in the I/O thread.
    """

    def __init__(
        self, channel: Any, queue: str, on_lost: Callable[[Any], None]
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._on_lost = on_lost
        self._is_waiting = False

    def start(self) -> None:
        """Ask after the pause."""
        self._channel.connection.ioloop.call_later(WATCH_PAUSE, self._ask)

    def _ask(self) -> None:
        if not self._channel.is_open:
            return
        if self._is_waiting:
            text = "The broker has not answered about %s"
            repeating.critical(text, self._queue, about=self._queue)
            # As after missed heartbeats: `close` would wait for the broker's answer.
            error = ConnectionError("The broker does not answer.")
            self._channel.connection._terminate_stream(error)
            return
        self._is_waiting = True
        self._channel.queue_declare(self._queue, passive=True, callback=self._answered)
        self.start()

    def _answered(self, frame: Any) -> None:
        self._is_waiting = False
        # With a single active consumer the others are not counted.
        if frame.method.consumer_count == 0:
            text = "The broker has no consumer of %s left"
            repeating.warning(text, self._queue, about=self._queue)
            self._on_lost(self._channel)
