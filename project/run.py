"""
What `make run` does: start private servers, migrate, then run API and consumers.

A server whose URL is in the environment or in `.env` is used as it is. Everything
else is under `.local/`, which no other user may enter, and ends with this process.
"""

import fcntl
import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO
from urllib.error import HTTPError
from urllib.request import urlopen

import honcho.manager
import psutil
from django.core.exceptions import ImproperlyConfigured

from messaging.lab.folders import own_folder
from messaging.lab.processes import is_free, lives, wait
from messaging.lab.server import own_secret
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ, Server, ServerError
from messaging.lab.variables import shown
from project.environment import Environment, text_of
from project.production import KEYS

BASE = Path(__file__).resolve().parent.parent
LOCAL = BASE / ".local"
#: An environment variable of every process of a run, by which the next run finds and
#: ends the processes of one that was killed.
MARK = "MAKE_RUN_DIRECTORY"
#: Seconds for API and consumers to finish their work in hand.
STOP_DEADLINE = 10
SERVERS = {"RABBITMQ_URL": RabbitMQ, "DATABASE_URL": MariaDB, "MONGODB_URL": MongoDB}
#: Ctrl-C, kill, and closing the terminal's window.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Prints how to log in, as long as the first administrator has its first password.
ADMINISTRATOR = """
import os, django
django.setup()
from django.contrib.auth import get_user_model
users = get_user_model().objects
password = os.environ["ADMIN_PASSWORD"] or "admin"
if not users.filter(is_superuser=True).exists():
    users.create_superuser("admin", "admin@localhost", password)
user = users.filter(username="admin").first()
if user and password != "admin" and user.check_password("admin"):
    user.set_password(password)  # that of a run with open access
    user.save()
if user and user.check_password(password):
    known = password if password == "admin" else "in .local/admin-password"
    print(", log in as admin with password", known, end="")
"""


class Stopped(Exception):
    """One of SIGNALS was received."""


class Failed(Exception):
    """The run cannot continue; the message says why."""


class Processes(honcho.manager.Manager):
    def terminate(self) -> None:
        # honcho itself waits forever until one of them ends.
        threading.Thread(target=self._kill_late, daemon=True).start()
        super().terminate()

    def _kill_late(self) -> None:
        time.sleep(STOP_DEADLINE)
        self.kill()


def main() -> int:
    os.chdir(BASE)
    if os.environ.get(MARK) != str(LOCAL):
        # Other processes see only the environment that a process was started with.
        command = [sys.executable, "-m", "project.run"]
        os.execve(sys.executable, command, os.environ | {MARK: str(LOCAL)})
    Environment().read_file(BASE / ".env")
    try:
        with lock(LOCAL / "lock") as notice:
            return run(notice)
    except (Failed, ImproperlyConfigured, ServerError) as exc:
        print(exc, file=sys.stderr)
        return 1


@contextmanager
def lock(path: Path) -> Iterator[TextIO]:
    """Hold the lock; a later run prints what is written to the file."""
    own_folder(path.parent)
    with path.open("a+") as file:
        try:
            # Unlike flock's, this lock is not inherited by children of a killed run.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failed(f"already running at {path.read_text()}") from None
        file.truncate(0)
        yield file


