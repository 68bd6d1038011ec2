"""The limit of the broker: consume with pika, do nothing, ack 500 messages at once."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pika

BATCH = 500


def main(queue: str, count: int) -> None:
    """Consume so many messages, and print how many seconds it took."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2 * BATCH)
    seen = 0
    started = 0.0

    def on_message(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        nonlocal seen, started
        started = started or time.monotonic()
        seen += 1
        if seen % BATCH == 0 or seen == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if seen == count:
            channel.stop_consuming()

    channel.basic_consume(queue, on_message)
    channel.start_consuming()
    sys.stdout.write(f"{time.monotonic() - started}\n")
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
