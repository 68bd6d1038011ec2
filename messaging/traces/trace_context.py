"""
The headers `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/).

They have the same names in HTTP and in AMQP. Any program may set them, so that each
value is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
#: Version, trace id, id of the parent span, flags. Later versions may append fields.
FORMAT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
#: Length of a `traceparent` of version 00, the one that is passed on.
LENGTH = 55
#: Maximum length of a `tracestate`, of which the standard wants 512 passed on.
STATE_LENGTH = 512
STATE = re.compile(r"[ -~]+")

#: The headers of a trace; {} for none.
Trace = dict[str, str]


def trace_of(headers: Mapping[str, Any]) -> Trace:
    """Return the headers of a trace that are among `headers`; {} if it is invalid."""
    given = headers.get(TRACEPARENT)
    if not isinstance(given, str) or not (found := FORMAT.match(given)):
        return {}
    rest = given[LENGTH:]
    if rest and (given.startswith("00") or not rest.startswith("-")):
        return {}
    trace = {TRACEPARENT: "00-" + "-".join(found.groups())}
    state = headers.get(TRACESTATE)
    if isinstance(state, str) and len(state) <= STATE_LENGTH and STATE.fullmatch(state):
        trace[TRACESTATE] = state
    return trace


def trace_id_of(trace: Trace) -> str | None:
    """Return the id of a trace from its headers, as `trace_of` returns them."""
    return trace[TRACEPARENT][3:35] if TRACEPARENT in trace else None


def trace_of_request(meta: Mapping[str, Any]) -> Trace:
    """Return the headers of the trace of an HTTP request, from its `META`."""
    if "HTTP_TRACEPARENT" not in meta:
        return {}  # nearly always
    names = {TRACEPARENT: "HTTP_TRACEPARENT", TRACESTATE: "HTTP_TRACESTATE"}
    return trace_of({name: meta.get(key) for name, key in names.items()})
