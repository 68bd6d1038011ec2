"""Reads that may lag behind what is committed, and the replicas that serve them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, router
from django.db.models import Model

from messaging.conf import settings
from messaging.logs.repetition import RepeatingLogger

from .connections import answers

repeating = RepeatingLogger(__name__)

T = TypeVar("T")

#: Seconds for which a replica that does not answer is not asked again.
PAUSE = 30.0
#: The replica that serves the reads of this thread, "" for the primary; None outside of
#: `read_lagging`, where reads decide something.
_chosen: ContextVar[str | None] = ContextVar("replica", default=None)
#: Until when the replicas that have failed are not asked, by the monotonic clock.
_away: dict[str, float] = {}


def may_lag() -> bool:
    """Return whether what is read now may lag behind what is committed."""
    return _chosen.get() is not None


def read_lagging(function: Callable[[], T]) -> T:
    """
    Call a function whose reads may lag, and return its result.

    They come from one of `MESSAGING["REPLICAS"]`, if `ReplicaRouter` is in use. If that
    replica does not answer, the function is called again with another one or, in the
    end, with the primary: it must write nothing.
    """
    now = time.monotonic()
    usable = [alias for alias in settings.REPLICAS if _away.get(alias, now) <= now]
    alias = random.choice(usable) if usable else ""  # noqa: S311 shares the load
    token = _chosen.set(alias)
    try:
        return function()
    except (OperationalError, InterfaceError) as error:
        if not alias or answers(alias):
            raise
        repeating.warning("The replica %s is left out: %s", alias, error, about=alias)
        _away[alias] = time.monotonic() + PAUSE
    finally:
        _chosen.reset(token)
    return read_lagging(function)


class ReplicaRouter:
    """
    Sends reads that may lag to `MESSAGING["REPLICAS"]`, and nothing else.

    It must be the first of `DATABASE_ROUTERS`. Replicas are never written to, and never
    migrated.
    """

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Return the replica in use, for a model of `MESSAGING["DATABASE"]`."""
        alias = _chosen.get()
        if alias and router.db_for_write(model) == settings.DATABASE:
            return alias
        return None

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """Return the primary for an object that was read from a replica."""
        state = getattr(hints.get("instance"), "_state", None)
        return settings.DATABASE if state and state.db in settings.REPLICAS else None

    def allow_relation(self, one: Model, other: Model, **hints: Any) -> bool | None:
        """Allow relations between the primary and its replicas."""
        same = {settings.DATABASE, *settings.REPLICAS}
        return True if {one._state.db, other._state.db} <= same else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Forbid migrations of replicas."""
        return False if db in settings.REPLICAS else None
