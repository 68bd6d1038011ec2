"""Programs that know nothing of the API but its OpenAPI document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User as Account
from django.db import connections

from messaging.operations import operation_id
from reports.documents import store, write_documents
from reports.models import Report, ReportLedger
from tests.support.access import ROLES, token
from tests.support.broker import Broker
from tests.support.processes import API, Processes, start_api
from users.models import User, UserLedger

pytest.importorskip("schemathesis")
pytest.importorskip("openapi_python_client")

pytestmark = pytest.mark.slow

PROGRAMS = Path(sys.executable).parent
REQUESTS = 2_000
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
#: The address of one user, report or operation.
ONE = re.compile("/(users|reports|operations)/[^/?]+/")
#: How schemathesis asks, and what it checks: all that it can, with these exceptions.
CONFIG = """
[dictionaries]
%s
kinds.values = [0, 1, 2147483647]
dates.values = ["1990-01-01T00:00:00Z", "2000-02-29T12:00:00.5+02:00"]

# What no schema can say: which ids there are, that a time is past, and that 1.0 is no
# whole number here.
[parameters]
"path.user_id" = {dictionary = "users", probability = 0.8}
"path.id_reporte" = {dictionary = "reports", probability = 0.8}
"path.id" = {dictionary = "operations", probability = 0.8}
"body.id_usuario" = {dictionary = "users"}
"body.tipo_reporte" = {dictionary = "kinds"}
"body.fecha_nacimiento" = {dictionary = "dates"}

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 412, 422, 429]

# Its values heed one keyword at a time, and need not be valid: it makes an address of
# 500 characters by a host name that is too long.
[phases.coverage.checks.positive_data_acceptance]
enabled = false

# It needs two accounts with things of their own: tests/integration/test_end_users.py.
[checks.object_level_authorization]
enabled = false
"""
#: Without `Prefer`, a write is applied after its answer.
LATER = """
[checks.use_after_free]
enabled = false
[checks.ensure_resource_availability]
enabled = false
"""
#: To who may not see e-mails, a filter by them is an unknown parameter.
BLIND = """
[[operations]]
include-operation-id = "users_list"
checks.positive_data_acceptance.enabled = false
"""

#: A program that uses the generated client.
PROGRAM = """
import sys, time
from urllib.parse import urlsplit

from client import Client
from client.api.operations import operations_retrieve
from client.api.users import users_create, users_partial_update
from client.models import OperationStatus, User, UserCreate, UserUpdate

api = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
body = UserCreate("John", "Doe", "john@example.com")
user = users_create.sync(client=api, body=body, prefer="wait=5")
assert isinstance(user, User), user
again = users_create.sync(client=api, body=body, prefer="wait=5")
assert again.code == "conflict", again

change = UserUpdate(nombre="Jane")
accepted = users_partial_update.sync_detailed(user.user_id, client=api, body=change)
assert accepted.status_code == 202, accepted
assert accepted.parsed.user_id == user.user_id
operation = urlsplit(accepted.headers["Location"]).path.split("/")[2]
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    found = operations_retrieve.sync(operation, client=api)
    if found.status != OperationStatus.QUEUED:
        break
    time.sleep(0.05)
