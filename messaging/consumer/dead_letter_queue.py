"""Consuming `<queue>.dead`: messages that the broker dead-letters are archived."""

from __future__ import annotations

from messaging.amqp.publisher import Publisher
from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import answers, close_stale_connections
from messaging.dead_letters import archive
from messaging.dead_letters.letters import letter_from_queue
from messaging.topology import origin

from .batch import Processor
from .context import Batch, Part
from .policy import Step
from .retry import Decision


class Archiver(Processor):
    """Archives dead letters instead of handling messages."""

    def __init__(self, lease: HeldLease, gateway: Publisher | None = None) -> None:
        super().__init__(lease, gateway)
        lease.has_parked = False
        self._archiving = Step(self._archive, lambda: answers(settings.DATABASE))

    def process(self, batch: Batch) -> None:
        """Archive a batch; raise if a server fails."""
        close_stale_connections()
        self._policy.run(self._archiving, batch.contexts)
        self._policy.server_waits = 0

    def _archive(self, part: Part, decision: Decision | None) -> None:
        letters = [
            letter_from_queue(c.delivery.envelope, origin(self.lease.queue))
            for c in part
        ]
        if decision is not None:
            for letter in letters:
                letter.event_type, letter.properties = "", '{"headers": {}}'
        archive.store(letters)
