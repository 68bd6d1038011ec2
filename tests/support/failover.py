"""
Replaces the primary of MariaDB twice while clients write: once while it lives, and once
because it is killed.

    manage.py shell -c "from tests.support.failover import main; main()"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from messaging.lab.broker_cluster import BrokerCluster
from messaging.lab.experiment import Experiment, Options
from messaging.lab.server import Server
from messaging.lab.system import Plan, System

from .experiments import Script, run
from .replication import Member, Pair


@dataclass(frozen=True, slots=True)
class PairPlan(Plan):
    """A plan with a primary where other plans have a single server."""

    def servers(self, cluster: BrokerCluster | None = None) -> dict[str, Server]:
        """Return the servers without the replica, not started."""
        servers = super(PairPlan, self).servers(cluster)
        own = servers["mariadb"]
        servers["mariadb"] = Member(own.directory, 1, own.port)
        return servers


class PairSystem(System):
    """A system whose database is replicated."""

    def __init__(self, plan: Plan, *programs: Any) -> None:
        super().__init__(plan, *programs)
        primary = self.servers["mariadb"]
        assert isinstance(primary, Member)
        self.pair = Pair(primary, Member(plan.directory / "replica", 2))

    def start(self) -> None:
        """Start both databases first."""
        self.pair.start()
        super().start()

    def stop(self) -> None:
        """Stop everything."""
        super().stop()
        self.pair.stop()


class Replacing(Script):
    """Replaces the primary, and then its successor."""

    def act(self) -> None:
        """Switch over, so that clients meet a server that is read-only; then kill."""
        self.pause()
        self._begin("switch over", "mariadb proxy", self._switch_over)
        self.pause(15)
        self._begin("fail over", "mariadb proxy", self._fail_over)
        self.pause(10)

    def _switch_over(self, name: str, share: float) -> None:
        assert isinstance(self.system, PairSystem)
        self.system.pair.switch_over()
        # Connections to the former primary stay.
        self.system.proxies[name].target = self.system.pair.primary.port

    def _fail_over(self, name: str, share: float) -> None:
        assert isinstance(self.system, PairSystem)
        self.system.pair.fail_over()
        self.system.proxies[name].target = self.system.pair.replica.port


class FailOver(Experiment):
    """The experiment."""

    system_class = PairSystem
    faults_class = Replacing


def main() -> None:
    """Run it, and exit with its code."""
    sys.exit(run(FailOver, PairPlan, Options(seconds=30, processes=2, rate=60)))
