"""
Programs of the project with one promise broken on purpose, for the lab to find out.

    python -m tests.sabotage skip-inbox run_consumer --all
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

import django
from django.core.management import execute_from_command_line
from pymongo import UpdateOne


def acknowledge_first() -> None:
    """Acknowledge what has arrived, then take some time to commit it."""
    from messaging import consumer, inbox

    arrived, apply_batch = consumer.Subscription._arrived, inbox.apply_batch

    def arrive(self: Any, channel: Any, method: Any, *parts: Any) -> None:
        arrived(self, channel, method, *parts)
        if channel.is_open:
            channel.basic_ack(method.delivery_tag)

    def apply_late(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return apply_batch(*arguments, **options)

    consumer.Subscription._arrived = arrive
    consumer.Subscription.acknowledge = lambda self, batch: None
    inbox.apply_batch = apply_late


def skip_inbox() -> None:
    """Neither look into the inbox nor enter anything."""
    from messaging import inbox

    inbox._recognise = lambda entries: None
    inbox._remember = lambda entries: None


def publish_blindly() -> None:
    """Take what has been written to the socket for published."""
    from messaging.publisher import Publisher

    flush = Publisher._flush

    def flush_blindly(self: Publisher) -> None:
        flush(self)
        while self._unconfirmed:
            self._unconfirmed.popitem()[1].settle()

    Publisher._flush = flush_blindly


def ignore_versions() -> None:
    """Write documents some time after the ledger was read, whatever their version."""
    from reports import documents, handlers

    write_documents = documents.write_documents

    def operation(self: documents.Write) -> UpdateOne:
        return UpdateOne({"_id": self.id_reporte}, self.change, upsert=self.upsert)

    def write_late(writes: Any) -> None:
        time.sleep(random.uniform(0, 0.2))
        write_documents(writes)

    documents.Write.operation = operation
    handlers.write_documents = write_late


SABOTAGES = {
    "acknowledge-first": acknowledge_first,
    "skip-inbox": skip_inbox,
    "publish-blindly": publish_blindly,
    "ignore-versions": ignore_versions,
}


def __getattr__(name: str) -> Any:
    """Give the API that publishes blindly, to a WSGI server that asks for it."""
    if name != "blind_api":
        raise AttributeError(name)
    from project.wsgi import application

    publish_blindly()
    return application


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    SABOTAGES[sys.argv[1]]()
    execute_from_command_line(sys.argv[1:])
