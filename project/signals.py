"""What happens after migrations, when accounts are deleted, and when a login fails."""

from __future__ import annotations

import logging
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, Permission
from django.db import router

from messaging.amqp.tally import tally

from .models import Revocation

logger = logging.getLogger(__name__)


def log_failed_login(**_: Any) -> None:
    """Log and count that a password was wrong. Who tried it is personal data."""
    logger.warning("A login failed")
    tally.count_rejected("failed login")


def revoke_tokens(instance: Any, **_: Any) -> None:
    """Revoke the tokens of an account that was deleted."""
    Revocation.objects.revoke(f"account:{instance.pk}")


def create_groups(sender: AppConfig, using: str, **_: Any) -> None:
    """Give each role a group with the permissions that the table of roles says."""
    if sender.name != "project" or using != router.db_for_write(Group):
        return
    # Here, as it loads the API, which no other command needs.
    from .access import RIGHTS

    known = Permission.objects.using(using).select_related("content_type")
    by_name = {f"{one.content_type.app_label}.{one.codename}": one for one in known}
    for role, rights in RIGHTS.items():
        group, _created = Group.objects.using(using).get_or_create(name=role)
        found = [by_name[name] for name in rights.permissions if name in by_name]
        group.permissions.set(found)
