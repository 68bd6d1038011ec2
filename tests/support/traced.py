"""
A program with spans: accepts a write, applies it, and prints what was recorded.

    python -m tests.support.traced
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import django
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}


def as_json(span: ReadableSpan) -> dict[str, Any]:
    """Return what a test asks about a span."""
    context = span.get_span_context()
    assert context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{context.trace_id:032x}",
        "id": f"{context.span_id:016x}",
        "parent": span.parent and f"{span.parent.span_id:016x}",
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
        "failed": not span.status.is_ok and span.status.is_unset is False,
        "attributes": dict(span.attributes or {}),
    }


async def accept() -> None:
    """Accept a write of a trace, in front of Django."""
    from django.core.handlers.wsgi import WSGIHandler

    from messaging.rest_framework.front import Front
    from tests.support.asgi import ask

    front = Front(WSGIHandler())
    try:
        answer = await ask(front, "POST /users/", USER, traceparent=PARENT)
        assert answer.status == 202
    finally:
        await front.end()


def main() -> None:
    """Do it, and print the spans and the headers of the messages as JSON."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    django.setup()

    from messaging import publish
    from messaging.amqp.client import connect
    from messaging.amqp.deliveries import envelope_of
    from messaging.envelope import Delivery
    from messaging.models import Outbox
    from tests.support.messages import process
    from users.commands import UserCreate

    asyncio.run(accept())
    publish(UserCreate(**USER | {"email": "eva@example.com"}))
    deliveries = []
    with connect("traced") as client, client.channel() as channel:
        for parts in channel.consume("users_queue.0", auto_ack=True):
            deliveries.append(Delivery(envelope_of(*parts), "users_queue", 1))
            if len(deliveries) == 2:
                break
    process("users_queue", deliveries[:1])
    process("users_queue", deliveries)  # the first is known
    json.dump(
        {
            "spans": [as_json(one) for one in exporter.get_finished_spans()],
            "sent": [one.envelope.headers["traceparent"] for one in deliveries],
            "events": [row.headers["traceparent"] for row in Outbox.objects.all()],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
