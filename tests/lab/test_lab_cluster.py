"""What the crash lab needs to take broker nodes and API processes away."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException

import pytest

from messaging.lab.balancer import Balancer
from messaging.lab.evidence import connections_lost
from messaging.lab.faults import Fault
from messaging.lab.processes import free_port
from messaging.lab.report import pause
from tests.support.waiting import eventually


class Process(http.server.ThreadingHTTPServer):
    """Serves HTTP; may be not ready."""

    is_ready = True

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers with the port, and 503 if it is not ready."""

        server: Process

        def do_GET(self) -> None:
            """Answer."""
            is_ready = self.server.is_ready or self.path != "/health/ready"
            self.send_response(200 if is_ready else 503)
            self.end_headers()
            self.wfile.write(str(self.server.server_port).encode())

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.shutdown()
        self.server_close()


@contextmanager
def balanced(*processes: Process) -> Iterator[Balancer]:
    """Start a balancer before processes."""
    one = Balancer(free_port(), [process.server_port for process in processes])
    one.start()
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
def two() -> Iterator[tuple[Process, Process]]:
    """Two processes."""
    processes = (Process(), Process())
    yield processes
    for one in processes:
        one.stop()


def asked(balancer: Balancer, times: int = 20) -> set[int]:
    """Return the ports of the processes that answer; raises `HTTPException` if none."""
    found = set()
    for _ in range(times):
        connection = HTTPConnection("127.0.0.1", int(str(balancer.address)), timeout=5)
        connection.request("GET", "/")
        found.add(int(connection.getresponse().read()))
        connection.close()
    return found


def test_the_balancer_avoids_a_process_that_is_not_ready(
    two: tuple[Process, Process],
) -> None:
    first, second = two
    with balanced(first, second) as balancer:
        eventually(lambda: len(balancer.ready) == 2, "both are ready")
        assert asked(balancer) == {first.server_port, second.server_port}

        first.is_ready = False
        eventually(lambda: balancer.ready == {second.server_port}, "one is not")
        assert asked(balancer) == {second.server_port}

        second.is_ready = False
        eventually(lambda: not balancer.ready, "none is ready")
        assert asked(balancer) == {first.server_port, second.server_port}


def test_the_balancer_passes_over_a_process_that_has_ended(
    two: tuple[Process, Process],
) -> None:
    first, second = two
    with balanced(first, second) as balancer:
        eventually(lambda: len(balancer.ready) == 2, "both are ready")
        first.stop()
        assert asked(balancer) == {second.server_port}

        second.stop()
        with pytest.raises((OSError, HTTPException)):
            asked(balancer, 1)


def line(seconds_ago: float, level: str = "warning") -> str:
    """Return what RabbitMQ logs of a lost connection."""
    at = datetime.fromtimestamp(time.time() - seconds_ago, UTC).isoformat(" ")
    return f"{at} [{level}] <0.1.0> closing AMQP connection <0.1.0> (127.0.0.1:1 -> ..."


def test_a_lost_connection_is_blamed_on_a_fault_or_found() -> None:
    now = time.monotonic()
    fault = Fault("stop node 1", now - 100, ended_at=now - 80)
    innocent = [line(130), line(50, "error")]

    lines = [innocent[0], line(90), innocent[1], line(20, "info"), "no such line"]
    assert connections_lost(lines, [fault]) == innocent


def test_a_pause_is_that_of_the_fault_during_which_it_began() -> None:
    accepted = [0.0, 1.0, 6.0, 7.0, 10.0]

    assert pause(accepted) == 5.0
    assert pause(accepted, Fault("stop node 1", 2.0, ended_at=3.0)) == 5.0
    assert pause(accepted, Fault("stop node 1", 6.5, ended_at=8.0)) == 3.0
    assert pause([], Fault("stop node 1", 6.5)) == 0.0
