"""
Lets atheris look for a body that a decoder can neither take nor refuse.

`python -m tests.support.guided_fuzzing`, with options of libFuzzer.
"""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["messaging", "users", "reports"]):
    import django

    django.setup()
    from tests.support.fuzzing import (
        QUEUES,
        called,
        decoded,
        delivered,
        reacting,
        read_everything,
    )

ENCODINGS = (None, "gzip", "deflate", "br")


def fuzz(data: bytes) -> None:
    """Decode a body, whose first byte chooses queue and encoding."""
    first, body = data[:1], data[1:]
    number = int.from_bytes(first)
    queue = QUEUES[number % len(QUEUES)]
    envelope = delivered(
        body,
        exchange="",
        routing_key=queue,
        content_encoding=ENCODINGS[number // len(QUEUES) % len(ENCODINGS)],
    )
    decoded(queue, envelope)
    called(envelope)
    read_everything(queue, envelope)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    atheris.Setup(sys.argv, fuzz)
    with reacting():
        atheris.Fuzz()
