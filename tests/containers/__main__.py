"""
Try the image and both compose files, as docs/containers.md tells: `make containers`.

    python -m tests.containers                   podman, and images made here
    python -m tests.containers --engine docker   docker, and those of the registry

It needs nothing but Python's own library. With --keep, podman's images stay for the
next time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import ssl
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support import BASE

from .engine import Compose, Docker, Podman, eventually, run
from .stand_ins import make_stand_ins

HOST, PORT, PLAIN_PORT, TRIAL_PORT = "localhost", 8443, 8080, 8000
OVERRIDE = "tests/containers/mongodb.yaml"
#: Of the project's own image, in the order of docs/upgrading.md.
SERVICES = ("consumers", "relay", "prune", "api")
started = time.monotonic()


def say(text: str) -> None:
    """Print a line with the time since the start."""
    sys.stdout.write(f"[{time.monotonic() - started:4.0f} s] {text}\n")
    sys.stdout.flush()


class Client:
    """Sends requests to the API."""

    def __init__(self, port: int, authority: Path | None, token: str = "") -> None:
        self._port, self._headers = port, {"Content-Type": "application/json"}
        self._tls = authority and ssl.create_default_context(cafile=authority)
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return the status and the body of an answer; status 0 is no answer."""
        if self._tls:
            connection: Any = http.client.HTTPSConnection(
                HOST, self._port, timeout=30, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(HOST, self._port, timeout=30)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, self._headers | headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(data) if is_json else data

    def post_user(self) -> str | None:
        """Send a new user; return its e-mail, or nothing if that was not accepted."""
        email = f"{secrets.token_hex(8)}@example.com"
        body = {"nombre": "Ana", "apellido": "Paz", "email": email}
        status, _ = self.request("POST", "/users/", body)
        return email if status == 202 else None

    def user(self, email: str) -> Any:
        """Return the user with an e-mail, or nothing."""
        status, page = self.request("GET", f"/users/?email={email}")
        return page["results"][0] if status == 200 and page["results"] else None

    def see(self, *emails: str | None) -> Any:
        """Wait until each user is there, and return the last."""
        found = None
        for email in emails:
            if email is None:
                sys.exit("A user was not accepted.")
            found = eventually(lambda e=email: self.user(e), f"{email} is there", 60)
        return found


def check_image(engine: Docker, image: str) -> None:
    """See that the image runs as an ordinary user, and has no compiler."""
    size = engine.inspect(image)["Size"] / 1e6
    user = engine("run", "--rm", image, "id", "-u").strip()
    tools = "for one in cc gcc g++ c++ ld as make; do command -v $one; done; true"
    found = engine("run", "--rm", image, "sh", "-c", tools).split()
    say(f"The image: {size:.0f} MB, user {user}, compilers: {found or 'none'}.")
    if user != "10001" or found:
        sys.exit("The image must run as user 10001, and have no compiler.")


def check_rights(compose: Compose) -> None:
    """See that no process of the image may write to its files, or become root."""
    script = (
        "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | cut -f2;"
        "touch /app/x /srv/x 2>&1 | grep -c 'Read-only file system'"
    )
    for service in SERVICES:
        seen = compose.engine(
            "exec", compose.container(service), "sh", "-c", script
        ).split()
        if seen != ["10001", "0000000000000000", "0000000000000000", "1", "2"]:
            sys.exit(f"{service} has other rights than it should: {seen}")
    say("API, consumers, relay and prune: read-only, user 10001, no capability.")


def use(client: Client) -> None:
    """Post a user and a report, and see both, and the report's file."""
    user = client.see(client.post_user())
    report = {
        "id_usuario": user["user_id"],
        "tipo_reporte": 1,
        "descripcion": "Farola rota",
        "ubicacion": "Calle Mayor 1",
    }
    status, answer = client.request("POST", "/reports/", report)
    if status != 202:
        sys.exit(f"The report was answered with {status}: {answer}")
    path = f"/reports/{answer['id_reporte']}/"
    eventually(lambda: client.request("GET", path)[0] == 200, "the report is there", 60)
    file = f"{path}file/"
    eventually(lambda: client.request("GET", file)[0] == 200, "its file is there", 60)
    say("A user, a report and its file were made and seen.")


def kill_a_consumer(compose: Compose, client: Client) -> None:
    """Kill a consumer at work; its container is started again, then replaced."""
    name = compose.container("consumers", 2)
    emails = [client.post_user() for _ in range(10)]
    before = compose.engine.inspect(name)["State"]["Pid"]
    os.kill(before, signal.SIGKILL)
    emails += [client.post_user() for _ in range(10)]
    client.see(*emails)

    def is_back() -> bool:
        return compose.engine.inspect(name)["State"]["Pid"] not in (0, before)

    eventually(is_back, f"{name} is started again", 60)
    compose.engine("rm", "--force", name)
    compose.up("consumers")
    client.see(client.post_user())
    say("A consumer was killed and replaced; its 20 users are there.")


def replace_the_broker(compose: Compose, client: Client) -> None:
    """Remove the broker's container while messages wait in it."""
    compose("stop", "consumers")
    emails = [client.post_user() for _ in range(5)]
    compose.engine("rm", "--force", compose.container("rabbitmq"))
    if email := client.post_user():
        sys.exit(f"{email} was accepted without a broker.")
    compose.up("rabbitmq")
    compose.wait_for("rabbitmq")
    compose.up("consumers")
    client.see(*emails)
    emails = [eventually(client.post_user, "the API sends again", 60)]
    client.see(*emails)
    say("The broker's container was replaced; what had waited in it took effect.")


def upgrade(compose: Compose, client: Client, release: str) -> None:
    """Replace the containers by those of another release while a client writes."""
    accepted: list[str] = []
    refused = 0
    done = threading.Event()

    def write() -> None:
        nonlocal refused
        while not done.wait(0.2):
            if email := client.post_user():
                accepted.append(email)
            else:
                refused += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        compose.variables["RELEASE"] = release
        compose("build", "api")
        compose.start(*SERVICES, "nginx")
        compose("restart", "nginx")
        client.see(eventually(client.post_user, "the new API answers", 60))
    finally:
        done.set()
        writer.join()
    client.see(*accepted)
    for service in SERVICES:
        image = compose.engine.inspect(compose.container(service))["Config"]["Image"]
        if not image.endswith(f":{release}"):
            sys.exit(f"{service} still runs {image}.")
    say(
        f"Release {release} runs. Of {len(accepted) + refused} requests meanwhile "
        f"{refused} were refused; the others took effect."
    )


def production(engine: Docker, stack: ExitStack, override: list[str]) -> None:
    """Try compose.prod.yaml."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if override:
        # The stand-in checks no password.
        (folder / "mongodb_url").write_text(
            f"mongodb://project:{secrets.token_hex(24)}@mongodb:27017/reports"
            "?replicaSet=rs0&authMechanism=PLAIN&tls=true&tlsCAFile=/run/secrets/ca"
        )
    run(str(BASE / "deploy" / "compose" / "make-secrets"), str(folder), HOST)
    compose = Compose(
        engine, "production", "compose.prod.yaml", *override,
        API_HOST=HOST, RELEASE="1", SECRETS=str(folder),
        HTTPS_ADDRESS=f"127.0.0.1:{PORT}", HTTP_ADDRESS=f"127.0.0.1:{PLAIN_PORT}",
    )  # fmt: skip
    compose("build", "api")
    say("The image is built.")
    check_image(engine, "usuarios-y-reportes:1")
    stack.callback(compose, "down", "--volumes")
    compose.start(*SERVICES, "nginx")
    say("compose.prod.yaml is up.")
    check_rights(compose)
    roles = ("--role", "editor", "--role", "moderator")
    token = compose.manage("issue_token", "trial", "--days", "1", *roles).strip()
    client = Client(PORT, folder / "ca.pem", token)
    use(client)
    kill_a_consumer(compose, client)
    replace_the_broker(compose, client)
    upgrade(compose, client, "2")
    use(client)
    found = compose("exec", "-T", "api", "sh", "-c", "python manage.py doctor || true")
    say(f"What doctor finds:\n{found.strip()}")


def trial(engine: Docker, stack: ExitStack, override: list[str]) -> None:
    """Try compose.yaml."""
    compose = Compose(engine, "trial", "compose.yaml", *override)
    compose("build")
    stack.callback(compose, "down", "--volumes")
    compose.start("consumers", "relay", "api")
    say("compose.yaml is up.")
    use(Client(TRIAL_PORT, None))


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.containers")
    parser.add_argument("--engine", choices=("podman", "docker"), default="podman")
    parser.add_argument("--keep", action="store_true", help="keep podman's images")
    options = parser.parse_args()
    override: list[str] = []
    with ExitStack() as stack:
        if options.engine == "docker":
            engine = Docker()
        else:
            engine = podman = Podman()
            if not options.keep:
                stack.callback(podman.close)
            names = make_stand_ins(podman)
            say(f"Stand-ins: {', '.join(names)}.")
            override.append(OVERRIDE)
        for step in (production, trial):
            with ExitStack() as one:
                step(engine, one, override)
    say("All is stopped and removed.")


if __name__ == "__main__":
    main()
