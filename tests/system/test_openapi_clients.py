"""Programs that know nothing of the API but its OpenAPI document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User as Account
from django.db import connections

from tests.support.access import token
from tests.support.broker import Broker
from tests.support.processes import API, Processes, start_api
from users.models import User

pytest.importorskip("schemathesis")
pytest.importorskip("openapi_python_client")

pytestmark = pytest.mark.slow

PROGRAMS = Path(sys.executable).parent
#: What schemathesis looks at: that all answers are described, bad input is refused, and
#: so is who has no token. Not `positive_data_acceptance`: no schema says which cursors,
#: past dates and ETags there are. Nor what must be there, or gone, at once: a write is
#: applied after its answer.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
    "ignored_auth",
)
REQUESTS = 2_000

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


def requests_made(api: API, folder: Path, *options: str) -> int:
    """Let schemathesis send requests; return how many, if all answers are right."""
    printed = run(
        "schemathesis",
        "run",
        f"{api.url}/api/schema/?format=json",
        f"--checks={','.join(CHECKS)}",
        "--suppress-health-check=all",
        "--seed=1",
        *options,
        cwd=folder,
    )
    generated = re.search(r"(\d+) generated", printed)
    assert generated, printed
    return int(generated[1])


@pytest.mark.timeout(900)
def test_no_answer_of_thousands_is_undescribed(
    api: API, consumers: None, tmp_path: Path
) -> None:
    Account.objects.create_user("admin", password="admin")

    count = requests_made(api, tmp_path, "--max-examples=60")

    assert count >= REQUESTS


@pytest.mark.timeout(300)
def test_no_answer_to_a_client_that_waits_is_undescribed(
    api: API, consumers: None, tmp_path: Path
) -> None:
    writes = [f"--include-method={one}" for one in ("POST", "PUT", "PATCH", "DELETE")]
    waiting = ("-H", "Prefer: wait=2", "--exclude-path=/token/")

    count = requests_made(api, tmp_path, *writes, *waiting, "--max-examples=30")

    assert count >= 200
    assert User.objects.exists()


#: Claims of the tokens of the clients; no token at all for None.
CLIENTS: dict[str, dict[str, Any] | None] = {
    "without a token": None,
    "without a role": {},
    "end user": {"user_id": 1},
} | {role: {"roles": [role]} for role in ("reader", "editor", "moderator", "operator")}


@pytest.mark.parametrize("client", list(CLIENTS))
@pytest.mark.parametrize(
    ("examples", "requests"),
    [
        pytest.param(3, -(-REQUESTS // len(CLIENTS)), marks=pytest.mark.timeout(900)),
        pytest.param(
            40,
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

    count = requests_made(closed, tmp_path, *header, f"--max-examples={examples}")

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
