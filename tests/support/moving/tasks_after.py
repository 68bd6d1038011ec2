"""The same application whose task sends a message in place of writing."""

import os
from uuid import NAMESPACE_OID, uuid5

import django
from celery import Celery, Task

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from messaging import PublishError, publish
from users.commands import UserCreate

app = Celery("shop", broker=os.environ["RABBITMQ_URL"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(
    name="register_user",
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(PublishError,),
    max_retries=None,
)
def register_user(self: Task, **fields: str) -> None:
    """Send the command to create a user."""
    message_id = uuid5(NAMESPACE_OID, self.request.id)
    publish(UserCreate(**fields), message_id=str(message_id))
