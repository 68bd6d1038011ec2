"""Servers are reached by TLS, and only those that prove who they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import BASE
from tests.support.secured import Secured

pytestmark = pytest.mark.slow

NAMES = ["mongodb", "mysql", "rabbitmq"]
#: Connects to each server, as API and consumers do, and prints why it could not.
CONNECT = """
import django, json
django.setup()
from django.conf import settings
from django.db import connections
from messaging.amqp.client import connect

def rabbitmq():
    with connect("tls") as connection:
        assert connection.is_open

def mysql():
    with connections["default"].cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        assert cursor.fetchone()[1], "plaintext"

def mongodb():
    connections["reports"].ensure_connection()
    connections["reports"].connection.admin.command("ping")

found = {}
for attempt in (rabbitmq, mysql, mongodb):
    try:
        attempt()
    except Exception as error:
        found[attempt.__name__] = f"{type(error).__name__}: {error}"
    else:
        found[attempt.__name__] = "connected"
print(json.dumps(found))
"""


def attempt(environment: dict[str, str]) -> dict[str, str]:
    """Return what comes of a connection to each server."""
    done = subprocess.run(
        [sys.executable, "-c", CONNECT],
        cwd=BASE,
        env=os.environ
        | {"DJANGO_SETTINGS_MODULE": "project.settings", "DEBUG": "1"}
        | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """Servers with certificates of a private authority."""
    with tempfile.TemporaryDirectory(prefix="messaging-tls-") as directory:
        servers = Secured(Path(directory) / "servers")
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()


def test_servers_with_right_certificates_are_connected(secured: Secured) -> None:
    secured.show("right")

    assert attempt(secured.urls()) == dict.fromkeys(NAMES, "connected")


@pytest.mark.parametrize("kind", ["of another host", "expired", "foreign"])
def test_a_server_with_a_wrong_certificate_is_refused(
    kind: str, secured: Secured
) -> None:
    secured.show(kind)

    found = attempt(secured.urls())

    assert sorted(found) == NAMES
    assert "connected" not in found.values()
