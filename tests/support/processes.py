"""Programs of the project, run against the test databases."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import requests
from django.db import connections

from messaging.lab.processes import free_port
from messaging.registry import consumer_name, handlers
from project.run import api_command

from . import BASE, private_servers
from .openapi import Document, document_of
from .waiting import eventually

#: Seconds in which a consumer ends after SIGTERM, whatever it is doing.
PATIENCE = 10


class Processes:
    """Programs of the project, run against the test databases."""

    def __init__(self, log: Path | None = None) -> None:
        """Start programs whose log lines go to a file, if one is given."""
        self.log = log
        self._running: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "DATABASE_URL": database_url(),
            "MONGODB_URL": f"{private_servers.mongodb.url.rpartition('/')[0]}/"
            f"{connections['reports'].settings_dict['NAME']}",
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a Python program."""
        with self.log.open("ab") if self.log else nullcontext() as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=BASE,
                env=self.environment | environment,
                start_new_session=True,
                stderr=log,
            )
        self._running.append(process)
        return process

    def manage(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command of `manage.py`."""
        return self.start("manage.py", *command, **environment)

    def output(self, *command: str, check: bool = True) -> str:
        """Run a command of `manage.py` and return its output."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=BASE,
            env=self.environment,
            check=check,
            capture_output=True,
            text=True,
        ).stdout

    def stop(
        self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM
    ) -> int:
        """Send a signal and return the exit code."""
        process.send_signal(number)
        return process.wait(15)

    def sources(self) -> list[str]:
        """Return the sources under which they count what they publish."""
        parents = [psutil.Process(process.pid) for process in self._running]
        every = [*parents, *(one for p in parents for one in p.children(True))]
        names = [f"{socket.gethostname()}:{process.pid}" for process in every]
        return [f"{kind} {name}" for kind in ("api", "relay") for name in names]

    def kill_all(self) -> None:
        """Kill all processes and their children."""
        for process in self._running:
            with suppress(ProcessLookupError):
                # The group: a web server has children that do the work.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def database_url() -> str:
    """Return the URL of the test database in MariaDB."""
    name = connections["default"].settings_dict["NAME"]
    return f"{private_servers.mariadb.url.rpartition('/')[0]}/{name}"


class SharedConsumers:
    """
    Consumers of commands and events, in a process that runs until a test needs the
    queues for itself.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start them; fails the test if they have died."""
        if self._process is None:
            # Not the archive: tests read the queues of dead letters.
            names = [consumer_name(queue) for queue in handlers]
            self._process = self._processes.manage("run_consumer", *names)
        assert self._process.poll() is None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop them with SIGSTOP, so that they keep the queues and do nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop them, so that a test can consume alone."""
        if self._process is not None:
            # A process that is still starting has no handler of signals yet.
            assert self._processes.stop(self._process) in (0, -signal.SIGTERM)
            self._process = None


class API:
    """The project over HTTP, served as in production."""

    def __init__(self, port: int, document: Document | None = None) -> None:
        """Use the API on a port; its answers must be as its document says."""
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.document = document

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request."""
        answer = self.session.request(method, self.url + path, timeout=20, **options)
        if self.document:
            self.document.check(answer)
        return answer

    def get(self, path: str, **options: Any) -> requests.Response:
        """Read."""
        return self("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """Create."""
        return self("POST", path, json=body, **options)

    def patch(self, path: str, body: Any, **options: Any) -> requests.Response:
        """Change."""
        return self("PATCH", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        """Remove."""
        return self("DELETE", path, **options)


def start_api(
    processes: Processes, interface: str = "asgi", workers: int = 1, **environment: str
) -> API:
    """Serve the project on a free port: as `make run` does, or without the front."""
    port = free_port()
    command = [one.replace("asgi", interface) for one in api_command(port)[1:]]
    command += ["--workers", str(workers)]
    if interface == "wsgi":
        command += ["--blocking-threads", "32"]
    processes.start(*command, **environment)
    given = processes.environment | environment
    document = document_of(given.get("OPEN_ACCESS", ""), given.get("THROTTLE"))
    api = API(port, document)

    def answers() -> bool:
        try:
            return api.get("/health/live").ok
        except requests.ConnectionError:
            return False

    eventually(answers, "the API answers", 20)
    return api
