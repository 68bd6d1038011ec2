"""
Models whose changes are published: one line for a model.

    publishes(Order, fields=["id", "reference"])

Each row that is created, updated or deleted through Django is told as an event, which
leaves through the outbox with the transaction of the change, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, overload

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from messaging.conf import settings
from messaging.message import SHORT
from messaging.registry import event_exchanges

from . import orm_hooks as interception
from .publication import DEFAULT_NAME, Publication, publications

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
    Publish what is created, updated and deleted of a model; also a class decorator.

    `fields` are the names of those that the body has, or "__all__". The exchange is
    `MESSAGING["EVENTS_EXCHANGE"]` unless one is given. `routing_key` and `event_type`
    may have the places `{app}`, `{model}` and `{action}`: "created", "updated" or
    "deleted". With `event_type=None` the body has the fields and nothing else.

    Raises `ImproperlyConfigured` for what can never be. What shows only when all
    models are loaded, such as another database, is told by the system checks, and
    every write of such a model raises `Unpublishable`.
    """

    def register(model: AnyModel) -> AnyModel:
        options = model._meta
        if options.abstract or options.proxy or options.auto_created:
            raise ImproperlyConfigured(
                f"{options.label} has no rows of its own: publish a concrete model."
            )
        if options.app_label == "messaging":
            raise ImproperlyConfigured(f"{options.label} is for internal use.")
        if model in publications:
            raise ImproperlyConfigured(f"{options.label} is published already.")
        if isinstance(fields, str) and fields != "__all__":
            raise ImproperlyConfigured('`fields` is a list of names or "__all__".')
        publication = Publication(
            model,
            tuple(f.attname for f in options.concrete_fields)
            if isinstance(fields, str)
            else tuple(fields),
            exchange,
            exchange_type,
            routing_key,
            event_type,
        )
        _refuse_bad_names(publication)
        publications[model] = publication
        if exchange is not None:
            event_exchanges[exchange] = exchange_type
        interception.watch(model)
        return model

    return register if model is None else register(model)


def _refuse_bad_names(publication: Publication) -> None:
    label = publication.model._meta.label
    if not publication.fields:
        raise ImproperlyConfigured(f"{label} is published without any field.")
    if publication.exchange_type not in EXCHANGE_TYPES:
        raise ImproperlyConfigured(
            f"{label}: exchange_type is one of {', '.join(EXCHANGE_TYPES)}."
        )
    exchange = publication.own_exchange
    if exchange == "":
        raise ImproperlyConfigured(
            f'{label}: events go to an exchange that has a name; "" is that of queues.'
        )
    if (kind := _known_type(publication)) != publication.exchange_type:
        raise ImproperlyConfigured(
            f"{label}: exchange {publication.exchange!r} is of type {kind}."
        )
    for pattern in (publication.routing_key, publication.event_type or ""):
        try:
            names = [publication.name(pattern, action) for action in ACTIONS]
        except (KeyError, IndexError, ValueError):
            raise ImproperlyConfigured(
                f"{label}: {pattern!r} may have the places {{app}}, {{model}} and "
                "{action} only."
            ) from None
        if max(len(name.encode()) for name in names) > SHORT:
            raise ImproperlyConfigured(f"{label}: {pattern!r} gets too long.")


def _known_type(publication: Publication) -> str:
    """Give of which type the exchange is for others, or else for this one."""
    try:
        known = event_exchanges | {str(settings.EVENTS_EXCHANGE): "topic"}
        return known.get(publication.exchange, publication.exchange_type)
    except ImproperlyConfigured:
        # That is of MESSAGING, and the system checks tell of it.
        return publication.exchange_type
