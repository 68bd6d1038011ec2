"""Erasing what is kept about the author of reports, besides the reports themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Any

from django.core.files.storage import default_storage
from django.db import connections
from django.db.models import Q

from messaging.erasure.traces import Traces

from .files import name_of, remove_file
from .models import DailyCount, Notification, ReportFile, ReportLedger
from .mongodb import django_errors
from .notifications import mailbox_of


def erase_author(user_id: int | None, emails: list[str]) -> Counter[str]:
    """Erase e-mails, counts and files of an author; return the numbers by place."""
    ids = reports_of(user_id)
    mails = Notification.objects.filter(pk__in=ids)
    for email in emails:
        mails |= Notification.objects.filter(recipient__iexact=email)
    numbers = {
        "reports_notification": mails.delete()[0],
        "reports_dailycount": counts_of(user_id, emails).delete()[0],
        "files of reports": sum(map(erase_file, ids)),
    }
    return Counter({place: number for place, number in numbers.items() if number})


def reports_of(user_id: int | None, **only: bool) -> list[str]:
    """Return the ids of reports that a user has written: all, or `only` some."""
    if user_id is None:
        return []
    rows = ReportLedger.objects.filter(id_usuario=user_id, **only)
    return list(rows.values_list("pk", flat=True))


def counts_of(user_id: int | None, emails: list[str]) -> Any:
    """Return what was counted about an author on each day."""
    names = [f"mail of {user_id} ", f"penalty {user_id} "] if user_id else []
    names += [f"mail to {mailbox_of(email)} " for email in emails]
    if not names:
        return DailyCount.objects.none()
    return DailyCount.objects.filter(
        reduce(or_, (Q(key__startswith=name) for name in names))
    )


def erase_file(id_reporte: str) -> bool:
    """Remove the file of a report; return whether there was one."""
    is_known = ReportFile.objects.filter(pk=id_reporte).exists()
    existed = is_known or default_storage.exists(name_of(id_reporte))
    remove_file(id_reporte)
    return existed


def search_documents(traces: Traces) -> Counter[str]:
    """Return how many documents of each collection have something of a person."""
    database: Any = connections["reports"]
    database.ensure_connection()
    found: Counter[str] = Counter()
    with django_errors():
        for name in database.database.list_collection_names():
            documents: Iterator[Any] = database.database[name].find()
            found[f"MongoDB {name}"] = sum(map(traces.may_be_in, documents))
    return +found
