"""Whether the queues that other programs fill have limits: else they fill the disk."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from messaging.cluster.policies import limits_of
from messaging.conf import settings
from messaging.registry import handlers
from messaging.rpc.functions import served
from messaging.topology import REJECT

from .findings import Finding, ok, unknown, warning
from .register import BROKER, examines

#: Bytes of an answer that are read, and seconds to wait for it.
MOST, TIMEOUT = 1024**2, 2.0
SUBJECT = "limits of queues"


@examines(BROKER)
def limits_of_queues() -> Iterator[Finding]:
    """Ask the management plugin for the limit of each public queue and function."""
    wanted = limits_of({*handlers, *(one.queue for one in served.values())})
    if not settings.BROKER_MANAGEMENT:
        text = "whether the public queues have limits is not known"
        remedy = (
            "Set policies (docs/operations.md, A flood of messages), and "
            "MESSAGING['BROKER_MANAGEMENT'] to the address of the management plugin."
        )
        yield unknown(SUBJECT, text, remedy)
        return
    limited = 0
    for limit in wanted:
        found = description_of(limit.queue)
        if problem := found and problem_of(found):
            yield warning(limit.queue, problem, limit.command)
        elif found:
            limited += 1
    if limited:
        yield ok(SUBJECT, f"{limited} queues that other programs fill have one")


def problem_of(found: dict[str, Any]) -> str | None:
    """Return what is wrong with the limit of a queue as the plugin describes it."""
    # An empty policy may be a list.
    policy = dict(found.get("effective_policy_definition") or {})
    values = {f"x-{name}": value for name, value in policy.items()}
    values |= found["arguments"]
    if not values.keys() & {"x-max-length", "x-max-length-bytes"}:
        return "nothing limits its length: whoever may send to it can fill the disk"
    if not str(values.get("x-overflow")).startswith(REJECT):
        return "when it is full, it drops the messages that have waited longest"
    return None


def description_of(queue: str) -> dict[str, Any] | None:
    """Return what the plugin says about a queue; None if there is no such queue."""
    url = urlsplit(settings.BROKER_MANAGEMENT)
    place = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"
    names = [quote(one, safe="") for one in (settings.virtual_host, queue)]
    request = Request(f"{place}/api/queues/{'/'.join(names)}")  # noqa: S310 (rules.py)
    user = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    encoded = b64encode(user.encode()).decode()
    request.add_header("Authorization", f"Basic {encoded}")
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 as above
            found: dict[str, Any] = json.loads(answer.read(MOST))
            return found
    except HTTPError as error:
        if error.code == 404:
            return None
        raise
