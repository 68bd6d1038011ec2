"""Publishing from code, and the limits of the broker."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

from messaging.topology import consumed_names

from .broker import CLASSIC, PARTITION, count, declare_empty, publish_all, purge
from .comparison import Contestant, Effort, Row, Sample
from .messages import create_only, to_queue
from .processes import Failed
from .servers import BASE, QUEUE, ordinary, rabbitmq
from .ways import PROGRAMS

OURS = "this project, 16 threads"
#: Other queues than those of this project.
PUBLISHED = "published_users"


def run(module: str, *arguments: str) -> float:
    """Run a program that prints how many seconds its work took."""
    output = subprocess.run(
        [sys.executable, "-m", f"{PROGRAMS}.{module}", *arguments],
        cwd=BASE,
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return float(output)


def publish(name: str, messages: int) -> Sample:
    """Publish with a library, and return messages a second."""
    own = consumed_names(QUEUE)
    is_own = name.startswith("messaging")
    ordinary.prepare()
    purge(rabbitmq.url, *own)
    declare_empty(PUBLISHED, CLASSIC)
    seconds = run("publishers", name, PUBLISHED, str(messages))
    if (found := count(own[-1] if is_own else PUBLISHED)) < messages:
        raise Failed(f"{found} of {messages} messages arrived")
    return Sample(messages / seconds)


def publish_pipelined(messages: int) -> Sample:
    """Publish without waiting for each confirm."""
    declare_empty(PUBLISHED, PARTITION)
    posts = list(map(to_queue(PUBLISHED), create_only(messages).envelopes))
    return Sample(messages / publish_all(rabbitmq.url, posts))


def consume(messages: int) -> Sample:
    """Consume and do nothing."""
    publish_pipelined(messages)
    return Sample(messages / run("raw_consume", PUBLISHED, str(messages)))


def publish_row(effort: Effort) -> Row:
    """Compare ways to publish with confirms."""
    size = effort.messages
    quarter = size // 4
    alone = "classic queue, one at a time"
    return Row(
        "published from Python, each confirmed by the broker",
        "messages/s",
        [
            Contestant("pika", alone, partial(publish, "pika", quarter)),
            Contestant("kombu", alone, partial(publish, "kombu", quarter)),
            Contestant(
                "Celery", f"{alone}, tasks", partial(publish, "celery", quarter)
            ),
            Contestant(
                "this project",
                "quorum queue, one at a time",
                partial(publish, "messaging_one_by_one", quarter),
            ),
            Contestant(
                OURS,
                "quorum queue, one connection",
                partial(publish, "messaging", size),
            ),
            Contestant(
                "pika, pipelined",
                "quorum queue; up to 2,000 unconfirmed; encoded before",
                partial(publish_pipelined, size),
            ),
            Contestant(
                "pika, consuming",
                "quorum queue; the limit of the other direction",
                partial(consume, size),
            ),
        ],
        OURS,
        effort.rounds,
        f"{size:,} messages, a quarter of them one at a time.",
    )
