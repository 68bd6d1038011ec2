"""A trace is passed on only if its headers are as the standard wants them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from messaging.envelope import Delivery, Envelope
from messaging.logs.context import Handling, current_cause, working_on
from messaging.traces.trace_context import trace_id_of, trace_of, trace_of_request
from tests.support import BASE

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{ID}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (VALID, VALID),
        (f"00-{ID}-{SPAN}-00", f"00-{ID}-{SPAN}-00"),
        # A later version may have more fields, and is passed on as the known one.
        (f"01-{ID}-{SPAN}-01", VALID),
        (f"cc-{ID}-{SPAN}-01-more", VALID),
        (f"cc-{ID}-{SPAN}-01.more", None),
        (f"{VALID}-more", None),
        (f"ff-{ID}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{ID}-{'0' * 16}-01", None),
        (VALID.upper(), None),
        (VALID[:-1], None),
        (f" {VALID}", None),
        (f"{VALID}\n", None),
        (f"00-{ID}-{SPAN}-0g", None),
        ("ana@example.com", None),
        ("", None),
        (None, None),
        (7, None),
        (VALID.encode(), None),
        ([VALID], None),
        ({"traceparent": VALID}, None),
    ],
)
def test_only_a_valid_traceparent_is_taken(given: Any, taken: str | None) -> None:
    assert trace_of({"traceparent": given}).get("traceparent") == taken
    assert trace_of_request({"HTTP_TRACEPARENT": given}).get("traceparent") == taken


@pytest.mark.parametrize(
    ("state", "is_taken"),
    [
        ("a=1,b=2", True),
        ("x" * 512, True),
        ("x" * 513, False),
        ("a=\n", False),
        ("ñ=1", False),
        ("", False),
        (b"a=1", False),
    ],
)
def test_a_tracestate_goes_along_if_it_is_short_text(
    state: Any, is_taken: bool
) -> None:
    trace = trace_of({"traceparent": VALID, "tracestate": state})

    assert trace == {"traceparent": VALID} | ({"tracestate": state} if is_taken else {})
    assert trace_id_of(trace) == ID
    assert trace_of({"tracestate": state}) == {}


def test_what_is_published_meanwhile_inherits_from_the_only_message() -> None:
    traced = Delivery(
        Envelope(b"", "q", message_id="m", headers={"traceparent": VALID}), "q", 1
    )
    own = Delivery(Envelope(b"", "q", correlation_id="c"), "q", 2)

    assert current_cause() == {}
    with working_on(Handling([traced])):
        assert current_cause() == {"correlation-id": "m", "traceparent": VALID}
        with working_on(Handling([own])):
            assert current_cause() == {"correlation-id": "c"}
    with working_on(Handling([traced, own])):
        assert current_cause() == {}
    assert current_cause() == {}


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from contextlib import nullcontext
import messaging
from messaging.traces import spans
assert not spans.is_on()
assert spans.current_trace() == {}
assert type(spans.sending([])) is type(spans.processing([])) is nullcontext
"""


@pytest.mark.parametrize("line", ["", 'sys.modules["opentelemetry"] = None'])
def test_without_opentelemetry_there_are_no_spans(line: str) -> None:
    """Neither where it is not installed, nor where it is not configured."""
    script = WITHOUT.replace('sys.modules["opentelemetry"] = None', line)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=BASE, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
