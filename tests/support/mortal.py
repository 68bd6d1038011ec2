"""
A supervisor and its consumer, whose handler kills the process.

Restarts the consumer whenever it dies by a signal, and prints one line each time.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import django


def register() -> None:
    """Replace the handler of `user.update` with one that kills its process."""
    from messaging import registry
    from users.commands import UserUpdate
    from users.handlers import update_users

    def deadly(messages: list[UserUpdate]) -> list[int]:
        for message in messages:
            if message.nombre == "poison":
                os.kill(os.getpid(), signal.SIGKILL)
        return update_users(messages)

    registry.handlers["users_queue"]["user.update"] = registry.Handler(
        UserUpdate, deadly, batch=True
    )


def main() -> None:
    """Restart the consumer until it exits by itself."""
    django.setup()
    from messaging.consumer.process import run_consumers

    while True:
        if not (child := os.fork()):
            register()
            os._exit(run_consumers(["users_queue"]))
        end = partial(os.kill, child)
        signal.signal(signal.SIGTERM, lambda number, _, end=end: end(number))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            sys.exit(code)
        print("died", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
