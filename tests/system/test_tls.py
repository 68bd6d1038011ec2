"""Servers are reached by TLS, and only those that prove who they are."""

from __future__ import annotations

import json
import os
import re
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
    with connect("tls") as client:
        assert client.server.startswith("RabbitMQ")

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


def test_a_broker_takes_the_name_of_its_client_from_the_certificate(
    secured: Secured,
) -> None:
    secured.show("right")
    urls = secured.urls()
    scheme, _, rest = urls["RABBITMQ_URL"].partition("://")
    address = rest.partition("@")[2]

    nameless = {"RABBITMQ_URL": f"{scheme}://{address}&auth_mechanism=external"}

    assert attempt(urls | nameless)["rabbitmq"] == "connected"


#: What the errors of the three clients say about a certificate.
REASONS = {
    "of another host": "IP address mismatch|valid for|doesn't match|Validation of SSL",
    "expired": "expired",
    "foreign": "self.signed|unable to get local issuer|verify failed",
}


@pytest.mark.parametrize("kind", list(REASONS))
def test_a_server_with_a_wrong_certificate_is_refused(
    kind: str, secured: Secured
) -> None:
    secured.show(kind)

    found = attempt(secured.urls())

    assert sorted(found) == NAMES
    for name, error in found.items():
        assert re.search(REASONS[kind], error), f"{name}: {error}"


def test_servers_whose_authority_is_not_trusted_are_refused(secured: Secured) -> None:
    secured.show("right")

    found = attempt(secured.urls(authority=secured.foreign.certificate))
    # By default those that the system trusts.
    of_system = {
        name: re.sub("(cacertfile|ssl_ca|tlsCAFile)=[^&]*&", "", url)
        for name, url in secured.urls().items()
    }

    for errors in (found, attempt(of_system)):
        assert sorted(errors) == NAMES
        for name, error in errors.items():
            assert re.search(REASONS["foreign"], error), f"{name}: {error}"


def test_a_client_without_a_certificate_is_refused(secured: Secured) -> None:
    secured.show("right")

    found = attempt(secured.urls(client=False))

    assert sorted(found) == NAMES
    assert "connected" not in found.values()


def test_a_server_without_tls_gets_no_password(secured: Secured) -> None:
    secured.show("right")
    urls = secured.urls()
    ports = (secured.tls_port, secured.rabbitmq.port)

    found = attempt(
        urls | {"RABBITMQ_URL": urls["RABBITMQ_URL"].replace(*map(str, ports))}
    )

    assert found["rabbitmq"] != "connected"


def test_without_verification_debians_library_takes_the_certificate_of_another_host(
    secured: Secured,
) -> None:
    secured.show("of another host")
    url = secured.urls()["DATABASE_URL"]

    preferred = attempt({"DATABASE_URL": f"{url}&ssl_mode=PREFERRED"})

    # That is why files imply VERIFY_IDENTITY, and check --deploy warns of less.
    assert preferred["mysql"] == "connected"
