"""Celery as a way to apply messages: its tasks carry what a message would."""

from __future__ import annotations

from collections.abc import Iterable

from messaging.envelope import Envelope

from .baselines import celery_app
from .broker import CLASSIC
from .messages import row_of
from .ways import PROGRAMS, Baseline

COMMAND = [
    "--app",
    f"{PROGRAMS}.celery_app",
    "worker",
    "--concurrency=1",
    "--loglevel=WARNING",
    "--without-gossip",
    "--without-mingle",
]


class CeleryTasks(Baseline):
    """A worker with one process for tasks, beside its main process."""

    def __init__(self) -> None:
        super().__init__(
            "Celery",
            "celery",
            celery_app.QUEUE,
            differs="classic queue, prefork with 1 process, acks_late, SQLAlchemy, "
            "a commit a task",
            command=COMMAND,
            share=0.25,
            arguments=CLASSIC,
        )

    def publish(self, envelopes: Iterable[Envelope]) -> None:
        """Send a task for each message."""
        with celery_app.app.producer_pool.acquire(block=True) as producer:
            for envelope in envelopes:
                _, body = row_of(envelope)
                celery_app.create_user.apply_async([body], producer=producer)
