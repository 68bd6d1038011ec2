"""A Celery application whose task writes to the database itself."""

import os

import django
from celery import Celery
from django.db import transaction

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()

from django.utils import timezone

from users.models import User, UserLedger

app = Celery("shop", broker=os.environ["RABBITMQ_URL"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="register_user")
def register_user(**fields: str) -> None:
    """Insert a user."""
    with transaction.atomic():
        user = User.objects.create(fecha_creacion=timezone.now(), **fields)
        UserLedger.objects.begin([user.pk], [""])
