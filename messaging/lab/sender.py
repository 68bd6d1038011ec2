"""Sending operations: over HTTP, and as messages of an ordinary AMQP client."""

from __future__ import annotations

import http.client
import json
import logging
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from messaging import topology
from messaging.amqp.connection import UNCONNECTED
from messaging.registry import message_class

from .workload import Operation, Outcome, Request

logger = logging.getLogger(__name__)

#: Seconds between two attempts to connect.
PAUSE = 0.2
#: Seconds to wait for an HTTP response; the project itself gives up earlier.
HTTP_TIMEOUT = 20
#: Seconds between heartbeats: half-open connections are detected after two.
HEARTBEAT = 4
#: What is counted of requests: answered 503 with `Retry-After`, and not at all.
POSTPONED, UNANSWERED = "answered 503", "unanswered"


class Refused(Exception):
    """The API has rejected a request, so the workload has built an invalid one."""


class Messages:
    """Sends operations as messages, and reconnects after a lost connection."""

    def __init__(self, urls: Sequence[str], stopping: threading.Event) -> None:
        self._addresses = [pika.URLParameters(url) for url in urls]
        for one in self._addresses:
            one.heartbeat = one.socket_timeout = one.stack_timeout = HEARTBEAT
        self._stopping = stopping
        self._channel: BlockingChannel | None = None

    def send(self, operation: Operation, message_id: str) -> Outcome:
        """Publish with this id, again and again until the broker confirms."""
        body = {"event_type": operation.event_type, **operation.body}
        message = message_class(operation.event_type).parse(body)
        queue = message.queue
        if not operation.entity.foreign:
            queue = topology.partition_for(queue, message.partition_key)
        while not self._stopping.is_set():
            try:
                channel = self._open()
                if operation.entity.foreign:
                    # As programs do that know nothing of this one.
                    channel.queue_declare(queue, durable=True)
                properties = pika.BasicProperties(delivery_mode=2)
                if not operation.entity.nameless:
                    properties.message_id = message_id
                channel.basic_publish(
                    "", queue, json.dumps(body).encode(), properties, mandatory=True
                )
            except UNCONNECTED as error:
                logger.debug("Publishing again after %r", error)
                self.close()
                self._stopping.wait(PAUSE)
            else:
                return Outcome.ACCEPTED
        return Outcome.UNKNOWN

    def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        # Errors of a connection that is given up do not matter.
        with suppress(Exception):
            if channel is not None:
                channel.connection.close()

    def _open(self) -> BlockingChannel:
        if self._channel is None or not self._channel.is_open:
            random.shuffle(self._addresses)
            self._channel = pika.BlockingConnection(self._addresses).channel()
            self._channel.confirm_delivery()
        return self._channel


class Requests:
    """Sends operations over HTTP."""

    def __init__(
        self,
        port: int,
        counts: Counter[str],
        stopping: threading.Event,
        *,
        idempotency_keys: bool,
    ) -> None:
        self._port = port
        self._counts = counts
        self._stopping = stopping
        self._idempotency_keys = idempotency_keys

    def send(self, request: Request) -> tuple[Outcome, dict[str, Any]]:
        """
        Send a request, and again until it is answered, as far as that is safe.

        Repeating is safe while the connection is refused, and always with an
        Idempotency-Key. Return the outcome and the body of the response.
        """
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        while not self._stopping.is_set():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=HTTP_TIMEOUT
            )
            try:
                connection.connect()
            except OSError:
                self._stopping.wait(PAUSE)
                continue
            try:
                answer = self._answer(connection, request, headers)
            except (OSError, http.client.HTTPException, ValueError) as error:
                logger.debug("%s %s: %r", request.method, request.path, error)
                self._counts[UNANSWERED] += 1
            else:
                if answer is not None:
                    return Outcome.ACCEPTED, answer
            finally:
                connection.close()
            if not self._idempotency_keys:
                break
            self._stopping.wait(PAUSE)
        return Outcome.UNKNOWN, {}

    def _answer(
        self,
        connection: http.client.HTTPConnection,
        request: Request,
        headers: dict[str, str],
    ) -> dict[str, Any] | None:
        body = None if request.body is None else json.dumps(request.body)
        connection.request(request.method, request.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if (
            response.status == http.client.SERVICE_UNAVAILABLE
            and (response.headers["Retry-After"])
        ):
            self._counts[POSTPONED] += 1
            return None
        if response.status != http.client.ACCEPTED:
            what = content[:300].decode(errors="replace")
            raise Refused(
                f"{request.method} {request.path} {body}: {response.status} {what}"
            )
        answer: dict[str, Any] = json.loads(content)
        return answer


class Pace:
    """Limits one thread to a number of operations per second."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._next = time.monotonic()

    def wait(self, stopping: threading.Event) -> None:
        """Sleep until the next operation is due."""
        now = time.monotonic()
        self._next = max(self._next + self._interval, now - 1)
        if self._next > now:
            stopping.wait(self._next - now)
