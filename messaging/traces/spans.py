"""
Spans of OpenTelemetry, if its API is installed and a project has configured it.

Without it, or before a tracer provider is set, every function here does nothing: the
headers of a trace go on unchanged. Install `opentelemetry-sdk` and an exporter, and
start the processes with `opentelemetry-instrument`, or set the provider yourself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from messaging.envelope import Delivery, Envelope

from .trace_context import Trace, trace_of

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )
except ImportError:
    trace = None  # type: ignore[assignment]


def is_on() -> bool:
    """Return whether spans are recorded: OpenTelemetry has a tracer provider."""
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


def sending(
    envelopes: Sequence[Envelope],
) -> AbstractContextManager[Sequence[Envelope]]:
    """
    Record that envelopes are sent in a `with` block; return them with its trace.

    Its parent is the current span or, without any, the trace of the first one.
    """
    return _sending(envelopes) if envelopes and is_on() else nullcontext(envelopes)


@contextmanager
def _sending(envelopes: Sequence[Envelope]) -> Iterator[Sequence[Envelope]]:
    first = envelopes[0]
    parents = [] if current_trace() else [trace_of(first.headers)]
    where = first.exchange or first.routing_key
    with _span("send", "PRODUCER", where, parents, {"message.id": first.message_id}):
        own = current_trace()
        yield [one.copy(headers=one.headers | own) for one in envelopes]


def processing(
    deliveries: Sequence[Delivery], kind: str = "CONSUMER"
) -> AbstractContextManager[None]:
    """
    Record that messages are processed in a `with` block.

    The span belongs to the trace of the message; those of several messages are links,
    because a span has one parent.
    """
    if not is_on():
        return nullcontext()
    first = deliveries[0]
    attributes: dict[str, Any] = {
        "message.id": first.message_id,
        "message.conversation_id": first.envelope.correlation_id,
    }
    if len(deliveries) > 1:
        attributes = {"batch.message_count": len(deliveries)}
    parents = [trace_of(one.envelope.headers) for one in deliveries]
    return _span("process", kind, first.queue, parents, attributes)


@contextmanager
def _span(
    operation: str,
    kind: str,
    where: str,
    parents: Sequence[Trace],
    attributes: dict[str, Any],
) -> Iterator[None]:
    """Record a span, named as the semantic conventions for messaging want it."""
    propagator = TraceContextTextMapPropagator()
    contexts = [propagator.extract(one) for one in parents if one]
    links = []
    if len(parents) > 1:
        spans = [trace.get_current_span(one).get_span_context() for one in contexts]
        links = [trace.Link(one) for one in spans]
    attributes |= {
        "system": "rabbitmq",
        "operation.type": operation,
        "destination.name": where,
    }
    with trace.get_tracer("messaging").start_as_current_span(
        f"{operation} {where}",
        context=contexts[0] if contexts and not links else None,
        kind=trace.SpanKind[kind],
        links=links,
        attributes={f"messaging.{k}": v for k, v in attributes.items() if v},
    ):
        yield


def current_trace() -> Trace:
    """Return the headers of the current span; {} if there is none."""
    carrier: Trace = {}
    if is_on():
        TraceContextTextMapPropagator().inject(carrier)
    return carrier
