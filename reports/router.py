"""The database of each model."""

from __future__ import annotations

from typing import Any

from django.db.models import Model


class ReportsRouter:
    """
    Report is stored in MongoDB, everything else in MySQL.

    `allow_migrate` never returns None, so no table is created in the wrong database.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        """Return the alias of a model's database."""
        return alias_of(model._meta.app_label, model._meta.model_name)

    db_for_write = db_for_read

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool:
        """Return whether a model's table belongs into a database."""
        return db == alias_of(app_label, model_name)


def alias_of(app_label: str, model_name: str | None) -> str:
    """Return the alias of the database that stores a model."""
    is_report = (app_label, model_name) == ("reports", "report")
    return "reports" if is_report else "default"
