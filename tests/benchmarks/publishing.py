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

OURS = "this project"
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


def one_row(effort: Effort) -> Row:
    """Compare libraries that publish one message after the other."""
    size = effort.messages // 4
    classic = "classic queue"
    return Row(
        "published one at a time, each confirmed by the broker",
        "messages/s",
        [
            Contestant("pika", classic, partial(publish, "pika", size)),
            Contestant("kombu", classic, partial(publish, "kombu", size)),
            Contestant("Celery", f"{classic}, tasks", partial(publish, "celery", size)),
            Contestant(OURS, "quorum queue", partial(publish, "messaging", size)),
        ],
        OURS,
        effort.rounds,
        f"{size:,} messages.",
    )


def many_row(effort: Effort) -> Row:
    """Compare threads that publish, and the limits of the broker."""
    size = effort.messages
    return Row(
        "published by 16 threads, each confirmed by the broker",
        "messages/s",
        [
            Contestant(
                "pika, 16 threads",
                "classic queue, a connection for each thread",
                partial(publish, "pika_in_threads", size),
            ),
            Contestant(
                f"{OURS}, 16 threads",
                "quorum queue, one connection",
                partial(publish, "messaging_in_threads", size),
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
        f"{OURS}, 16 threads",
        effort.rounds,
        f"{size:,} messages.",
    )
