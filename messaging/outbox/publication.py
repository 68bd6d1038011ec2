"""Which models are published, and the events that their changes emit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router
from django.db.models import Model, QuerySet
from pydantic_core import PydanticSerializationError, to_json

from messaging.conf import settings
from messaging.envelope import PARTITION_KEY, Envelope
from messaging.exceptions import TooLarge, Unpublishable
from messaging.registry import publications

#: Routing key and event type by default.
DEFAULT_NAME = "{app}.{model}.{action}"
#: Rows that one statement selects by key, and whose events are in memory at a time.
CHUNK = 500
#: Databases on which inbox and outbox are tested.
VENDORS = ("mysql", "postgresql", "sqlite")


@dataclass(frozen=True, slots=True)
class Publication:
    """How the changes of one model are published."""

    model: type[Model]
    fields: tuple[str, ...]
    #: None for `MESSAGING["EVENTS_EXCHANGE"]`.
    own_exchange: str | None
    exchange_type: str
    routing_key: str
    event_type: str | None

    @property
    def exchange(self) -> str:
        """The exchange to which events are published."""
        return self.own_exchange or str(settings.EVENTS_EXCHANGE)

    def expand(self, pattern: str, action: str) -> str:
        """Return a routing key or event type with its placeholders filled in."""
        options = self.model._meta
        return pattern.format(
            app=options.app_label, model=options.model_name, action=action
        )

    def problems(self) -> Iterator[str]:
        """Yield the reasons why no change of the model can be published, if any."""
        options = self.model._meta
        label = options.label
        relatives = {*options.get_parent_list(), *_children(self.model)}
        if relatives:
            others = ", ".join(sorted(one._meta.label for one in relatives))
            yield (
                f"{label} shares its rows with {others} (multi-table inheritance), so "
                "that one change is spread over several tables. Use an abstract base "
                "class or a one-to-one relation instead."
            )
        if len(getattr(options, "pk_fields", [options.pk])) > 1:
            yield f"{label} has a composite primary key; use one of a single column."
        for name in self.fields:
            try:
                field = options.get_field(name)
            except FieldDoesNotExist:
                yield f"{label} has no field {name!r}; remove it from `fields`."
                continue
            if not getattr(field, "concrete", False) or field.many_to_many:
                yield f"{label}.{name} is not a column; remove it from `fields`."
        alias = router.db_for_write(self.model)
        if problem := _database_problem(label, alias):
            yield problem

    def check(self, alias: str) -> None:
        """Raise `Unpublishable` unless changes in a database can be published."""
        if self not in _checked and (problems := list(self.problems())):
            raise Unpublishable(" ".join(problems))
        _checked.add(self)
        if problem := _database_problem(self.model._meta.label, alias):
            raise Unpublishable(problem)

    def rows(self, using: str, keys: Sequence[Any]) -> QuerySet[Any]:
        """Return the current rows, locked, including those that managers filter out."""
        rows: QuerySet[Any] = QuerySet(model=self.model, using=using)
        return rows.select_for_update().filter(pk__in=keys)

    def emit(self, action: str, rows: QuerySet[Any]) -> int:
        """
        Store an event for each of `rows` in the outbox; return how many.

        Must be called in the transaction of the change, while the rows are locked, so
        that the events of a row are stored in the order of its changes.
        """
        from messaging.models import Outbox  # models load after this package

        values = list(rows.order_by("pk").values_list("pk", *self.fields))
        Outbox.objects.using(settings.DATABASE).add(
            [self.envelope(action, pk, fields) for pk, *fields in values]
        )
        return len(values)

    def envelope(self, action: str, pk: object, values: Sequence[object]) -> Envelope:
        """Return the event of a row whose `fields` have these values."""
        event_type = self.event_type and self.expand(self.event_type, action)
        body: dict[str, object] = {"event_type": event_type} if event_type else {}
        body |= dict(zip(self.fields, values, strict=True))
        envelope = Envelope(
            self.encode(body),
            self.expand(self.routing_key, action),
            exchange=self.exchange,
            type=event_type or self.expand(DEFAULT_NAME, action),
            headers={PARTITION_KEY: f"{self.model._meta.label_lower}:{pk}"},
            # There may be no listeners.
            mandatory=False,
        )
        if len(envelope.body) > settings.MAX_BODY:
            raise TooLarge(
                f"The event of {self.model._meta.label} {pk} has more than "
                f"{settings.MAX_BODY} bytes: leave fields out of `publishes`."
            )
        return envelope

    def encode(self, body: dict[str, object]) -> bytes:
        """Return the body as JSON; raises `Unpublishable`."""
        try:
            return to_json(body, bytes_mode="base64", inf_nan_mode="strings")
        except PydanticSerializationError as error:
            raise Unpublishable(
                f"A field of {self.model._meta.label} cannot be encoded as JSON "
                f"({error}): leave it out of `publishes`."
            ) from error


#: Those found to have no problems.
_checked: set[Publication] = set()


def publication_of(model: type[Model]) -> Publication | None:
    """
    Return the publication of a model, of its proxied model or of a parent, or None.

    With multi-table inheritance, a row of the child is also a row of its parents.
    """
    if not publications:
        return None
    concrete = model._meta.concrete_model or model
    if concrete in publications:
        return publications[concrete]
    for parent in concrete._meta.get_parent_list():
        if parent in publications:
            return publications[parent]
    return None


def chunks(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield keys in lists of at most `CHUNK`."""
    for start in range(0, len(keys), CHUNK):
        yield keys[start : start + CHUNK]


def _database_problem(label: str, alias: str) -> str | None:
    """Return why rows in a database cannot be written together with the outbox."""
    if alias != settings.DATABASE:
        return (
            f"{label} is written to the database {alias!r}, the outbox to "
            f"{settings.DATABASE!r}, and two databases share no transaction: a change "
            "could be committed without its event. Publish a message from the code "
            "that makes the change instead, or move the model to the outbox's database."
        )
    if (vendor := connections[alias].vendor) not in VENDORS:
        return (
            f"{label} is in a database of type {vendor}; the outbox supports "
            f"{', '.join(VENDORS)} only."
        )
    return None


def _children(model: type[Model]) -> Iterator[type[Model]]:
    for relation in model._meta.related_objects:
        if getattr(relation.field.remote_field, "parent_link", False):
            yield relation.related_model
