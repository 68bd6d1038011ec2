"""
A supervisor and its consumers: one handler kills the process, another one is slow.

Restarts the consumer whenever it dies by a signal, and prints one line each time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial

import django

#: Seconds until the deadly handler kills, and until the slow one has succeeded.
DEADLY, SLOW = 0.3, 1.0


def register() -> None:
    """Replace the handlers of `user.update`, which kills, and `report.create`."""
    from messaging import registry
    from reports.commands import ReportCreate
    from reports.handlers import create_reports
    from users.commands import UserUpdate
    from users.handlers import update_users

    def deadly(messages: list[UserUpdate]) -> list[int]:
        for message in messages:
            if message.nombre == "poison":
                time.sleep(DEADLY)
                os.kill(os.getpid(), signal.SIGKILL)
        return update_users(messages)

    registry.handlers["users_queue"]["user.update"] = registry.Handler(
        UserUpdate, deadly, batch=True
    )

    def slow(messages: list[ReportCreate]) -> list[str]:
        time.sleep(SLOW)
        return create_reports(messages)

    registry.handlers["reports_queue"]["report.create"] = registry.Handler(
        ReportCreate, slow, batch=True
    )


def main() -> None:
    """Restart the consumer until it exits by itself."""
    django.setup()
    from messaging.consumer.process import run_consumers

    while True:
        if not (child := os.fork()):
            register()
            os._exit(run_consumers(sys.argv[1:]))
        end = partial(os.kill, child)
        signal.signal(signal.SIGTERM, lambda number, _, end=end: end(number))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL:
            sys.exit(code)
        print("died", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