def run(notice: TextIO) -> int:
    for signum in SIGNALS:
        signal.signal(signum, stop)
    servers: dict[str, Server] = {
        name: kind(LOCAL / kind.__name__.lower())
        for name, kind in SERVERS.items()
        if not text_of(name)
    }
    if servers and not Environment().bool("DEBUG", default=True):
        raise Failed(
            f"DEBUG=0 needs servers of your own: set {', '.join(servers)} (see "
            ".env.example), or unset DEBUG to try the project."
        )
    try:
        end_leftovers()
        port = choose_port()
        url = f"http://127.0.0.1:{port}/"
        # Through the same file: closing another one would release the lock.
        print(f"{url} (pid {os.getpid()})", file=notice, end="", flush=True)
        with shown(LOCAL / "servers.env", start(servers)):
            hint = prepare("DATABASE_URL" in servers)
            end = "Ctrl-C stops everything."
            return serve(port, f"Open {url} ({url}admin/{hint}). {end}")
    except Stopped:
        return 0
    finally:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.stop(), servers.values()))
        end_leftovers()


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def end_leftovers() -> None:
    """End every other process that this run, or a killed one, has started."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(LOCAL) and process.pid != os.getpid():
                left.append(process)
                process.terminate()
                process.resume()
    wait(left, STOP_DEADLINE)
    for process in filter(lives, left):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait(left, STOP_DEADLINE)


def choose_port() -> int:
    wanted = os.environ.get("PORT")
    if not wanted:
        return next(port for port in itertools.count(8000) if is_free(port))
    if not wanted.isdecimal() or not 0 < int(wanted) < 65536:
        raise Failed(f"PORT is {wanted}, which is not a port.")
    if not is_free(int(wanted)):
        raise Failed(f"Port {wanted} (PORT) is taken; unset PORT to use a free one.")
    return int(wanted)


def start(servers: dict[str, Server]) -> dict[str, str]:
    """Start the servers together; return the variables that all commands need."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.start(), servers.values()))
    os.environ |= {name: server.url for name, server in servers.items()}
    if isinstance(rabbitmq := servers.get("RABBITMQ_URL"), RabbitMQ):
        rabbitmq.write_tool(LOCAL / "rabbitmqctl")
    if isinstance(mongodb := servers.get("MONGODB_URL"), MongoDB):
        os.environ["MONGODB_ENGINE"] = mongodb.engine
    os.environ.setdefault("DEBUG", "1")
    os.environ.setdefault("OPEN_ACCESS", os.environ["DEBUG"])
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    os.environ["PYTHONUNBUFFERED"] = "1"
    # The defaults are no secrets.
    for name in KEYS:
        file = LOCAL / name.lower().replace("_", "-")
        if not text_of(name):
            os.environ[name] = own_secret(file)
    for name in SERVERS:
        print(name, "is", without_secrets(text_of(name) or ""), flush=True)
    names = [*SERVERS, "MONGODB_ENGINE", "DEBUG", "OPEN_ACCESS", *KEYS]
    return {name: os.environ[name] for name in names if name in os.environ}


def without_secrets(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def prepare(administrator: bool) -> str:
    """Migrate the databases and apply the topology; return how to log in, if known."""
    python("manage.py", "upgrade")
    if not administrator:
        return ""
    is_open = Environment().bool("OPEN_ACCESS")
    # Where anyone may do anything, it need not be a secret.
    password = "" if is_open else own_secret(LOCAL / "admin-password")
    return python("-c", ADMINISTRATOR, ADMIN_PASSWORD=password)


def python(*arguments: str, **environment: str) -> str:
    """Run a Python program and return its output; its errors go to the terminal."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        # So that Ctrl-C does not interrupt a migration.
        start_new_session=True,
    )
    if done.returncode:
        raise Failed(f"{shlex.join(arguments)} failed; see above.\n{done.stdout}")
    return done.stdout


def api_command(port: int) -> list[str]:
    """Return the command that serves the API; the benchmarks measure it, too."""
    granian = [sys.executable, "-m", "granian", "project.asgi:application"]
    granian += ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
    granian += ["--http1-header-read-timeout", "10000"]
    # A client that sends its body slowly must not delay the end.
    granian += ["--workers-kill-timeout", str(STOP_DEADLINE - 2)]
    return [*granian, "--log-level", "error"]


def serve(port: int, welcome: str) -> int:
    """Run API, consumers and relay until one ends or a signal is received."""
    manage = [sys.executable, "manage.py"]
    commands = {
        "api": api_command(port),
        "consumers": [*manage, "run_consumer", "--all"],
        "relay": [*manage, "relay_outbox"],
    }
    honcho.manager.KILL_WAIT = STOP_DEADLINE
    processes = Processes()
    for name, command in commands.items():
        processes.add_process(name, f"exec {shlex.join(command)}")
    threading.Thread(target=announce, args=[port, welcome], daemon=True).start()
    # honcho handles only the first two of SIGNALS.
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # honcho raises this for a signal before it knows all process ids.
    with suppress(KeyError):
        processes.loop()
    code: int = processes.returncode
    if code in {info["rc"] for info in honcho.manager.SIGNALS.values()}:
        return 0
    return code if code >= 0 else 128 - code


def announce(port: int, welcome: str) -> None:
    """Print the welcome once the API answers, even with an error."""
    while True:
        with suppress(OSError):
            with suppress(HTTPError):
                urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5).close()
            print(welcome, flush=True)
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
