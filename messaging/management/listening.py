"""How the commands that listen end."""

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
Exit codes: 0 at the end, also by SIGTERM or Ctrl-C; 1 when the broker, the queue or the
exchange does not exist or is lost; 2 when called wrongly; {TOO_FEW} when --timeout came
before --count was reached.
"""


@contextmanager
def listening_client(
    name: str, count: int | None = None, timeout: float | None = None
) -> Iterator[Client]:
    """
    Connect, and end the command with one of the exit codes above.

    Raises `CommandError` for each of them but 0.
    """
    try:
        with (
            connect(name, count=count, timeout=timeout) as client,
            on_stop(client.stop),
        ):
            yield client
    except MessagingError as error:
        # Exchanges whose names begin with "amq." cannot be declared.
        can_be_made = "no exchange" in str(error) and "'amq." not in str(error)
        hint = ": --declare TYPE makes it." if can_be_made else ""
        raise CommandError(f"{error}{hint}") from error
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader, like `head`, has seen enough.
            return
        raise CommandError(f"Nothing more can be written: {error}") from error
    if client.fell_short and not client.is_stopped:
        raise CommandError(
            f"Only {client.received} of {count} messages came in {timeout:g} s.",
            returncode=TOO_FEW,
        )
