from django.db import migrations

from messaging.models import OUTBOX_SHARDS


def make_shards(apps, schema_editor):
    shard = apps.get_model("messaging", "OutboxShard")
    shard.objects.using(schema_editor.connection.alias).bulk_create(
        [shard(id=number) for number in range(OUTBOX_SHARDS)], ignore_conflicts=True
    )


class Migration(migrations.Migration):
    dependencies = [("messaging", "0001_initial")]

    operations = [migrations.RunPython(make_shards, migrations.RunPython.noop)]
