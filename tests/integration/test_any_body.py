"""Any body is accepted or refused, and never leads to a server error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.processes import API, Processes, start_api
from tests.support.request_bodies import objects, values


@pytest.fixture(scope="module")
def brokerless_api(declared: object) -> Any:
    """An API that answers 503 to whatever it would have queued."""
    processes = Processes()
    yield start_api(
        processes,
        RABBITMQ_URL="amqp://guest:guest@127.0.0.1:1/",
        CONFIRM_TIMEOUT="0",
    )
    processes.kill_all()


@settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(
        [
            ("POST", "/users/"),
            ("PUT", "/users/1/"),
            ("DELETE", "/users/1/"),
            ("POST", "/reports/"),
            ("PATCH", "/reports/un-reporte/"),
        ]
    ),
    st.one_of(
        objects.map(lambda v: json.dumps(v).encode()),
        values.map(lambda v: json.dumps(v).encode()),
        st.binary(max_size=200),
    ),
)
def test_any_body_is_accepted_or_refused_and_never_a_server_error(
    brokerless_api: API, endpoint: tuple[str, str], body: bytes
) -> None:
    answer = brokerless_api(
        *endpoint, data=body, headers={"Content-Type": "application/json"}
    )

    # 503 is what acceptance comes to without a broker.
    assert answer.status_code in (400, 503)
    assert answer.headers["Content-Type"] == "application/json"
