"""A Celery task that creates a user, acknowledged after its commit."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

QUEUE = "celery_users"

app = Celery("users", broker=os.environ["RABBITMQ_URL"])
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    task_create_missing_queues=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)


@app.task(name="users.create")
def create_user(body: dict[str, Any]) -> None:
    # The process that publishes tasks has no use for the database.
    from .storage import save_user

    save_user(body)
