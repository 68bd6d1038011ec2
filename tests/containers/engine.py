"""
What runs containers: podman with images of its own, or docker.

Podman keeps images, containers and networks in a folder that is deleted at the end:
those of the machine are neither seen nor changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import BASE

STORE = BASE / ".local" / "containers"
NEEDED = (
    "podman", "podman-compose", "runc", "netavark", "aardvark-dns", "iptables",
    "debootstrap",
)  # fmt: skip
#: For machines without systemd, and for sandboxes that allow few rights. crun refuses
#: some mixtures of cgroups; nobody may raise limits beyond those of this process.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "{store}/networks"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{store}/storage"
runroot = "{store}/run"
"""


def run(*command: str, **options: Any) -> str:
    """Run a command, and return what it prints; ends the program if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        told = (done.stdout + done.stderr)[-4000:]
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{told}")
    return done.stdout


def eventually(condition: Callable[[], Any], what: str, seconds: float) -> Any:
    """Wait until a condition holds; ends the program if it does not in time."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            sys.exit(f"Not within {seconds:.0f} s: {what}")
        time.sleep(0.3)
    return result


class Docker:
    """The engine with all that compose files can say."""

    program, composer, separator = "docker", ("docker", "compose"), "-"

    def __init__(self) -> None:
        self.environment = dict(os.environ)

    def __call__(self, *command: str) -> str:
        return run(self.program, *command, env=self.environment)

    def answers(self, *command: str) -> bool:
        """Return whether a command succeeds."""
        command = (self.program, *command)
        done = subprocess.run(command, capture_output=True, env=self.environment)
        return done.returncode == 0

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what is known of a container or an image."""
        found: dict[str, Any] = json.loads(self("inspect", name))[0]
        return found

    def is_healthy(self, name: str) -> bool:
        """Return whether the last health check succeeded."""
        return bool(self.inspect(name)["State"]["Health"]["Status"] == "healthy")

    def close(self) -> None:
        """Leave nothing behind."""


class Podman(Docker):
    """Podman as root; without systemd, it runs no health checks by itself."""

    program, separator = "podman", "_"
    composer = (str(Path(sys.executable).with_name("podman-compose")),)

    def __init__(self) -> None:
        super().__init__()
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        places = f"{path}:/usr/lib/podman:{Path(sys.executable).parent}"
        missing = [name for name in NEEDED if not shutil.which(name, path=places)]
        if os.geteuid():
            missing.append("the rights of root")
        if missing:
            sys.exit(
                f"Missing: {', '.join(missing)}. "
                "As root on Debian, `./project/setup.sh containers` installs all."
            )
        STORE.mkdir(parents=True, exist_ok=True)
        for name, text in (("containers", CONTAINERS_CONF), ("storage", STORAGE_CONF)):
            path = STORE / f"{name}.conf"
            path.write_text(text.format(store=STORE))
        self.environment |= {
            "PATH": path,
            "CONTAINERS_CONF": str(STORE / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(STORE / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "BUILDAH_FORMAT": "docker",  # the other has no health checks
            "PODMAN_COMPOSE_IN_POD": "false",
            "DISABLE_HC_SYSTEMD": "true",
        }
        # What a killed run has left.
        self("rm", "--all", "--force", "--volumes")
        self("volume", "prune", "--force")

    def is_healthy(self, name: str) -> bool:
        return self.answers("healthcheck", "run", name)

    def close(self) -> None:
        self("rm", "--all", "--force", "--volumes")
        self("rmi", "--all", "--force")
        shutil.rmtree(STORE)


class Compose:
    """One project of compose files."""

    def __init__(self, engine: Docker, name: str, *files: str, **variables: str):
        self.engine, self.name = engine, name
        self.files = [part for one in files for part in ("-f", one)]
        self.variables = variables

    def __call__(self, *command: str) -> str:
        return run(
            *self.engine.composer, "-p", self.name, *self.files, *command,
            cwd=BASE, env=self.engine.environment | self.variables,
        )  # fmt: skip

    def container(self, service: str, number: int = 1) -> str:
        """Return the name of a container."""
        return self.engine.separator.join((self.name, service, str(number)))

    def manage(self, *command: str) -> str:
        """Run a command of `manage.py` in the API's container."""
        return self("exec", "-T", "api", "python", "manage.py", *command)

    def up(self, *services: str) -> None:
        """Start services, and not what they depend on."""
        self("up", "--detach", "--no-deps", "--no-build", *services)

    def start(self, *services: str) -> None:
        """
        Start the servers, `setup`, then these services: what `up --detach` does.

        Podman waits for health checks from 4.6 on only, and would run `setup` again
        before each service that depends on it.
        """
        servers = ("rabbitmq", "mysql", "mongodb")
        self.up(*servers)
        for one in servers:
            self.wait_for(one)
        self.up("setup")
        setup = self.container("setup")
        code = self.engine("wait", setup).strip()
        if code != "0":
            sys.exit(f"setup ended with {code}:\n{self('logs', 'setup')}")
        for one in services:
            self.up(one)
        self.wait_for("api")

    def wait_for(self, service: str) -> None:
        """Wait until a service is healthy; shows what it has logged if it is not."""
        name = self.container(service)
        try:
            eventually(lambda: self.engine.is_healthy(name), f"{name} is healthy", 120)
        except SystemExit:
            subprocess.run(
                (self.engine.program, "logs", "--tail", "50", name),
                env=self.engine.environment,
            )
            raise
