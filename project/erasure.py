"""Erasing a person from all that this project keeps, and searching for what is left."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.core.validators import validate_email
from django.db.models import Q

from messaging.erasure.search import search_tables
from messaging.erasure.tables import blank, rows_with
from messaging.erasure.traces import Traces
from messaging.models import Inbox
from reports.erasure import erase_author, search_documents
from reports.models import ReportLedger
from users.commands import normalise_email
from users.models import User, UserLedger

#: What stands for a text that was erased.
ERASED = "[erased]"
#: Characters of a text that identifies a person.
SHORTEST = 6
#: Fields of the log of logins that hold what was entered.
ENTERED = ("username", "user_agent", "path_info", "get_data", "post_data")
UNREACHABLE = (
    "backups of the databases, and binary logs from which they can be restored",
    "e-mails that were sent, and what their recipients have kept",
    "log lines that were written or shipped (addresses are masked in them)",
    "logs of a proxy, and bodies of requests that it keeps on disk meanwhile",
    "what other programs have received: events, outcomes, replies, and their queues",
    "what running processes have in memory, and bodies that they have spooled to disk",
    "copies of report files that clients have downloaded",
)


@dataclass(frozen=True, slots=True)
class Person:
    """A user, who may be deleted already, and by what he is found."""

    user_id: int | None
    emails: list[str]
    traces: Traces

    @property
    def exists(self) -> bool:
        """Whether there is such a user."""
        return User.objects.filter(pk=self.user_id or 0).exists()


def find_person(who: str, texts: Iterable[str] = ()) -> Person:
    """
    Return the person with a user id or an e-mail.

    `texts` identify him as well, such as former addresses. Raises `ValueError` for what
    identifies nobody.
    """
    user_id = int(who) if who.isdecimal() else None
    check(who, user_id, texts)
    given = [] if user_id else [normalise_email(who)]
    user = User.objects.filter(Q(pk=user_id) if user_id else Q(email=given[0])).first()
    if user is not None:
        user_id = user.pk
        given.append(normalise_email(user.email))
    elif user_id is None:
        user_id = id_in_inbox(given[0])
    emails = sorted({*given, *(normalise_email(one) for one in texts if "@" in one)})
    keys = [f"email:{email}" for email in emails]
    keys += [f"user:{user_id}"] if user_id else []
    names = (user.nombre, user.apellido) if user else ()
    return Person(user_id, emails, Traces((*emails, *texts), tuple(keys), names))


def check(who: str, user_id: int | None, texts: Iterable[str]) -> None:
    """Raise `ValueError` for what identifies nobody: it would erase too much."""
    if user_id is None:
        try:
            validate_email(who)
        except ValidationError:
            raise ValueError(f"{who!r} is neither a user id nor an e-mail.") from None
    elif not UserLedger.objects.filter(pk=user_id).exists():
        raise ValueError(f"There has never been a user {user_id}.")
    if short := [one for one in texts if len(one.strip()) < SHORTEST]:
        raise ValueError(f"{short[0]!r} is too short to identify a person.")


def id_in_inbox(email: str) -> int | None:
    """Return the id that a user had got, while the inbox remembers it."""
    done = Inbox.objects.filter(key=f"email:{email}", status=Inbox.Status.DONE)
    reference = done.values_list("reference", flat=True).first()
    return int(reference) if reference and reference.isdecimal() else None


def erase(person: Person, by: str) -> Counter[str]:
    """Erase all but the user and the reports; return the numbers by place."""
    traces = person.traces
    found = blank(traces, by) + erase_author(person.user_id, person.emails)
    found["django_admin_log"] = blank_log(person)
    for model in (AccessAttempt, AccessFailureLog, AccessLog):
        names = {field.name for field in model._meta.fields}
        rows = model.objects.all()
        about = rows_with(rows, traces, *names.intersection(ENTERED))
        found[model._meta.db_table] = rows.filter(pk__in=about).delete()[0]
    for ledger in (UserLedger, ReportLedger):
        rows = ledger.objects.all()
        rows = rows.filter(pk__in=rows_with(rows, traces, "changed_by"))
        found[ledger._meta.db_table] = rows.update(changed_by=ERASED)
    # Another person may have the same name.
    for path in files_with(replace(traces, names=()), mail_folders()):
        path.unlink(missing_ok=True)
        found["files of e-mails"] += 1
    return +found


def blank_log(person: Person) -> int:
    """Blank what the admin's log says about a person; who did what, and when, stays."""
    user = ContentType.objects.get_for_model(User)
    texts = ("object_repr", "change_message")
    about = Q(pk__in=rows_with(LogEntry.objects.all(), person.traces, *texts))
    if person.user_id:
        about |= Q(content_type=user, object_id=str(person.user_id))
    rows = LogEntry.objects.filter(about).exclude(object_repr=ERASED)
    return rows.update(object_repr=ERASED, change_message="")


def search(person: Person) -> Counter[str]:
    """Return in how many rows, documents and files of each place something is left."""
    found = search_tables("default", person.traces)
    found += search_documents(person.traces)
    for folder in mail_folders():
        number = sum(1 for _ in files_with(person.traces, [folder]))
        found[f"files in {folder.name}"] += number
    found["files in the storage"] = sum(
        person.traces.may_be_in(content) for content in stored_files()
    )
    return +found


def mail_folders() -> list[Path]:
    """Return the folder of e-mails that are files, if there is one."""
    folder = getattr(settings, "EMAIL_FILE_PATH", None)
    return [Path(folder)] if folder else []


def files_with(traces: Traces, folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files below some folders that have something of a person."""
    for top in folders:
        for folder, _, names in os.walk(top):
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    if traces.may_be_in(path.read_bytes()):
                        yield path


def stored_files(folder: str = "") -> Iterator[bytes]:
    """Yield the content of every file in the storage, wherever that is."""
    try:
        folders, names = default_storage.listdir(folder)
    except FileNotFoundError:  # nothing was stored yet, or it was removed meanwhile
        return
    for name in names:
        with (
            suppress(FileNotFoundError),
            default_storage.open(f"{folder}{name}") as file,
        ):
            yield file.read()
    for one in folders:
        yield from stored_files(f"{folder}{one}/")
