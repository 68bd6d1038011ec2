"""Ids in the inbox that include the queue, and the last messages without an id."""

import uuid

from django.db import migrations, models

from messaging.envelope import inbox_id
from messaging.message import Event
from messaging.received import Received
from messaging.registry import handlers

#: Rows that are changed together.
PORTION = 1000


def include_the_queue(apps, schema_editor):
    """
    Derive the ids of handled and parked commands from their queue as well.

    Those of events are derived so already. A row whose message has no known type, or
    whose id was no UUID, keeps its id: that message can no longer be recognised.
    """
    using = schema_editor.connection.alias
    queues = {
        event_type: queue
        for queue, types in handlers.items()
        for event_type, handler in types.items()
        if not issubclass(handler.message, Event | Received)
    }
    for name in ("Inbox", "Parked"):
        rows = apps.get_model("messaging", name).objects.using(using)
        for event_type, queue in queues.items():
            ids = set(
                rows.filter(event_type=event_type).values_list("message_id", flat=True)
            )
            for old in ids:
                if is_random(old):
                    rows.filter(message_id=old).update(message_id=inbox_id(queue, old))


def is_random(text):
    try:
        return uuid.UUID(text).version == 4
    except ValueError:
        return False


class Migration(migrations.Migration):

    dependencies = [("messaging", "0002_dead_letters_as_rows")]

    operations = [
        migrations.CreateModel(
            name='LastNameless',
            fields=[
                ('key', models.CharField(max_length=32, primary_key=True, serialize=False)),
                ('queue', models.CharField(db_index=True, max_length=255)),
                ('body', models.CharField(max_length=32)),
                ('processed_at', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('key', models.CharField(max_length=36, primary_key=True, serialize=False)),
                ('owner', models.CharField(max_length=36)),
                ('used_at', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.RemoveField(
            model_name='deadletter',
            name='replay_id',
        ),
        migrations.RunPython(include_the_queue, migrations.RunPython.noop, elidable=True),
    ]
