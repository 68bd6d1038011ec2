"""
Register models whose changes are published, with one line for each model:

    publishes(Order, fields=["id", "reference"])

Each row that is created, updated or deleted through Django emits an event, which is
stored in the outbox in the transaction of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, overload

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from messaging.conf import settings
from messaging.envelope import SHORT
from messaging.message import problem_of_type
from messaging.registry import event_exchanges, publications

from . import orm_hooks
from .publication import DEFAULT_NAME, Publication

#: What can happen to a row.
ACTIONS = ("created", "updated", "deleted")
#: Kinds of exchange that a broker has without plugins.
EXCHANGE_TYPES = ("topic", "direct", "fanout", "headers")

AnyModel = TypeVar("AnyModel", bound=type[Model])


@overload
def publishes(
    model: AnyModel,
    /,
    *,
    fields: Iterable[str] | str,
    exchange: str | None = None,
    exchange_type: str = "topic",
    routing_key: str = DEFAULT_NAME,
    event_type: str | None = DEFAULT_NAME,
) -> AnyModel: ...


@overload
def publishes(
    *,
    fields: Iterable[str] | str,
    exchange: str | None = None,
    exchange_type: str = "topic",
    routing_key: str = DEFAULT_NAME,
    event_type: str | None = DEFAULT_NAME,
) -> Callable[[AnyModel], AnyModel]: ...


def publishes(
    model: AnyModel | None = None,
    /,
    *,
    fields: Iterable[str] | str,
    exchange: str | None = None,
    exchange_type: str = "topic",
    routing_key: str = DEFAULT_NAME,
    event_type: str | None = DEFAULT_NAME,
) -> AnyModel | Callable[[AnyModel], AnyModel]:
    """
    Publish an event for each row of a model that is created, updated or deleted.

    Works as a class decorator, too. `fields` are the names of the model's fields in the
    body, or "__all__". The exchange is `MESSAGING["EVENTS_EXCHANGE"]` unless one is
    given. `routing_key` and `event_type` may contain the placeholders `{app}`,
    `{model}` and `{action}`: "created", "updated" or "deleted". With `event_type=None`
    the body has only the fields.

    Raises `ImproperlyConfigured` for invalid arguments. Problems that show only when
    all models are loaded, such as another database, are reported by the system checks,
    and every write of such a model raises `Unpublishable`.
    """

    def register(model: AnyModel) -> AnyModel:
        _check_model(model)
        publication = Publication(
            model,
            _field_names(model, fields),
            exchange,
            exchange_type,
            routing_key,
            event_type,
        )
        _check_names(publication)
        publications[model] = publication
        if exchange is not None:
            event_exchanges[exchange] = exchange_type
        orm_hooks.watch(model)
        return model

    return register if model is None else register(model)


def _check_model(model: type[Model]) -> None:
    options = model._meta
    if options.auto_created:
        raise ImproperlyConfigured(
            f"{options.label} is the table of a many-to-many field: give the field a "
            "`through` model of your own, and publish that."
        )
    if options.abstract or options.proxy:
        raise ImproperlyConfigured(
            f"{options.label} has no table of its own: publish a concrete model."
        )
    if options.app_label == "messaging":
        raise ImproperlyConfigured(
            f"{options.label} is internal and cannot be published."
        )
    if model in publications:
        raise ImproperlyConfigured(f"{options.label} is already published.")


def _field_names(model: type[Model], fields: Iterable[str] | str) -> tuple[str, ...]:
    if not isinstance(fields, str):
        return tuple(fields)
    if fields != "__all__":
        raise ImproperlyConfigured('`fields` is a list of names or "__all__".')
    return tuple(field.attname for field in model._meta.concrete_fields)


def _check_names(publication: Publication) -> None:
    label = publication.model._meta.label
    if not publication.fields:
        raise ImproperlyConfigured(f"{label} is published without any field.")
    if publication.exchange_type not in EXCHANGE_TYPES:
        raise ImproperlyConfigured(
            f"{label}: exchange_type is one of {', '.join(EXCHANGE_TYPES)}."
        )
    if publication.own_exchange == "":
        raise ImproperlyConfigured(
            f"{label}: events need an exchange with a name, not the default one."
        )
    if (kind := _known_type(publication)) != publication.exchange_type:
        raise ImproperlyConfigured(
            f"{label}: exchange {publication.exchange!r} is of type {kind}."
        )
    for pattern in (publication.routing_key, publication.event_type or ""):
        try:
            names = [publication.expand(pattern, action) for action in ACTIONS]
        except (KeyError, IndexError, ValueError):
            raise ImproperlyConfigured(
                f"{label}: {pattern!r} may have only the placeholders {{app}}, "
                "{model} and {action}."
            ) from None
        if max(len(name.encode()) for name in names) > SHORT:
            raise ImproperlyConfigured(
                f"{label}: {pattern!r} becomes longer than {SHORT} bytes."
            )
    for action in ACTIONS if publication.event_type else ():
        name = publication.expand(publication.event_type or "", action)
        if problem := problem_of_type(name):
            raise ImproperlyConfigured(f"{label}: {problem}")


def _known_type(publication: Publication) -> str:
    """Return the type that other models give the exchange, else that of this one."""
    try:
        known = event_exchanges | {str(settings.EVENTS_EXCHANGE): "topic"}
        return known.get(publication.exchange, publication.exchange_type)
    except ImproperlyConfigured:
        # MESSAGING is invalid, which the system checks report.
        return publication.exchange_type