print(user.user_id, found.status, found.link, found.settled_at >= found.accepted_at)
"""


def run(*command: str, cwd: Path) -> str:
    """Run a program, and return what it prints."""
    ran = subprocess.run(
        [str(PROGRAMS / command[0]), *command[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    # The server ends sessions that are idle for so long.
    connections.close_all()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture
def config(broker: Broker) -> str:
    """A configuration of schemathesis, to ask mostly for what is there."""
    users = range(1, 101)
    User.objects.bulk_create(
        User(
            pk=number,
            nombre="Ana",
            apellido="Ruiz",
            email=f"ana{number}@example.com",
            fecha_creacion=MOMENT,
        )
        for number in users
    )
    UserLedger.objects.bulk_create(UserLedger(user_id=number) for number in users)
    reports = [
        Report(
            id_reporte=str(uuid.uuid4()),
            id_usuario=number,
            tipo_reporte=1,
            descripcion="Un bache",
            ubicacion="Plaza",
            visibilidad=1.0,
            fecha_creacion=MOMENT,
            version=1,
        )
        for number in users
    ]
    ReportLedger.objects.bulk_create(
        ReportLedger(
            id_reporte=report.pk,
            id_usuario=report.id_usuario,
            visibilidad=1.0,
            fecha_creacion=MOMENT,
        )
        for report in reports
    )
    write_documents([store(report) for report in reports])
    ids = {
        "users": list(users),
        "reports": [report.pk for report in reports],
        "operations": [operation_id(str(uuid.uuid4())) for _ in users],
    }
    dictionaries = [f"{name}.values = {json.dumps(ids[name])}" for name in ids]
    return CONFIG % "\n".join(dictionaries)


def requests_made(api: API, folder: Path, config: str, *options: str) -> int:
    """Let schemathesis send requests; return how many, if all answers are right."""
    document = api.get("/api/schema/?format=json").json()
    # Cursors are those of tests/integration/test_hostile_reads.py: no schema can say
    # which were signed.
    for methods in document["paths"].values():
        for operation in methods.values():
            given = operation.get("parameters", [])
            operation["parameters"] = [one for one in given if one["name"] != "cursor"]
    (folder / "api.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(config)
    printed = run(
        "schemathesis",
        "run",
        "api.json",
        f"--url={api.url}",
        "--suppress-health-check=all",
        "--seed=1",
        "--report=har",
        "--report-har-path=requests.har",
        *options,
        cwd=folder,
    )
    sent = json.loads((folder / "requests.har").read_text())["log"]["entries"]
    of_one = [one for one in sent if ONE.search(one["request"]["url"])]
    missing = [one for one in of_one if one["response"]["status"] == 404]
    assert len(missing) < len(of_one) / 4
    generated = re.search(r"(\d+) generated", printed)
    assert generated, printed
    return int(generated[1])


@pytest.mark.timeout(900)
def test_no_answer_of_thousands_is_undescribed(
    api: API, consumers: None, config: str, tmp_path: Path
) -> None:
    Account.objects.create_user("admin", password="admin")

    count = requests_made(api, tmp_path, config + LATER, "--max-examples=60")

    assert count >= REQUESTS


@pytest.mark.timeout(300)
def test_no_answer_to_a_client_that_waits_is_undescribed(
    api: API, consumers: None, config: str, tmp_path: Path
) -> None:
    waiting = ("-H", "Prefer: wait=10", "--include-path-regex=^/(users|reports)/")

    count = requests_made(api, tmp_path, config, *waiting, "--max-examples=30")

    assert count >= 200
    assert User.objects.exists()


#: Claims of the tokens of the clients; no token at all for None.
CLIENTS: dict[str, dict[str, Any] | None] = {
    "without a token": None,
    "without a role": {},
    "end user": {"user_id": 1, "roles": list(ROLES)},
} | {role: {"roles": [role]} for role in ROLES}


@pytest.mark.parametrize("client", list(CLIENTS))
@pytest.mark.parametrize(
    ("examples", "requests"),
    [
        pytest.param(3, -(-REQUESTS // len(CLIENTS)), marks=pytest.mark.timeout(900)),
        pytest.param(
            70,
            -(-10 * REQUESTS // len(CLIENTS)),
            marks=[pytest.mark.soak, pytest.mark.timeout(3600)],
        ),
    ],
)
def test_no_answer_to_a_client_of_any_role_is_undescribed(
    client: str,
    examples: int,
    requests: int,
    broker: Broker,
    consumers: None,
    processes: Processes,
    config: str,
    tmp_path: Path,
) -> None:
    closed = start_api(processes, OPEN_ACCESS="0")
    claims = CLIENTS[client]
    header: tuple[str, ...] = ()
    if claims is not None:
        # It must outlast the test.
        claims = claims | {"exp": int(time.time()) + 4 * 3600}
        made = token(*claims.get("roles", ()), **claims)
        header = ("-H", f"Authorization: Bearer {made}")

    config += LATER if client == "editor" else LATER + BLIND
    size = f"--max-examples={examples}"
    count = requests_made(closed, tmp_path, config, *header, size)

    sys.stdout.write(f"{client}: {count:,} requests\n")
    assert count >= requests


def test_a_generated_client_creates_a_user_and_follows_an_operation(
    api: API, consumers: None, tmp_path: Path
) -> None:
    document = tmp_path / "api.json"
    document.write_text(json.dumps(api.get("/api/schema/?format=json").json()))
    generate = ("openapi-python-client", "generate", "--meta=none")
    run(*generate, f"--path={document}", "--output-path=client", cwd=tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)

    printed = run("python", "program.py", api.url, cwd=tmp_path)

    user = User.objects.get()
    assert user.nombre == "Jane"
    assert printed.split() == [str(user.pk), "done", f"/users/{user.pk}/", "True"]
