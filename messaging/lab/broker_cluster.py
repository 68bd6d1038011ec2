"""A cluster of private RabbitMQ nodes on this machine."""

from __future__ import annotations

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Self

from .processes import free_port
from .server import START_DEADLINE, Server, ServerError
from .servers import RabbitMQ, epmd

#: Seconds after which a silent node counts as down for the others.
TICK = 10


class Epmd(Server):
    """Tells the nodes each other's ports; it outlives each of them."""

    def launch(self) -> None:
        self.spawn(epmd(self.port))

    def ping(self) -> None:
        """Do nothing: it has accepted a connection."""


class Node(RabbitMQ):
    """A node, which joins the first one of its cluster at its first start."""

    port_names = ("port", "distribution")

    def __init__(self, directory: Path, secret: str, epmd: int) -> None:
        super().__init__(directory, free_port())
        self._secret = secret
        self.ports["epmd"] = epmd
        #: The nodes of the cluster, itself included.
        self.members: list[str] = []

    @property
    def configuration(self) -> list[str]:
        return [
            *super().configuration,
            # A node without a majority ends its connections; it would go on by itself.
            "cluster_partition_handling = pause_minority",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(
                f"cluster_formation.classic_config.nodes.{number} = {name}"
                for number, name in enumerate(self.members, 1)
            ),
        ]

    @property
    def password(self) -> str:
        """The password, which all nodes have in common."""
        return self._secret

    def write_cookie(self) -> None:
        """Write the cookie, which all nodes have in common."""
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text(self._secret)
            cookie.chmod(0o400)

    def launch(self) -> None:
        advanced = self.directory / "advanced.config"
        advanced.write_text(f"[{{kernel, [{{net_ticktime, {TICK}}}]}}].\n")
        super().launch()

    def spawn_epmd(self) -> None:
        """Do nothing: the nodes share one."""


class BrokerCluster:
    """Nodes of one cluster, each of which can be killed, paused and started again."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        self._epmd = Epmd(directory / "epmd", free_port())
        secret = secrets.token_hex(16)
        self.nodes = [
            Node(directory / f"node-{number}", secret, self._epmd.port)
            for number in range(size)
        ]
        for node in self.nodes:
            node.members = [one.node for one in self.nodes]

    def __enter__(self) -> Self:
        self._epmd.start()
        first, *others = self.nodes
        first.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, others))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for node in self.nodes:
            node.kill()
        self._epmd.stop()

    @property
    def url(self) -> str:
        """The addresses of all nodes."""
        return ",".join(node.url for node in self.nodes)

    def restore(self) -> None:
        """
        Start every node, and return once they serve as one cluster.

        A frozen one is killed first: RabbitMQ 3.10 may stay apart after its return.
        """
        for node in self.nodes:
            if node.is_running and node.process.status() == "stopped":
                node.kill()
        for node in self.nodes:
            node.start()
        deadline = time.monotonic() + START_DEADLINE
        while not all(map(self._is_complete, self.nodes)):
            if time.monotonic() > deadline:
                raise ServerError("The nodes do not find each other again.")
            time.sleep(0.5)

    def _is_complete(self, node: Node) -> bool:
        """Whether all nodes are running, as this one sees it."""
        with suppress(CalledProcessError):  # it is about to start
            status = json.loads(node.control("cluster_status", "--formatter", "json"))
            return len(status["running_nodes"]) == len(self.nodes)
        return False

    def leader(self, queue: str) -> Node:
        """Return the node of the leader of a quorum queue, or of a classic queue."""
        lines = self._living().control("list_queues", "name", "pid").splitlines()
        pid = next(line.split()[1] for line in lines if line.split()[0] == queue)
        return next(node for node in self.nodes if node.node in pid)

    def _living(self) -> Node:
        return next(
            node
            for node in self.nodes
            if node.is_running and node.process.status() != "stopped"
        )
