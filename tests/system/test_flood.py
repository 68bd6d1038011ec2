"""A flood from one address takes nothing from the others behind nginx."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connections

from project.tokens import issue_token
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.messages import PERSON
from tests.support.nginx import HOST, Nginx
from tests.support.processes import Processes, start_api

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

#: Requests per second: of the flood, and of somebody else.
FLOOD, OTHERS = 500, 20
SECONDS = 30


class Sender:
    """A process that sends requests at a rate from an address."""

    def __init__(self, address: str, port: int, rate: int, trusted: Path) -> None:
        bodies = {
            "token": str(issue_token("ana", ["editor"])),
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


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def test_a_flood_takes_nothing_from_others(
    broker: Broker, processes: Processes, tmp_path: Path
) -> None:
    api = start_api(
        processes,
        DEBUG="0",
        OPEN_ACCESS="0",
        BEHIND_PROXY="1",
        ALLOWED_HOSTS=f"{HOST},127.0.0.1",
    )
    with Nginx(tmp_path, int(api.url.rpartition(":")[2])) as nginx:
        # The same CPU load, without traffic of the API.
        flood = Sender("127.0.0.2", nginx.idle_port, FLOOD, nginx.trusted)
        others = Sender("127.0.0.3", nginx.port, OTHERS, nginx.trusted)
        usual, usual_statuses, _ = others.result()
        _, idle_statuses, idle_cpu = flood.result()
        flood = Sender("127.0.0.2", nginx.port, FLOOD, nginx.trusted)
        others = Sender("127.0.0.3", nginx.port, OTHERS, nginx.trusted)
        flooded, statuses, _ = others.result()
        _, flood_statuses, flood_cpu = flood.result()
    connections.close_all()  # idle for so long, they are closed at the other end

    sys.stdout.write(
        f"{OTHERS} requests/s beside a load without the API: p99 "
        f"{p99(usual) * 1000:.1f} ms {usual_statuses}; beside {FLOOD} requests/s to "
        f"the API: p99 {p99(flooded) * 1000:.1f} ms {statuses}. The flood: "
        f"{flood_statuses}, {flood_cpu:.1f} s of CPU; without the API: "
        f"{idle_statuses}, {idle_cpu:.1f} s.\n"
    )
    assert sum(flood_statuses.values()) >= 0.95 * FLOOD * SECONDS
    assert sum(idle_statuses.values()) >= 0.95 * FLOOD * SECONDS
    assert flood_statuses[429] > flood_statuses[202]
    assert usual_statuses == statuses == {202: OTHERS * SECONDS}
    assert p99(flooded) < 2 * p99(usual)
