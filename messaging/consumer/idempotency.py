"""Idempotency keys: one key names one request, whatever partition it is in."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import IntegrityError, OperationalError, transaction
from django.utils.translation import gettext as _

from messaging.conf import settings
from messaging.dead_letters.letters import Failure
from messaging.envelope import IDEMPOTENCY_KEY
from messaging.models import IdempotencyKey

from .context import Context, State, in_states


def claim(part: Sequence[Context]) -> None:
    """Record the keys of new messages; give up those whose key another one has."""
    keys = {c.id: c.delivery.envelope.own.get(IDEMPOTENCY_KEY, "") for c in part}
    keyed = [c for c in in_states(part, State.NEW) if keys[c.id]]
    if not keyed:
        return
    rows = IdempotencyKey.objects.using(settings.DATABASE)
    known = rows.owners(keys[c.id] for c in keyed)
    owners = dict(known)
    for context in keyed:
        if owners.setdefault(keys[context.id], context.id) != context.id:
            reason = _("The idempotency key was used before, with another content.")
            context.set_aside(Failure("rejected", reason))
    try:
        with transaction.atomic(using=settings.DATABASE):
            rows.add({key: own for key, own in owners.items() if key not in known})
    except IntegrityError as error:
        # The batch is processed again, and finds that row.
        raise OperationalError("Another consumer has just used a key.") from error
