"""
Run both services until Ctrl-C: `python -m examples.two_services`; with `a` or `b`,
only that one.

The broker is that of RABBITMQ_URL, else that of a running `make run`, else a private
one. B's database and the private broker are in `.local/two-services/`.
"""

import argparse
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import honcho.manager

from messaging.lab.folders import own_folder
from messaging.lab.processes import free_port
from messaging.lab.servers import RabbitMQ
from messaging.lab.variables import started

BASE = Path(__file__).resolve().parent.parent.parent
LOCAL = BASE / ".local" / "two-services"
A, B = (f"examples.two_services.service_{name}.settings" for name in "ab")


def main() -> int:
    """Start all processes; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", nargs="?", choices=["a", "b"], help="only this one")
    parser.add_argument("--port-a", type=int, default=7040, help="default: 7040")
    parser.add_argument("--port-b", type=int, default=7041, help="default: 7041")
    options = parser.parse_args()
    os.chdir(BASE)
    for folder in (LOCAL.parent, LOCAL):
        own_folder(folder)
    os.environ.update(started(BASE / ".local" / "servers.env") | dict(os.environ))
    os.environ.setdefault("SERVICE_B_DATABASE_URL", f"sqlite:///{LOCAL}/b.sqlite3")
    os.environ["PYTHONUNBUFFERED"] = "1"
    broker = None
    if not os.environ.get("RABBITMQ_URL"):
        if options.service:
            parser.error("To share a broker, set RABBITMQ_URL or start `make run`.")
        broker = RabbitMQ(LOCAL / "rabbitmq", free_port())
        broker.start()
        os.environ["RABBITMQ_URL"] = broker.url
    try:
        return serve(commands(options), options.service)
    finally:
        if broker is not None:
            broker.stop()


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command line of each process, by name."""
    for name, port in (("A", options.port_a), ("B", options.port_b)):
        if options.service in (None, name.lower()):
            print(f"{name} is at http://127.0.0.1:{port}/")
    return {
        "a": django(A, "runserver", "--noreload", str(options.port_a)),
        "b": django(B, "runserver", "--noreload", str(options.port_b)),
        "b-listens": django(B, "run_consumer", "mq_test"),
        "b-serves": django(B, "serve", "rpc_test_queue"),
    }


def serve(commands: dict[str, list[str]], only: str | None) -> int:
    """Run the processes of one service or both until one exits or a signal comes."""
    subprocess.run(django(B, "migrate", "--run-syncdb", "-v", "0"), check=True)
    # Creates B's queues, so that A can publish before B first runs.
    subprocess.run(django(B, "topology", "apply"), check=True)
    manager = honcho.manager.Manager()
    for name, command in commands.items():
        if name.startswith(only or ""):
            manager.add_process(name, f"exec {shlex.join(command)}")
    # honcho raises it on a signal that comes before every process has started.
    with suppress(KeyError):
        manager.loop()
    signals = {info["rc"] for info in honcho.manager.SIGNALS.values()}
    return 0 if manager.returncode in signals else manager.returncode or 0


def django(settings: str, name: str, *arguments: str) -> list[str]:
    """Return the command line of a Django command."""
    return [sys.executable, "-m", "django", name, "--settings", settings, *arguments]


if __name__ == "__main__":
    sys.exit(main())
