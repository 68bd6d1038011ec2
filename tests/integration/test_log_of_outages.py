"""Servers that are away leave one line a minute, however often they are tried."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from messaging.models import Inbox
from tests.support import private_servers
from tests.support.broker import virtual_host
from tests.support.log_lines import BODY, SITE, Log, is_clean, token
from tests.support.processes import Processes, database_url, start_api
from tests.support.proxy import Proxy
from tests.support.waiting import eventually, stored


@pytest.fixture
def proxies(servers: SimpleNamespace) -> Iterator[tuple[Proxy, Proxy]]:
    """The ways to the broker and to MariaDB, which can be cut."""
    with Proxy(servers.rabbitmq.port) as one, Proxy(servers.mariadb.port) as other:
        yield one, other


def ports(server: Any, proxy: Proxy) -> tuple[str, str]:
    """Return the port of a server and that of its proxy, as in a URL."""
    return f":{server.port}/", f":{proxy.port}/"


def test_servers_that_are_away_leave_one_line_a_minute(
    no_consumers: None, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    rabbitmq, mariadb = proxies
    log = Log(tmp_path / "log")
    processes = Processes(log.path)
    url = virtual_host("away")
    processes.environment |= SITE | {"RABBITMQ_URL": url}
    processes.output("topology", "apply")
    processes.environment |= {
        "RABBITMQ_URL": url.replace(*ports(private_servers.rabbitmq, rabbitmq)),
        "DATABASE_URL": database_url().replace(
            *ports(private_servers.mariadb, mariadb)
        ),
    }
    try:
        processes.manage("run_consumer", "users")
        processes.manage("relay_outbox")
        api = start_api(processes, CONFIRM_TIMEOUT="0.3")
        created = api.post("/users/", BODY, headers=token())
        assert created.status_code == 202
        eventually(stored(Inbox.objects.exists), "it is applied", 60)

        # Six outages of half a second.
        for _ in range(6):
            for proxy in proxies:
                proxy.refuses = True
                proxy.cut()
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                answer = api.post("/users/", BODY, headers=token())
                assert answer.status_code in (202, 503)
                api.get("/users/", headers=token())
            for proxy in proxies:
                proxy.refuses = False
        eventually(
            lambda: api.post("/users/", BODY, headers=token()).status_code == 202,
            "the API is back",
            20,
        )
        eventually(
            stored(lambda: Inbox.objects.filter(status="failed").exists()),
            "the consumer is back",
            30,
        )
        eventually(lambda: ".outcomes " in str(log.kinds()), "its outcome is logged")
    finally:
        processes.kill_all()

    counts = log.kinds()
    # A line a message that fails, and a line a batch.
    outcomes = {
        kind for kind in counts if ".outcomes " in kind or " are settled" in kind
    }
    repeated = {kind: n for kind, n in counts.items() if n > 2 and kind not in outcomes}
    assert repeated == {}
    text = "\n".join(counts)
    assert "has no connection to 0.0.0.0:0" in text
    assert "A write was not queued" in text
    assert is_clean(log)
