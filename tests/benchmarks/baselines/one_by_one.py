"""A consumer with pika: prefetch 1, a commit and an ack for each message."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import pika

from .storage import save_user

logger = logging.getLogger(__name__)


def callback(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
    try:
        save_user(json.loads(body))
    except Exception:
        logger.exception("Failed")
        channel.basic_nack(method.delivery_tag, requeue=True)
    else:
        channel.basic_ack(method.delivery_tag)


def main(queue: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, callback)
    channel.start_consuming()


if __name__ == "__main__":
    main(sys.argv[1])
