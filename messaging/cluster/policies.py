"""
Policies of RabbitMQ that limit queues which other programs declare as well.

A policy changes no argument, so that they can go on declaring them
(https://www.rabbitmq.com/docs/parameters#policies).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from messaging.conf import settings
from messaging.registry import handlers
from messaging.rpc.functions import served
from messaging.topology import REJECT


@dataclass(frozen=True, slots=True)
class Limit:
    """The policy that limits the length of one queue."""

    queue: str
    bytes: int

    @property
    def name(self) -> str:
        """The name of the policy."""
        return f"limit-{self.queue}"

    @property
    def pattern(self) -> str:
        """A pattern of the name of that queue alone."""
        return f"^{re.escape(self.queue)}$"

    @property
    def definition(self) -> dict[str, str | int]:
        """What it says about the queue."""
        return {"max-length-bytes": self.bytes, "overflow": REJECT}

    @property
    def command(self) -> str:
        """The command that sets it."""
        place = ("-p", settings.virtual_host, "--apply-to", "queues")
        what = (self.name, self.pattern, json.dumps(self.definition))
        return shlex.join(["rabbitmqctl", "set_policy", *place, *what])


def limits_of(queues: Iterable[str]) -> list[Limit]:
    """Return the limits that these queues should have; none where it is None."""
    found = {queue: settings.of(queue, "MAX_QUEUE_BYTES") for queue in sorted(queues)}
    return [Limit(queue, most) for queue, most in found.items() if most is not None]


def limits_by_policy() -> list[Limit]:
    """Return the limits of queues that are declared without."""
    functions = {one.queue for one in served.values() if not one.has_limit}
    return limits_of(functions.union(handlers))
