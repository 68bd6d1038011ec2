"""Floods, slow clients and idle connections take nothing from others behind nginx."""

from __future__ import annotations

import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from django.db import connections

from tests.support import BASE
from tests.support.access import token
from tests.support.broker import Broker
from tests.support.messages import PERSON
from tests.support.nginx import BEHIND, HOST, Nginx
from tests.support.processes import Processes, start_api

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

#: Requests per second: of the flood, and of somebody else.
FLOOD, OTHERS = 500, 20
SECONDS = 30
#: Connections without a request, and bodies that come byte by byte.
IDLE, SLOW = 1000, 40
#: The bodies come from two addresses, as nginx takes 20 requests of each at a time.
SLOW_ADDRESSES = ("127.0.0.4", "127.0.0.5")


class Sender:
    """A process that sends requests at a rate from an address."""

    def __init__(self, address: str, port: int, rate: int, trusted: Path) -> None:
        bodies = {
            "token": token("editor"),
            "body": json.dumps(PERSON),
        }
        options = {"source": address, "port": port, "rate": rate, "seconds": SECONDS}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.sending"],
            cwd=BASE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # What is measured is the server, beside what it costs to flood it.
            preexec_fn=lambda: os.nice(10 if rate == FLOOD else 0),
        )
        assert self._process.stdin
        with self._process.stdin as file:
            json.dump(options | bodies | {"host": HOST, "ca": str(trusted)}, file)

    def result(self) -> tuple[list[float], dict[int, int], float]:
        """Return all seconds to an answer, the number of each status, and the CPU."""
        with self._process as process:
            assert process.stdout
            found = json.load(process.stdout)
        statuses = {int(status): number for status, number in found["statuses"].items()}
        return found["seconds"], statuses, found["cpu"]


class SlowClients:
    """Connections that do nothing, and requests whose body takes 1,000 seconds."""

    HEAD = (
        f"POST /users/ HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\n"
    ).encode()

    def __init__(self, nginx: Nginx) -> None:
        self._nginx = nginx
        self._stack = ExitStack()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._idle = deque(self._open() for _ in range(IDLE))
        self._slow = [
            self._stack.enter_context(
                self._nginx.connect(SLOW_ADDRESSES[number % len(SLOW_ADDRESSES)])
            )
            for number in range(SLOW)
        ]
        for one in self._slow:
            one.sendall(self.HEAD)
        self._thread.start()
        return self

    def _open(self) -> socket.socket:
        """Return a connection without a request."""
        address = ("127.0.0.1", self._nginx.port)
        return socket.create_connection(address, source_address=("127.0.0.2", 0))

    def _send(self) -> None:
        while not self._stopping.wait(1):
            for one in self._slow:
                one.sendall(b"x")
            # nginx closes them after 10 seconds.
            for _ in range(IDLE // 8):
                self._idle.popleft().close()
                self._idle.append(self._open())

    def _stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def held(self) -> int:
        """Return how many of the slow requests wait, neither refused nor answered."""
        self._stop()
        waiting = 0
        for one in self._slow:
            one.setblocking(False)
            try:
                one.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):
                waiting += 1
        return waiting

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._stack.close()
        for one in self._idle:
            one.close()


def is_healthy(nginx: Nginx) -> bool:
    """Ask whether the API lives, from an address of its own."""
    return nginx.ask("GET /health/live", source="127.0.0.7").status == 200


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def test_a_flood_and_slow_clients_take_nothing_from_others(
    broker: Broker, processes: Processes, tmp_path: Path
) -> None:
    api = start_api(processes, **BEHIND)
    with Nginx(tmp_path, api.port) as nginx:
        # The same CPU load, without traffic of the API.
        flood = Sender("127.0.0.2", nginx.idle_port, FLOOD, nginx.trusted)
        others = Sender("127.0.0.3", nginx.port, OTHERS, nginx.trusted)
        usual, usual_statuses, _ = others.result()
        _, idle_statuses, idle_cpu = flood.result()
        with SlowClients(nginx) as slow:
            flood = Sender("127.0.0.2", nginx.port, FLOOD, nginx.trusted)
            others = Sender("127.0.0.3", nginx.port, OTHERS, nginx.trusted)
            until = time.monotonic() + SECONDS - 5
            asked = 0
            while time.monotonic() < until:
                assert is_healthy(nginx)
                asked += 1
                time.sleep(1)
            held = slow.held()
            flooded, statuses, _ = others.result()
            _, flood_statuses, flood_cpu = flood.result()
    connections.close_all()  # idle for so long, they are closed at the other end

    ratio = p99(flooded) / p99(usual)
    sys.stdout.write(
        f"{OTHERS} requests/s beside a load without the API: p99 "
        f"{p99(usual) * 1000:.1f} ms {usual_statuses}; beside {FLOOD} requests/s to "
        f"the API, {IDLE} idle connections and {held} slow bodies: p99 "
        f"{p99(flooded) * 1000:.1f} ms {statuses}: {ratio:.2f} times. The flood: "
        f"{flood_statuses}, {flood_cpu:.1f} s of CPU; without the API: "
        f"{idle_statuses}, {idle_cpu:.1f} s. Health was asked for {asked} times.\n"
    )
    assert held == SLOW
    assert sum(flood_statuses.values()) >= 0.95 * FLOOD * SECONDS
    assert sum(idle_statuses.values()) >= 0.95 * FLOOD * SECONDS
    assert flood_statuses[429] > flood_statuses[202]
    assert usual_statuses == statuses == {202: OTHERS * SECONDS}
    assert ratio < 2
