"""Which model lives in which database."""

from __future__ import annotations

from typing import Any

from django.db.models import Model


class ReportsRouter:
    """
    Report lives in MongoDB, everything else in MySQL.

    Every answer is final, so that no table of one is ever made in the other.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        """Give the alias of a model's database."""
        return alias_of(model._meta.app_label, model._meta.model_name)

    db_for_write = db_for_read

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool:
        """Whether a model's tables are made in a database."""
        return db == alias_of(app_label, model_name)


def alias_of(app_label: str, model_name: str | None) -> str:
    """Give the alias of the database a model lives in."""
    is_report = (app_label, model_name) == ("reports", "report")
    return "reports" if is_report else "default"
