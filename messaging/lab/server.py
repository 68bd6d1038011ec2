"""The base class of private servers."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from .folders import own_folder
from .processes import end, find, free_port, identity, is_free

#: Seconds a server may take to answer; the first start can be slow.
START_DEADLINE = 90
#: Seconds a server may take to stop before it is killed.
STOP_DEADLINE = 10


class ServerError(Exception):
    """A private server cannot be started."""


def own_secret(path: Path) -> str:
    """Return the random secret in a file that only its owner may read; make it once."""
    with suppress(FileExistsError):
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(file, "w") as new:
            new.write(secrets.token_hex(24))
    return path.read_text()


class Server:
    """A server with its own directory, ports and log, and a password if it has any."""

    port_names: ClassVar[tuple[str, ...]] = ("port",)
    #: Of the directory, whose files no other user of this machine may open.
    mode: ClassVar[int] = 0o700

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = Path(directory).absolute()
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        self.ports = {"port": port} if port else {}
        #: Further options, or lines of its configuration.
        self.options: list[str] = []
        self._processes: list[psutil.Popen] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port; unless it was given, it is chosen at the first start."""
        return self.ports["port"]

    @property
    def address(self) -> int | Path:
        """Where it listens: a port of 127.0.0.1, or a Unix socket."""
        return self.port

    @property
    def password(self) -> str:
        """The password, which is chosen when it is first needed, and kept."""
        self._make_directory()
        return own_secret(self.directory / "password")

    @property
    def process(self) -> psutil.Popen:
        """The process that serves, while the server runs."""
        return self._processes[-1]

    @property
    def is_running(self) -> bool:
        """Whether the process that serves is there, frozen or not."""
        return bool(self._processes) and self._processes[-1].poll() is None

    @property
    def url(self) -> str:
        """The URL for clients, with the password."""
        return self.url_at(self.address)

    def url_at(self, address: int | Path) -> str:
        """Return the URL for clients that come by another address, as of a proxy."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server unless it is running, and return once it answers."""
        if self.is_running:
            return
        self.kill()
        self._make_directory()
        state = self._read_state()
        self._end_leftovers(state)
        self._choose_ports(state.get("ports", {}))
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        try:
            self.launch()
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Terminate the server, and kill it if it does not stop in time."""
        self._end(patience=STOP_DEADLINE)

    def kill(self) -> None:
        """Kill the server and its children, like a crash."""
        self._end(patience=0)

    def pause(self) -> None:
        """Suspend the server: its connections stay open, but it does not answer."""
        for process in self._processes:
            process.suspend()

    def resume(self) -> None:
        """Resume the server after `pause`."""
        for process in self._processes:
            process.resume()

    def launch(self) -> None:
        """Spawn the processes of the server, the serving one last."""
        raise NotImplementedError

    def ping(self) -> None:
        """Raise an exception unless the server serves a client."""
        raise NotImplementedError

    def spawn(self, command: list[str], env: Mapping[str, str] | None = None) -> None:
        """Start a process that writes to the log, and remember it."""
        with self.log.open("ab") as log:
            process = psutil.Popen(
                command,
                env=env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C goes to the caller only, which stops the servers in order.
                start_new_session=True,
            )
        self._processes.append(process)
        self._save_state()

    def _end(self, patience: float) -> None:
        if self._processes:
            while self._processes:
                end(self._processes[-1], patience)
                self._processes.pop()
            self._save_state()

    def _end_leftovers(self, state: dict[str, Any]) -> None:
        """End the processes of a killed run; raise `ServerError` if it still runs."""
        leftovers = [
            found for pair in state.get("processes", []) if (found := find(*pair))
        ]
        owner = find(*state["owner"]) if leftovers else None
        if owner and owner.pid != os.getpid():
            raise ServerError(f"{self.directory} is in use by process {owner.pid}.")
        for process in reversed(leftovers):
            end(process, STOP_DEADLINE)

    def _choose_ports(self, remembered: dict[str, int]) -> None:
        for name in self.port_names:
            if name not in self.ports:
                port = remembered.get(name)
                self.ports[name] = port if port and is_free(port) else free_port()
            elif not is_free(self.ports[name]):
                raise ServerError(f"Port {self.ports[name]} is taken.")

    def _make_directory(self) -> None:
        own_folder(self.directory, self.mode)

    def _listens(self) -> bool:
        """Return whether it is this server that listens, not another program."""
        for process in self._processes:
            with suppress(psutil.Error):
                for one in process.net_connections("inet"):
                    is_open = one.status == psutil.CONN_LISTEN
                    if is_open and one.laddr.port == self.address:
                        return True
        return False

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        problem: Exception | None = None
        while True:
            try:
                # The password must not go to another user's program.
                if self._listens():
                    self.ping()
                    return
            # Every client library has its own errors for a server that is starting.
            except Exception as exc:
                problem = exc
            if (code := self._processes[-1].poll()) is not None:
                raise self._failure(f"ended with exit code {code}")
            if time.monotonic() > deadline:
                raise self._failure(f"does not answer ({problem!r})")
            time.sleep(0.03)

    def _failure(self, what: str) -> ServerError:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        title = f"{type(self).__name__} {what}. The end of {self.log}:"
        return ServerError("\n".join([title, *lines]))

    def _read_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            state = json.loads((self.directory / "state.json").read_text())
        return state

    def _save_state(self) -> None:
        state = {
            "ports": self.ports,
            "owner": identity(os.getpid()),
            "processes": [identity(process.pid) for process in self._processes],
        }
        draft = self.directory / "state.json.new"
        draft.write_text(json.dumps(state))
        draft.replace(self.directory / "state.json")
