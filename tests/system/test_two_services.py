"""The example of two services, run as its documentation says."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from messaging.lab.processes import free_port
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually

#: URLs of A and B.
Addresses = tuple[str, str]


@pytest.fixture
def process(
    servers: SimpleNamespace, addresses: Addresses, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The command that runs both services."""
    processes = Processes()
    port_a, port_b = (address.rpartition(":")[2] for address in addresses)
    yield processes.start(
        "-m", "examples.two_services", "--port-a", port_a, "--port-b", port_b,
        SERVICE_B_DATABASE_URL=f"sqlite:///{tmp_path}/b.sqlite3",
    )  # fmt: skip
    processes.kill_all()


@pytest.fixture
def addresses() -> Addresses:
    """URLs with two free ports."""
    return f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"


def get(url: str) -> requests.Response | None:
    """Get a URL, or None while the service is starting."""
    try:
        return requests.get(url, timeout=10)
    except requests.ConnectionError:
        return None


def test_b_stores_what_is_sent_to_a(
    process: subprocess.Popen[bytes], addresses: Addresses
) -> None:
    a, b = addresses

    def answer() -> requests.Response | None:
        asked = get(f"{a}/ask/")
        return asked if asked is not None and asked.ok else None

    asked = eventually(answer, "B replies to A", 30)
    assert asked.json() == {"count": 0, "last": []}

    sent = requests.post(f"{a}/send/", {"text": "hello world"}, timeout=10)
    assert sent.status_code == 202
    other = Broker()
    with other.channel() as channel:
        channel.queue_declare("mq_test_queue", durable=True)
    other.send("mq_test_queue", {"text": "from another program"})

    def stored() -> bool:
        notes = get(f"{b}/notes/")
        return notes is not None and len(notes.json()["notes"]) == 2

    eventually(stored, "B has stored both")
    assert requests.get(f"{a}/ask/?last=1", timeout=10).json() == {
        "count": 2,
        "last": ["from another program"],
    }
    assert requests.get(f"{a}/ask/?last=101", timeout=10).status_code == 400
    assert requests.post(f"{a}/send/", {"text": ""}, timeout=10).status_code == 400

    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0


def test_a_reports_at_once_that_b_is_not_running(
    servers: SimpleNamespace, addresses: Addresses
) -> None:
    processes = Processes()
    a = addresses[0]
    processes.start(
        "-m", "django", "runserver", "--noreload", a.rpartition(":")[2],
        DJANGO_SETTINGS_MODULE="examples.two_services.service_a.settings",
    )  # fmt: skip
    try:
        eventually(lambda: get(f"{a}/ask/") is not None, "A has started", 20)
        answer = requests.get(f"{a}/ask/", timeout=10)
    finally:
        processes.kill_all()

    assert answer.status_code == 503
    assert "rpc_test_queue" in answer.json()["detail"]
    assert answer.elapsed.total_seconds() < 1
