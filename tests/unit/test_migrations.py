"""Migrations that processes of the release before survive."""

from __future__ import annotations

import pytest
from django.db import migrations
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED

#: The last migrations of 0.2.0: those since then run beside older processes.
OLD = {"messaging": "0008", "users": "0002", "reports": "0004", "project": "0000"}
LOADER = MigrationLoader(None, ignore_no_migrations=True)
RECENT = [
    one
    for (app, name), one in sorted(LOADER.disk_migrations.items())
    if name[:4] > OLD.get(app, "9999")
]


def breaks(operation: object) -> bool:
    """Return whether older processes could not insert or read rows any more."""
    if isinstance(operation, migrations.AddField):
        field = operation.field
        has_default = field.db_default is not NOT_PROVIDED
        return not (field.null or field.many_to_many or has_default)
    return isinstance(
        operation,
        migrations.RenameField | migrations.RenameModel | migrations.AlterModelTable,
    )


@pytest.mark.parametrize("migration", RECENT, ids=str)
def test_older_processes_go_on_after_a_migration(
    migration: migrations.Migration,
) -> None:
    assert [str(one) for one in migration.operations if breaks(one)] == []
