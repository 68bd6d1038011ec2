"""Collecting all events, across restarts of the broker."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pika

from messaging.amqp.connection import UNCONNECTED
from messaging.conf import settings

from .verdict import SeenEvent
from .workload import Workload

logger = logging.getLogger(__name__)

QUEUE = "lab.events"
#: Maximum number of unacknowledged events.
PREFETCH = 200
#: Seconds between two attempts to connect.
PAUSE = 0.3


class Witness:
    """Collects every event in the order of arrival, and calls `on_event` with it."""

    def __init__(
        self,
        urls: Sequence[str],
        workloads: Mapping[str, Workload],
        on_event: Callable[[SeenEvent], None],
    ) -> None:
        self._addresses = [pika.URLParameters(url) for url in urls]
        for one in self._addresses:
            one.heartbeat = one.socket_timeout = one.stack_timeout = 5
        self._workloads = workloads
        self._on_event = on_event
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self.events: list[SeenEvent] = []
        self.error: Exception | None = None
        #: When the last event arrived.
        self.last_at = time.monotonic()

    def start(self) -> None:
        """Declare the queue, then listen in the background."""
        with pika.BlockingConnection(self._addresses) as connection:
            channel = connection.channel()
            channel.queue_declare(
                QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
            )
            channel.queue_bind(QUEUE, settings.EVENTS_EXCHANGE, "#")
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except UNCONNECTED as error:
                logger.debug("Listening again after %r", error)
                self._stopping.wait(PAUSE)
            except Exception as error:  # raised again in the main thread
                self.error = error
                return

    def _listen(self) -> None:
        random.shuffle(self._addresses)
        connection = pika.BlockingConnection(self._addresses)
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=PREFETCH)
            for method, _, body in channel.consume(QUEUE, inactivity_timeout=0.3):
                if self._stopping.is_set():
                    return
                if method is None or body is None:
                    continue
                self._add(json.loads(body))
                channel.basic_ack(method.delivery_tag)
        finally:
            with suppress(Exception):  # errors of an abandoned connection do not matter
                connection.close()

    def _add(self, body: dict[str, Any]) -> None:
        for kind, workload in self._workloads.items():
            if event := workload.read_event(body["event_type"], body):
                seen = SeenEvent(kind, event)
                self.events.append(seen)
                self.last_at = time.monotonic()
                self._on_event(seen)
