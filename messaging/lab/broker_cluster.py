"""A cluster of private RabbitMQ nodes on this machine."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from subprocess import CalledProcessError
from typing import Self

from .processes import free_ports
from .proxy import Proxy
from .server import START_DEADLINE, Server, ServerError, own_secret
from .servers import RabbitMQ, epmd

#: Seconds after which a silent node counts as down for the others.
TICK = 10
#: Seconds for a node that was cut off or frozen to find the others by itself.
REJOIN_DEADLINE = 20
#: EPMD's request to register a name, and the kind, protocol and versions of a node.
ALIVE, NORMAL_NODE, TCP, VERSIONS = 120, 77, 0, (6, 5)


class Epmd(Server):
    """
    Tells one node by which port it reaches each of the others: through a proxy.

    It outlives its node.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._registered: list[socket.socket] = []

    def launch(self) -> None:
        self.spawn(epmd(self.port))

    def ping(self) -> None:
        """Do nothing: it has accepted a connection."""

    def register(self, node: str, port: int) -> None:
        """Say that another node listens on a port, until this process ends."""
        name = node.partition("@")[0].encode()
        said = struct.pack(
            "!BHBBHHH", ALIVE, port, NORMAL_NODE, TCP, *VERSIONS, len(name)
        )
        said += name + b"\0\0"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        connection.sendall(struct.pack("!H", len(said)) + said)
        if connection.recv(2)[1:] != b"\0":
            raise ServerError(f"epmd does not register {node}.")
        self._registered.append(connection)  # it forgets the name when this is closed

    def _end(self, patience: float) -> None:
        while self._registered:
            self._registered.pop().close()
        super()._end(patience)


class Node(RabbitMQ):
    """A node, which joins the first one of its cluster at its first start."""

    port_names = ("port", "distribution")
    schedulers = 1

    def __init__(self, directory: Path, port: int, secret: str) -> None:
        super().__init__(directory, port)
        self._secret = secret
        self.epmd = Epmd(self.directory / "epmd")
        #: The nodes of the cluster, itself included.
        self.members: list[str] = []
        #: The proxies between it and each of the others, in both directions.
        self.ways: list[Proxy] = []
        self.is_isolated = False

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

    @property
    def is_frozen(self) -> bool:
        """Whether `pause` has suspended it."""
        return self.is_running and self.process.status() == "stopped"

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
        """Do nothing: its own runs already, and knows the other nodes."""

    def start(self) -> None:
        """Start it, and keep the log of its earlier life."""
        if not self.is_running and self.log.exists():
            with self._earlier.open("ab") as earlier:
                earlier.write(self.log.read_bytes())
        super().start()

    @property
    def _earlier(self) -> Path:
        return self.directory / "earlier.log"

    def lines(self) -> list[str]:
        """Return all that it has ever logged."""
        logs = [one for one in (self._earlier, self.log) if one.exists()]
        return [
            line
            for one in logs
            for line in one.read_text(errors="replace").splitlines()
        ]

    def isolate(self) -> None:
        """Let nothing pass between it and the others, as if a cable were cut."""
        self.is_isolated = True
        for way in self.ways:
            way.freeze()

    def reconnect(self) -> None:
        """Let it reach the others again after `isolate`."""
        self.is_isolated = False
        for way in self.ways:
            way.thaw()


class BrokerCluster:
    """
    Nodes of one cluster, which can be killed, paused, isolated and started again.

    They reach each other through proxies, one for each node and direction.
    """

    def __init__(self, directory: Path, ports: Sequence[int] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        secret = own_secret(directory / "password")
        self.nodes = [
            Node(directory / f"node-{number}", port, secret)
            for number, port in enumerate(ports or free_ports(3), 1)
        ]
        for node in self.nodes:
            node.members = [one.node for one in self.nodes]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start all nodes, and return once they answer."""
        ports = iter(free_ports(len(self.nodes) * (len(self.nodes) + 1)))
        for node in self.nodes:
            node.ports["distribution"] = next(ports)
            node.ports["epmd"] = node.epmd.ports["port"] = next(ports)
            node.epmd.start()
        for node, other in permutations(self.nodes, 2):
            port = next(ports)
            way = Proxy(port, other.ports["distribution"])
            way.start()
            node.epmd.register(other.node, port)
            node.ways.append(way)
            other.ways.append(way)
        first, *others = self.nodes
        first.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, others))

    def kill(self) -> None:
        """Kill all nodes, like a crash of each."""
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.epmd.kill()
            for way in node.ways:
                way.stop()

    @property
    def url(self) -> str:
        """The addresses of all nodes."""
        return ",".join(node.url for node in self.nodes)

    def restore(self) -> None:
        """
        Bring every node back, and return once they serve as one cluster.

        One that does not find the others in time is restarted, as an operator would:
        RabbitMQ 3.10 may stay apart after it was frozen.
        """
        absent = [one for one in self.nodes if one.is_frozen or one.is_isolated]
        for node in self.nodes:
            if node.is_frozen:
                node.resume()
            node.reconnect()
            node.start()
        if absent and not self._is_complete(REJOIN_DEADLINE):
            for node in absent:
                node.stop()
                node.start()
        if not self._is_complete(START_DEADLINE):
            raise ServerError("The nodes do not find each other again.")

    def _is_complete(self, patience: float) -> bool:
        """Return whether all nodes see each other within so many seconds."""
        deadline = time.monotonic() + patience
        while not all(map(self._sees_all, self.nodes)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def _sees_all(self, node: Node) -> bool:
        with suppress(CalledProcessError):  # it is about to start
            status = json.loads(node.control("cluster_status", "--formatter", "json"))
            return len(status["running_nodes"]) == len(self.nodes)
        return False

    def leader(self, queue: str) -> Node:
        """Return the node of the leader of a quorum queue, or of a classic queue."""
        living = [one for one in self.nodes if one.is_running and not one.is_frozen]
        return next(node for node in living if queue in node.lengths())
