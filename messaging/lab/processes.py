"""Processes and ports of this machine: finding, recognising, ending. Needs psutil."""

import os
import random
import shutil
import socket
import time
from contextlib import suppress

import psutil

#: Below the ephemeral range, so that no client's own socket can take a server's port
#: while the server is down.
PORTS = range(20_000, 32_000)
#: Debian keeps servers in the last two, off the PATH of ordinary users.
PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
#: Seconds a killed process may take to be gone.
KILL_DEADLINE = 10


def find_program(*names: str) -> str | None:
    """The path of the first of these programs that is installed."""
    paths = (shutil.which(name, path=PROGRAM_PATH) for name in names)
    return next(filter(None, paths), None)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of a server that has just left do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def free_port() -> int:
    return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(port))


def identity(pid: int) -> list[float]:
    """A pid and its process's creation: pids are given again, pairs are not."""
    with suppress(psutil.NoSuchProcess):
        return [pid, psutil.Process(pid).create_time()]
    return [pid, 0]


def find(pid: int, created: float) -> psutil.Process | None:
    """The process of this identity, if it still lives."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # A clock that is set moves all creation times a little.
        if abs(process.create_time() - created) < 2:
            return process
    return None


def end(process: psutil.Process, patience: float) -> None:
    """Have the process leave within seconds, or kill it; kill its children anyway."""
    family = [process]
    with suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
    with suppress(psutil.NoSuchProcess):
        if patience:
            process.terminate()
            process.resume()
            wait([process], patience)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    wait(family, KILL_DEADLINE)


def wait(processes: list[psutil.Process], patience: float) -> None:
    """Return when all have ended, or after so many seconds."""
    deadline = time.monotonic() + patience
    while any(map(lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)


def lives(process: psutil.Process) -> bool:
    """A dead process waiting for its parent, which may take long, has ended too."""
    if isinstance(process, psutil.Popen):
        return process.poll() is None
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
