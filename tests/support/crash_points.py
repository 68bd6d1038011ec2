"""
Consumers that kill themselves at a point of their work.

Reads names of points from standard input. For each it forks a consumer of all queues
that dies there, and prints its exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django


def kill(*_: Any) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying(seam: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
    """Return a function that dies before or after it calls `seam`."""

    def wrapped(*args: Any, **options: Any) -> Any:
        if first:
            kill()
        result = seam(*args, **options)
        kill()
        return result

    return wrapped


def arm(point: str) -> None:
    """Make this process die at a point."""
    from messaging.amqp.subscription import Subscription
    from messaging.consumer import inbox, routing
    from messaging.consumer.consumer import Consumer
    from messaging.dead_letters import archive
    from messaging.registry import Projection, projections

    match point:
        case "before the forwarding":
            routing.forward = dying(routing.forward, first=True)
        case "after the forwarding":
            routing.forward = dying(routing.forward, first=False)
        case "before the commit":
            inbox.record = dying(inbox.record, first=False)
        case "before the projection":
            projections["reports_queue"] = Projection(kill)
            routing.reply = kill
        case "after the projection":
            routing.reply = kill
        case "before the dead letter":
            archive.record = dying(archive.record, first=True)
        case "before the acknowledgement":
            Subscription.acknowledge = dying(Subscription.acknowledge, first=True)  # type: ignore
        case "never":
            acknowledge = Subscription.acknowledge

            def acknowledge_and_stop(*args: Any) -> None:
                acknowledge(*args)
                os.kill(os.getpid(), signal.SIGTERM)

            Subscription.acknowledge = acknowledge_and_stop  # type: ignore
        case "the I/O thread ends":
            Subscription.opened = lambda *_: sys.exit()  # type: ignore
        case "a worker ends":
            Consumer.run = lambda *_: sys.exit()  # type: ignore
        case _:
            raise ValueError(point)


def main() -> None:
    """Run a consumer for each line of standard input."""
    django.setup()
    from messaging.consumer.process import run_consumers
    from messaging.registry import handlers

    for line in sys.stdin:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
        else:
            signal.alarm(30)  # rather than live for ever
            arm(line.strip())
            os._exit(run_consumers(list(handlers)))


if __name__ == "__main__":
    main()
