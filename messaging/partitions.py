"""
Partitions of a queue: which there are, and which of them a key belongs to.

A queue with N partitions is N queues of the broker, `orders_queue`, `orders_queue.1`,
... `orders_queue.N-1`. Messages of one key are always in the same one.
"""

from __future__ import annotations

import zlib

from django.core.exceptions import ImproperlyConfigured

from .conf import settings

#: What the name of a queue of dead letters ends with; it is never divided.
DEAD = ".dead"

#: More would only cost: each has a thread and a channel in every consumer.
MOST = 256


def is_dead_queue(name: str) -> bool:
    """Whether a queue holds dead letters."""
    return name.endswith(DEAD)


def count(queue: str) -> int:
    """Give how many partitions the settings want for a queue."""
    if is_dead_queue(queue):
        return 1
    wanted: int = settings.of(queue, "PARTITIONS")
    if not 1 <= wanted <= MOST:
        raise ImproperlyConfigured(
            f"PARTITIONS of {queue} is {wanted}; it must be 1 to {MOST}."
        )
    return wanted


def name(queue: str, number: int) -> str:
    """Give the name under which the broker knows a partition."""
    return f"{queue}.{number}" if number else queue


def names(queue: str) -> list[str]:
    """Give the names of all partitions of a queue."""
    return [name(queue, number) for number in range(count(queue))]


def home(queue: str, key: str) -> str:
    """Give the name of the partition to which a key belongs, the same for ever."""
    return name(queue, zlib.crc32(key.encode(errors="surrogatepass")) % count(queue))
