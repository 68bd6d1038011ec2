"""Faults of a cluster: a node is away for a while, or everything is restarted."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import ClassVar

from messaging import topology
from messaging.registry import handlers

from .broker_cluster import BrokerCluster, Node
from .faults import Faults
from .program import Program

#: Seconds for which a node is away.
AWAY = 15.0
#: What happens to one node, and rolling restarts: one part after the other.
NODE_FAULTS = ("kill leader", "stop node", "hang node", "isolate node")
RESTARTS = ("restart nodes", "restart programs")


class NodeFaults(Faults):
    """Each kind in turn, one at a time, at equal intervals."""

    spread: ClassVar[tuple[float, float]] = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._turns = cycle(self.kinds)

    def _is_possible(self, kind: str) -> bool:
        return kind in (*NODE_FAULTS, *RESTARTS)

    @property
    def cluster(self) -> BrokerCluster:
        """The nodes."""
        assert self.system.cluster
        return self.system.cluster

    def restart_exited(self) -> None:
        """Restart the programs that have exited by themselves."""
        if "cluster" not in self._busy:
            super().restart_exited()

    def _break_something(self) -> None:
        if self._busy:
            return
        kind = next(self._turns)
        if kind in RESTARTS:
            restart = self._restart_nodes if "nodes" in kind else self._restart_programs
            self._begin(kind, "cluster", restart)
            return
        nodes = self._random.sample(self.cluster.nodes, len(self.cluster.nodes))
        node = nodes[0]
        if kind == "kill leader":
            node = next(one for one in nodes if leads(one))
        number = self.cluster.nodes.index(node) + 1
        harm = {
            "kill leader": node.kill,
            "stop node": node.stop,
            "hang node": node.pause,
            "isolate node": node.isolate,
        }[kind]
        self._begin(f"{kind} {number}", f"node {number}", partial(self._harm, harm))

    def _harm(self, harm: Callable[[], None], name: str, share: float) -> None:
        back_at = time.monotonic() + AWAY
        harm()
        time.sleep(max(0.0, back_at - time.monotonic()))
        self.cluster.restore()

    def _restart_nodes(self, name: str, share: float) -> None:
        for node in self.cluster.nodes:
            node.stop()
            self.cluster.restore()

    def _restart_programs(self, name: str, share: float) -> None:
        for program in self.system.programs:
            if program in self.system.apis:
                self._replace_api(program)
            else:
                program.stop()
                program.start()

    def _replace_api(self, program: Program) -> None:
        """Restart a process that serves HTTP once no new request reaches it."""
        balancer = self.system.balancer
        assert balancer
        port = self.system.plan.ports[program.name]
        draining = Path(program.environment["DRAINING_FILE"])
        draining.touch()
        balancer.wait(port, ready=False)
        program.stop()
        draining.unlink()
        program.start()
        balancer.wait(port, ready=True)


def leads(node: Node) -> bool:
    """Return whether a node leads any partition."""
    names = (name for queue in handlers for name in topology.partition_names(queue))
    return not node.lengths().keys().isdisjoint(names)
