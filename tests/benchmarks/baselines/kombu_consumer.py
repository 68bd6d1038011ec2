"""A consumer with kombu's mixin: prefetch 100, a commit and an ack for each message."""

from __future__ import annotations

import os
import sys
from typing import Any

from kombu import Connection, Queue
from kombu.mixins import ConsumerMixin

from .storage import save_user


class Users(ConsumerMixin):
    def __init__(self, connection: Connection, queue: str) -> None:
        self.connection = connection
        self.queue = Queue(queue, no_declare=True)

    def get_consumers(self, consumer: Any, channel: Any) -> list[Any]:
        return [consumer([self.queue], callbacks=[self.on_message], prefetch_count=100)]

    def on_message(self, body: dict[str, Any], message: Any) -> None:
        save_user(body)
        message.ack()


if __name__ == "__main__":
    with Connection(os.environ["RABBITMQ_URL"]) as opened:
        Users(opened, sys.argv[1]).run()
