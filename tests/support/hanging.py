"""
A consumer whose handler of `user.update` does not return, as the names of users say.

    python -m tests.support.hanging "one by one"    # or "in batches"

Calls count as long after a second, and a process as frozen after two.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import django

HOUR = 3600


def loop() -> None:
    """Work for ever."""
    while True:
        pass


def backtrack() -> None:
    """Let a regular expression try all ways there are, and no other thread run."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def receive() -> None:
    """Wait for an answer that never comes."""
    ours, _theirs = socket.socketpair()
    ours.recv(1)


def swallow() -> None:
    """Wait until any exception ends it, and return as if it had succeeded."""
    with suppress(BaseException):
        while True:
            time.sleep(0.01)


def query() -> None:
    """Wait for the database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(%s)", [HOUR])


def hook() -> None:
    """Register a hook that waits, and one that writes to a file."""
    from django.db import transaction

    def write() -> None:
        with Path(os.environ["HOOK"]).open("a") as file:
            file.write("once\n")

    transaction.on_commit(lambda: time.sleep(HOUR))
    transaction.on_commit(write)


#: How a handler hangs, by the name of a user.
WAYS: dict[str, Callable[[], Any]] = {
    "sleeps": lambda: time.sleep(HOUR),
    "loops": loop,
    "swallows": swallow,
    "waits for a lock": lambda: threading.Event().wait(),
    "waits for a server": receive,
    "queries": query,
    "backtracks": backtrack,
    "registers a hook": hook,
    "takes two seconds": lambda: time.sleep(2),
}


def register(*, is_batch: bool) -> None:
    """Replace the handler of `user.update`, and project users."""
    from messaging import projects, registry
    from users.commands import UserUpdate
    from users.handlers import update_users

    def handle(messages: list[UserUpdate]) -> list[int]:
        ids = update_users(messages)
        for message in messages:
            WAYS.get(message.nombre or "", int)()
        return ids

    def handle_one(message: UserUpdate) -> int:
        return handle([message])[0]

    def project(applied: list[Any]) -> None:
        for message, _ in applied:
            if message.nombre == "is projected":
                time.sleep(HOUR)

    registry.handlers["users_queue"]["user.update"] = registry.Handler(
        UserUpdate, handle if is_batch else handle_one, batch=is_batch
    )
    projects("users_queue")(project)


def main() -> None:
    """Consume users until stopped."""
    django.setup()
    register(is_batch=sys.argv[1] == "in batches")
    from messaging import worker
    from messaging.cluster import time_limit
    from messaging.consumer.process import run_consumers

    time_limit.LONG = 1.0
    worker.FROZEN = 2.0
    sys.exit(run_consumers(["users_queue"]))


if __name__ == "__main__":
    main()
