"""Processes that serve functions of the project `tests.support.calls`."""

from __future__ import annotations

import subprocess

import pika

from messaging import NoServer, call

from .broker import Broker
from .processes import Processes
from .waiting import eventually

ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.support.calls.settings"}


class Servers:
    """Server processes."""

    def __init__(self) -> None:
        self.processes = Processes()
        self.broker = Broker()

    def start(self, *names: str, threads: int = 4) -> subprocess.Popen[bytes]:
        """Start one more server of each function, and wait until it consumes."""
        before = [self.consumers(name) for name in names]
        process = self.processes.manage(
            "serve", *names, "--threads", str(threads), **ENVIRONMENT
        )
        for name, count in zip(names, before, strict=True):
            eventually(
                lambda name=name, count=count: self.consumers(name) > count,
                f"{name} is served",
                20,
            )
        return process

    def consumers(self, queue: str) -> int:
        """Return the number of consumers of a queue."""
        with self.broker.channel() as channel:
            try:
                declared = channel.queue_declare(queue, passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return 0
            count: int = declared.method.consumer_count
            return count

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Stop a server with SIGTERM; return its exit code."""
        return self.processes.stop(process)


def is_served(name: str) -> bool:
    """Return whether a function that returns its own name is served under it."""
    try:
        return bool(call(name, timeout=5) == name)
    except NoServer:
        return False
