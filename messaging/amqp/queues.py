"""Whether anybody consumes a queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .channels import NOT_FOUND

#: Seconds for which an answer of the broker is believed: many calls ask only once.
FRESH = 0.1


class QueueProbe:
    """
    Asks the broker about queues, one after the other, on a channel of its own.

    A mandatory message comes back only from where there is no queue. Durable queues
    outlive their servers, and would keep a caller waiting until its deadline.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._questions: dict[str, Future[bool]] = {}
        self._seen: dict[str, float] = {}
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        self._channel: Any = None
        self._asked: str | None = None

    def attach(self, submit: Callable[[Callable[[], None]], None]) -> None:
        """Use `submit` to get into the I/O thread."""
        self._submit = submit
        logging.getLogger("pika.channel").addFilter(self._is_news)

    def is_consumed(self, queue: str, patience: float) -> bool:
        """Whether it is; raises `TimeoutError` if the broker does not say in time."""
        if time.monotonic() - self._seen.get(queue, -FRESH) < FRESH:
            return True
        with self._lock:
            answer = self._questions.get(queue)
            if answer is None:
                answer = self._questions[queue] = Future()
        self._submit(self._ask)
        return answer.result(patience)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Whether to log what pika says: not that a queue does not exist."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not (NOT_FOUND in arguments and self._channel in arguments)

    # What follows runs in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Take up asking."""
        self._channel = channel
        self._ask()

    def closed(self, error: Exception) -> float:
        """Take the broker's word that there is no such queue."""
        self._channel = None
        asked, self._asked = self._asked, None
        if asked is not None and (code := getattr(error, "reply_code", None)):
            # It may also refuse to say (403): publishing will tell.
            self._answer(asked, code != NOT_FOUND)
        return 0.0

    def unblocked(self) -> None:
        """Questions are never blocked."""

    def _ask(self) -> None:
        if self._asked is None and self._channel is not None:
            with self._lock:
                self._asked = next(iter(self._questions), None)
            if self._asked is not None:
                self._channel.queue_declare(
                    self._asked, passive=True, callback=self._told
                )

    def _told(self, frame: Any) -> None:
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
