"""
The limit of broker and database together: all rows of a batch in one statement a table.

Inserts the rows of each message of a queue, with a transaction and an acknowledgement
for 500 messages. The database works in a second thread. Nothing is checked, recognised
or ordered.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from functools import partial
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

import MySQLdb
import pika

from tests.benchmarks import tables

BATCH = 500
PREFETCH = 2 * BATCH

#: The messages of a transaction, and the delivery tag of the last one.
Batch = tuple[list[tables.Created], int]


class Writer(threading.Thread):
    """Inserts and commits batches, then lets `acknowledge` run."""

    def __init__(self, database: Any, acknowledge: Any) -> None:
        super().__init__(daemon=True)
        self.batches: Queue[Batch] = Queue(maxsize=2)
        self._database = database
        self._tables = tables.existing(database)
        self._acknowledge = acknowledge

    def run(self) -> None:
        cursor = self._database.cursor()
        while True:
            created, tag = self.batches.get()
            for table in self._tables:
                table.insert(cursor, created)
            self._database.commit()
            self._acknowledge(tag)


def main(queue: str) -> None:
    address = urlsplit(os.environ["DATABASE_URL"])
    database = MySQLdb.connect(
        host=address.hostname,
        port=address.port,
        user=address.username,
        database=address.path.strip("/"),
        charset="utf8mb4",
    )
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    number = tables.next_id(database)
    database.commit()
    created: list[tables.Created] = []

    def acknowledge(tag: int) -> None:
        ack = partial(channel.basic_ack, tag, multiple=True)
        connection.add_callback_threadsafe(ack)

    writer = Writer(database, acknowledge)
    last = 0

    def on_message(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        nonlocal number, last
        created.append((number, properties.message_id, json.loads(body)))
        number += 1
        last = method.delivery_tag
        if len(created) == BATCH:
            flush()

    def flush() -> None:
        writer.batches.put((created.copy(), last))
        created.clear()

    channel.basic_consume(queue, on_message)
    writer.start()
    while writer.is_alive():
        connection.process_data_events(time_limit=0.05)
        if created and writer.batches.empty():
            flush()


if __name__ == "__main__":
    main(sys.argv[1])
