"""Blanking what the tables of this package keep about a person."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from itertools import product
from operator import or_
from typing import Any

from django.db import transaction
from django.db.models import Q

from messaging.conf import settings
from messaging.dead_letters.query import portions
from messaging.dead_letters.replay import locked, partition_key
from messaging.envelope import PARTITION_KEY
from messaging.models import DeadLetter, Inbox, LastNameless, Parked
from messaging.models.dead_letter import DeadLetterPart
from messaging.models.inbox import digest_in
from messaging.models.parked import digest_of
from messaging.models.replay import KnownFailure, ReplayJob
from messaging.registry import handlers

from .traces import Traces

#: What stands for a body that was erased. It is no message: it is rejected.
NOTHING = b"{}"
#: Rows that are read at a time.
CHUNK = 200
#: What is kept of the events in the history of a dead letter.
KEPT = ("at", "what")


def blank(traces: Traces, by: str) -> Counter[str]:
    """
    Erase a person from the tables of this package; return what was blanked, by table.

    A row counts once for each field that has one of the texts.

    The rows stay, without keys, reasons, headers and bodies. A parked message about the
    person is rejected at its next attempt, and a dead letter is discarded. What waits
    in the outbox, and what is applied and only waits for its projection, has to be done
    first: it is left as it is.
    """
    noted = ("note", "noted_by")
    numbers = {
        "messaging_inbox": blank_inbox(traces),
        "messaging_lastnameless": forget_nameless(traces),
        "messaging_parked": sum(
            blank_parked(row, traces) for row in parked_about(traces)
        ),
        "messaging_deadletter": sum(blank_letters(traces, by)),
        "messaging_replayjob": blank_fields(
            ReplayJob, traces, "title", "created_by", "error"
        ),
        "messaging_knownfailure": blank_fields(KnownFailure, traces, *noted),
    }
    return Counter({table: number for table, number in numbers.items() if number})


def blank_inbox(traces: Traces) -> int:
    """Erase keys, reasons, actors and references of handled messages."""
    rows = Inbox.objects.using(settings.DATABASE).filter(key__in=traces.keys)
    number = rows.update(key="", reason="", actor="")
    return number + blank_fields(Inbox, traces, "key", "reason", "actor", "reference")


def blank_fields(model: Any, traces: Traces, *names: str) -> int:
    """Erase the fields of a model whose values have one of the texts."""
    rows, number = model._default_manager.using(settings.DATABASE), 0
    for name in names:
        number += rows.filter(pk__in=rows_with(rows, traces, name)).update(**{name: ""})
    return number


def rows_with(rows: Any, traces: Traces, *names: str) -> list[Any]:
    """Return the primary keys of those rows in which a field has one of the texts."""
    pairs = product(names, traces.texts)
    conditions = (Q(**{f"{name}__icontains": text}) for name, text in pairs)
    candidates = rows.filter(reduce(or_, conditions, Q(pk__in=[])))
    found = candidates.values_list("pk", *names)
    return [pk for pk, *values in found if any(map(traces.are_in, values))]


def forget_nameless(traces: Traces) -> int:
    """Forget the last messages of keys: a digest can be compared with a known key."""
    pairs = product(traces.keys, handlers)
    keys = [digest_in(queue, key) for key, queue in pairs]
    rows = LastNameless.objects.using(settings.DATABASE).filter(pk__in=keys)
    return rows.delete()[0]


def parked_about(traces: Traces) -> Iterator[Parked]:
    """Yield the parked messages about a person whose effect is not committed."""
    digests = {digest_of(key) for key in traces.keys}
    rows = Parked.objects.using(settings.DATABASE).filter(is_applied=False)
    for row in rows.order_by("pk").iterator(CHUNK):
        values = (row.content, row.properties, row.error, row.key, row.message_id)
        if bytes(row.body) == NOTHING and not row.key:
            continue
        if row.digest in digests or any(map(traces.are_in, values)):
            yield row


def blank_parked(row: Parked, traces: Traces) -> int:
    """Erase a parked message; its place in the order of its key stays."""
    given = json.loads(row.properties)
    ids = {name: given.get(name) for name in ("message_id", "assigned_id")}
    ids = {name: value for name, value in ids.items() if not traces.are_in(value)}
    kept = {"exchange": "", "routing_key": "", "headers": {}, **ids}
    if not any(ids.values()):
        kept |= {"message_id": None, "assigned_id": row.message_id}
    rows = Parked.objects.using(settings.DATABASE).filter(pk=row.pk, is_applied=False)
    return rows.update(
        body=NOTHING, size=len(NOTHING), properties=json.dumps(kept), key="", error=""
    )


def blank_letters(traces: Traces, by: str) -> Iterator[int]:
    """Erase dead letters, in portions; yield the number of each."""
    rows = DeadLetter.objects.using(settings.DATABASE).order_by("failed_at", "pk")
    for portion in portions(rows):
        with transaction.atomic(using=settings.DATABASE):
            letters = locked(rows.filter(pk__in=portion))
            about = [one for one in letters if is_about(one, traces)]
            for letter in about:
                blank_letter(letter, traces, by)
        yield len(about)


def is_about(letter: DeadLetter, traces: Traces) -> bool:
    """Return whether a dead letter is about a person."""
    values = (
        letter.content,
        letter.properties,
        letter.reason,
        letter.message_id,
        letter.settled_by,
        letter.history,
    )
    if any(map(traces.are_in, values)):
        return True
    headers = letter.original_properties.get("headers", {})
    key = headers.get(PARTITION_KEY) or (letter.size and partition_key(letter))
    return key in traces.keys


def blank_letter(letter: DeadLetter, traces: Traces, by: str) -> None:
    """Erase a locked dead letter, and discard it if it waits."""
    DeadLetterPart.objects.using(settings.DATABASE).filter(letter=letter).delete()
    letter.properties, letter.size, letter.reason = '{"headers": {}}', 0, ""
    if traces.are_in(letter.message_id):
        letter.message_id = ""
    if traces.are_in(letter.settled_by):
        letter.settled_by = ""
    letter.history = [
        {name: value for name, value in event.items() if name in KEPT}
        for event in letter.history
    ]
    if letter.status == letter.Status.WAITING:
        letter.settle(letter.Status.DISCARDED, by)
    letter.save(using=settings.DATABASE)
