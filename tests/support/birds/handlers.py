"""Listeners to exchanges of all types, which record messages in the outbox."""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import BaseModel

from messaging import Received, Reject, direct, fanout, headers, listens, send, topic
from tests.support.mistakes import raising

#: Names of birds that cannot be checked.
FAULTS = {"roc": KeyError, "simurgh": AttributeError, "ziz": SystemExit}


class Bird(BaseModel):
    bird_name: Annotated[str, raising(FAULTS)]


def note(queue: str, received: Received[Any], body: Any) -> None:
    """Record a message, in the transaction of its inbox row."""
    heard = {"queue": queue, "key": received.routing_key, "body": body}
    send(heard, routing_key="heard", type=queue, headers={"of": received.exchange})


@listens("birds_only", topic("nature", "*.bird"), body=Bird)
def birds(received: Received[Bird]) -> None:
    """Record a bird."""
    name = received.body.bird_name
    if name == "dodo":
        raise Reject("It is extinct.")
    if name == "phoenix" and not received.replays:
        raise ValueError("it burns")
    time.sleep(0.002)
    note("birds_only", received, name)


@listens("diary", fanout("gossip", durable=False), body=str)
def diary(received: Received[str]) -> None:
    """Record a text."""
    note("diary", received, received.body)


@listens("alarms", direct("severities", "error", "critical"))
def alarms(received: Received[bytes]) -> None:
    """Record bytes."""
    note("alarms", received, received.body.hex())


@listens(
    "papers",
    headers("documents", {"format": "pdf", "pages": 1}, match="any"),
    topic("borrowed", "paper.#", passive=True),
    body=dict,
    key=lambda received: received.body["author"],
    batch=True,
)
def papers(batch: list[Received[dict[str, Any]]]) -> list[str]:
    """Record documents."""
    for received in batch:
        note("papers", received, received.body)
    return [received.body["author"] for received in batch]
