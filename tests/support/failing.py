"""
A consumer whose handler of `user.update` fails as the messages say.

A name "fail 2 Ann" fails twice in this process before it succeeds, and "fail 9999"
always fails. A name "stuck" fails while the file named by BROKEN exists.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import django

tries: Counter[str] = Counter()


class Unforeseen(Exception):
    """An error that no policy names."""


def register() -> None:
    """Replace the real handler with the failing one."""
    from messaging import registry
    from users.commands import UserUpdate
    from users.handlers import update_users

    def failing(messages: list[UserUpdate]) -> list[int]:
        stuck = any(message.nombre == "stuck" for message in messages)
        if stuck and Path(os.environ["BROKEN"]).exists():
            raise Unforeseen
        for message in messages:
            words = (message.nombre or "").split()
            if words[:1] == ["fail"]:
                wish = message.encode().decode()
                if tries[wish] < int(words[1]):
                    # Together with others it is not known yet for the culprit.
                    tries[wish] += len(messages) == 1
                    raise Unforeseen(wish)
        return update_users(messages)

    registry.handlers["users_queue"]["user.update"] = registry.Handler(
        UserUpdate, failing, batch=True
    )


def main() -> None:
    """Consume users until stopped."""
    django.setup()
    register()
    from messaging.consumer.process import run_consumers

    sys.exit(run_consumers(["users_queue"]))


if __name__ == "__main__":
    main()
