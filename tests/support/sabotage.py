"""
Programs of the project that break one guarantee, for the crash lab to detect.

    python -m tests.support.sabotage skip-inbox run_consumer --all
"""

from __future__ import annotations

import inspect
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import django
from django.core.management import execute_from_command_line
from django.db import connections
from pymongo import UpdateOne


def replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Replace a function of the project; raise `TypeError` if it has changed."""
    original = inspect.signature(getattr(owner, name)).parameters
    if len(inspect.signature(function).parameters) != len(original):
        raise TypeError(f"{name} now takes: {', '.join(original)}")
    setattr(owner, name, function)


def run_later(seconds: float, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in another thread, as a process does that was given up."""

    def run() -> None:
        time.sleep(seconds)
        with suppress(Exception):  # a server may be away
            function(*arguments)
        connections.close_all()

    threading.Thread(target=run, daemon=True).start()


def acknowledge_first() -> None:
    """Acknowledge messages on arrival, and commit their effects later."""
    from messaging.amqp.subscription import Subscription
    from messaging.consumer.batch import Processor

    arrived, process = Subscription._arrived, Processor.process

    def arrive(self: Any, channel: Any, method: Any, props: Any, body: bytes) -> None:
        arrived(self, channel, method, props, body)
        if channel.is_open:
            channel.basic_ack(method.delivery_tag)

    def process_late(self: Any, batch: Any) -> None:
        time.sleep(0.3)
        process(self, batch)

    replace(Subscription, "_arrived", arrive)
    replace(Subscription, "acknowledge", lambda self, batch: None)
    replace(Processor, "process", process_late)


def skip_inbox() -> None:
    """Neither read nor write the inbox."""
    from messaging.consumer import inbox

    replace(inbox, "recognise", lambda part, may_be_known: None)
    replace(inbox, "record", lambda lease, part, began: None)


def publish_blindly() -> None:
    """Take what has been written to the socket for published."""
    from messaging.amqp.confirms import ConfirmChannel

    flush = ConfirmChannel._flush

    def flush_blindly(self: ConfirmChannel) -> None:
        flush(self)
        while self._unconfirmed:
            self._unconfirmed.popitem()[1].settle()

    replace(ConfirmChannel, "_flush", flush_blindly)


def ignore_versions() -> None:
    """
    Write documents whatever their version, and half of them once more, seconds later.

    So does a process that was given up and works on.
    """
    from reports import documents, projection

    write_documents = documents.write_documents

    def operation(self: documents.Write) -> UpdateOne:
        return UpdateOne({"_id": self.id_reporte}, self.change, upsert=self.upsert)

    def write_twice(writes: Any) -> None:
        write_documents(writes)
        again = [write for write in writes if random.random() < 0.5]
        run_later(3, write_documents, again)

    replace(documents.Write, "operation", operation)
    replace(projection, "write_documents", write_twice)


def ignore_key() -> None:
    """Let messages overtake parked ones of their key."""
    from messaging.consumer import parking
    from messaging.consumer.context import State, in_states

    replace(parking, "find_blocked", lambda lease, part: None)
    replace(parking, "hold_back", lambda run, part, blocked: in_states(run, State.NEW))


def blame_all() -> None:
    """Blame the first of the messages that fail together, and drop the others."""
    from messaging.consumer import policy

    replace(policy, "split", lambda part, suspect: [part[:1]])


def ignore_epoch() -> None:
    """
    Process all batches once more, a second later, as they were delivered.

    So does a process that was stopped meanwhile, and goes on under a lease that another
    one has: it does not know what its successor has parked.
    """
    from messaging.cluster.leases import HeldLease
    from messaging.consumer.batch import Processor
    from messaging.consumer.context import Batch, Context

    process = Processor.process

    def process_twice(self: Any, batch: Any) -> None:
        process(self, batch)
        is_ingress = self.lease.name == self.lease.queue
        if not (batch.is_parked or is_ingress):
            stale = HeldLease(self.lease.queue, self.lease.name)
            stale.has_parked = False
            again = Batch([Context(one.delivery) for one in batch.contexts])
            run_later(1, process, Processor(stale), again)

    replace(Processor, "process", process_twice)


SABOTAGES = {
    "acknowledge-first": acknowledge_first,
    "skip-inbox": skip_inbox,
    "publish-blindly": publish_blindly,
    "ignore-versions": ignore_versions,
    "ignore-key": ignore_key,
    "blame-all": blame_all,
    "ignore-epoch": ignore_epoch,
}


def __getattr__(name: str) -> Any:
    """Return the WSGI application of an API that publishes without confirms."""
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
