"""What the commands that listen have in common: how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError

from messaging.amqp.client import Client, connect
from messaging.exceptions import MessagingError
from messaging.worker import on_stop

#: Exit code when time was up before `--count` messages had come; that of `timeout`.
TOO_FEW = 124
#: For the `--help` of the commands.
EXIT_CODES = f"""\
Exit codes: 0 at the end, also by SIGTERM or Ctrl-C; 1 when the broker or what is named
is not there, or is lost; 2 when called wrongly; {TOO_FEW} when --timeout came before
--count was reached.
"""


@contextmanager
def listening_client(
    name: str, count: int | None = None, timeout: float | None = None
) -> Iterator[Client]:
    """Connect; an end or an error becomes one of the exit codes above."""
    try:
        with (
            connect(name, count=count, timeout=timeout) as client,
            on_stop(client.stop),
        ):
            yield client
    except MessagingError as error:
        # Nobody but the broker makes those whose names begin with "amq.".
        can_be_made = "no exchange" in str(error) and "'amq." not in str(error)
        hint = ": --declare TYPE makes it." if can_be_made else ""
        raise CommandError(f"{error}{hint}") from error
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # Whoever read this has seen enough, as `head` does.
            return
        raise CommandError(f"Nothing more can be written: {error}") from error
    if client.fell_short and not client.is_stopped:
        raise CommandError(
            f"Only {client.received} of {count} messages came in {timeout:g} s.",
            returncode=TOO_FEW,
        )
