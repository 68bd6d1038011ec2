"""Work queues: tasks are distributed among workers, each to one of them."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client
from messaging.management.options import prefetch

from .script import (
    MESSAGE,
    WAITING,
    Say,
    chosen_queue,
    option,
    queue_options,
    script,
    text,
)


@script(
    MESSAGE,
    option("--transient", action="store_true", help="lost if the broker restarts"),
    *queue_options("task_queue"),
)
def new_task(client: Client, say: Say, options: Namespace) -> None:
    """Send a task, which takes a second for each dot in it."""
    queue = chosen_queue(options)
    client.declare(queue)
    task = text(options.message, "Hello World!")
    messaging.send(task, routing_key=queue.name, persistent=not options.transient)
    say(f" [x] Sent '{task}'")


@script(
    option(
        "--prefetch",
        type=prefetch,
        default=1,
        metavar="N",
        help="unacknowledged tasks at a time: 1 (default) is fair dispatch, 0 (no "
        "limit) is round-robin",
    ),
    option(
        "--ack",
        choices=["done", "sent", "never"],
        default="done",
        help="when a task is acknowledged: done (default), sent (automatically, when "
        "the broker has sent it) or never, as if it were forgotten",
    ),
    *queue_options("task_queue"),
    receives=True,
)
def worker(client: Client, say: Say, options: Namespace) -> None:
    """Run the tasks of a queue."""
    queue = chosen_queue(options)
    client.declare(queue)
    say(WAITING)
    for task in client.listen(
        queue.name, prefetch=options.prefetch, auto_ack=options.ack == "sent"
    ):
        say(f" [x] Received '{task.text}'")
        client.sleep(task.text.count("."))
        say(" [x] Done")
        if options.ack == "done":
            task.ack()
