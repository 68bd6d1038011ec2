"""Processes and ports of this machine. Needs psutil."""

import os
import random
import shutil
import socket
import time
from contextlib import suppress
from itertools import islice

import psutil

#: Below the ephemeral range, so that no client socket can take the port of a server
#: that is down.
PORTS = range(20_000, 32_000)
#: Debian installs servers in the last two, which are not in the PATH of users.
PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
#: Seconds to wait until a killed process has ended.
KILL_DEADLINE = 10


def find_program(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed, or None."""
    paths = (shutil.which(name, path=PROGRAM_PATH) for name in names)
    return next(filter(None, paths), None)


def is_free(port: int) -> bool:
    """Return whether no process listens on a port."""
    with socket.socket() as probe:
        # Ignores connections that a stopped server has left in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def free_port() -> int:
    """Return a random free port."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return so many different free ports, at random."""
    shuffled = random.sample(PORTS, len(PORTS))
    return list(islice(filter(is_free, shuffled), count))


def identity(pid: int) -> list[float]:
    """Return pid and creation time of a process: pids are reused, pairs are not."""
    with suppress(psutil.NoSuchProcess):
        return [pid, psutil.Process(pid).create_time()]
    return [pid, 0]


def find(pid: int, created: float) -> psutil.Process | None:
    """Return the process with this identity, or None if it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # Adjusting the clock changes the creation times a little.
        if abs(process.create_time() - created) < 2:
            return process
    return None


def end(process: psutil.Process, patience: float) -> None:
    """Terminate a process and kill it after `patience` seconds, and its children."""
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
    """Return when all processes have ended, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    while any(map(lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)


def lives(process: psutil.Process) -> bool:
    """Return whether a process still runs; a zombie does not."""
    if isinstance(process, psutil.Popen):
        return process.poll() is None
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
