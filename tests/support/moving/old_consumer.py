"""
A consumer of `users_queue` from before the move, with a table of its own.

It acknowledges after success, and puts back what has failed.
"""

import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import MySQLdb
import pika
from pika.exceptions import ChannelClosedByBroker

where = urlsplit(os.environ["OLD_DATABASE_URL"])
database = MySQLdb.connect(
    host=where.hostname,
    port=where.port,
    user=where.username,
    password=where.password,
    database=where.path[1:],
    autocommit=True,
)
FIELDS = ("nombre", "apellido", "email", "biografia")


def store(event: dict[str, Any]) -> None:
    """Apply an event to the table `users`."""
    given = {name: event[name] for name in FIELDS if event.get(name) is not None}
    cursor = database.cursor()
    if event["event_type"] == "user.create":
        names, marks = ", ".join(given), ", ".join(["%s"] * len(given))
        cursor.execute(
            f"INSERT INTO users ({names}) VALUES ({marks})", [*given.values()]
        )
    elif event["event_type"] == "user.update":
        changes = ", ".join(f"{name} = %s" for name in given)
        values = [*given.values(), event["user_id"]]
        cursor.execute(f"UPDATE users SET {changes} WHERE user_id = %s", values)
    else:
        cursor.execute("DELETE FROM users WHERE user_id = %s", [event["user_id"]])


def consume(channel: Any, method: Any, properties: Any, body: bytes) -> None:
    """Store an event; acknowledge it, or put it back."""
    try:
        store(json.loads(body))
    except Exception as error:  # noqa: BLE001 as the guide says
        print(error, file=sys.stderr)
        channel.basic_nack(method.delivery_tag, requeue=True)
    else:
        channel.basic_ack(method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
channel = connection.channel()
channel.queue_declare(queue="users_queue", durable=True)
channel.basic_qos(prefetch_count=1)
try:
    channel.basic_consume(queue="users_queue", on_message_callback=consume)
    channel.start_consuming()
except ChannelClosedByBroker as error:
    sys.exit(f"{error.reply_code} {error.reply_text}")
