"""Build the document of what this project takes, publishes and serves."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_noop

from messaging.conf import settings
from messaging.message import Event, Message, event_type_of
from messaging.outbox.model_events import ACTIONS
from messaging.outbox.publication import DEFAULT_NAME, Publication
from messaging.received import Received
from messaging.registry import (
    handlers,
    publications,
    sources,
)
from messaging.rpc.functions import Served, served
from messaging.sources import Exchange, Source

from . import messages, rpc
from .channels import (
    events_exchange,
    exchange_channel,
    queue_channel,
    ref,
    servers,
)
from .messages import about, binding, slug
from .schemas import Definitions, rows_schema, schema_of

VERSION = "3.0.0"
#: The tags of operations: what other programs send, receive, call and publish.
COMMAND, EVENT, FUNCTION, BODIES = "command", "event", "function", "listener"
#: What holds for all messages that are sent to a queue.
COMMANDS = (
    "Publish to the default exchange, with the name of the queue as routing key. The "
    "queue is durable and has no arguments; a program may declare it. The body is a "
    "JSON object in UTF-8, of at most {limit} bytes. A field that is null counts as "
    "absent, and unknown fields are ignored. Nothing but the body is required."
)
EVENTS = (
    "Bind a queue of your own to the exchange, with this routing key or a pattern. "
    "Events are published after the commit, at least once, and those of one partition "
    "key in order."
)
#: What a schema cannot say.
EXCEPTIONS = (
    "Schemas are of JSON Schema draft 07. Texts are trimmed before their length "
    "counts. Fields of the formats `email` and `uri` are checked more strictly than "
    "most validators do. A whole number is written without a decimal point. Times may "
    "have any form of ISO 8601, and are in UTC without a time zone. What depends on "
    "other fields, on the time or on what is stored is not described: such a message "
    "is refused by the consumer, with a reason. `headers` is the schema of the headers "
    "of a message, `x-amqp-properties` that of its AMQP properties, and messages with "
    "the same `x-partition-key` take effect in the order in which they were accepted."
)


def document() -> dict[str, Any]:
    """Return the AsyncAPI document; equal definitions give an equal document."""
    return Document().build()


class Document:
    """Collects channels, operations and schemas."""

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.schemas: Definitions = messages.shared_schemas()

    def build(self) -> dict[str, Any]:
        """Return all that is known."""
        for queue in sorted(handlers):
            self._add_queue(queue)
        for publication in publications.values():
            self._add_rows(publication)
        for message in events():
            self._add_event(message)
        for function in served.values():
            self._add_function(function)
        return {
            "asyncapi": VERSION,
            "info": {
                "title": settings.APP_ID,
                "version": "1.0.0",
                "description": EXCEPTIONS,
                **settings.ASYNCAPI_INFO,
            },
            "defaultContentType": messages.JSON,
            "servers": servers(),
            "channels": _sorted(self.channels),
            "operations": _sorted(self.operations),
            "components": {
                "schemas": _sorted(self.schemas),
                "securitySchemes": {"user": {"type": "userPassword"}},
            },
        }

    def _add_queue(self, queue: str) -> None:
        """Describe what other programs may send to a queue, or to its exchanges."""
        commands = []
        for handler in handlers[queue].values():
            if issubclass(handler.message, Received):
                self._add_bodies(queue, handler.message, about(handler.function))
            elif not issubclass(handler.message, Event):
                commands.append(handler.message)
            elif not handler.message.is_ours:
                self._add_foreign_event(queue, handler.message)
        if commands:
            self._add_commands(queue, commands)

    def _add_bodies(
        self, queue: str, message: type[Received[Any]], texts: dict[str, str]
    ) -> None:
        """Describe a queue that takes bodies without an event type."""
        body = self._body(queue, message.body_type) | texts
        for source in sources[queue]:
            for key in source.keys:
                self._add_source(queue, body, source, key)
        if not sources[queue]:
            name = self._add_channel(queue, queue_channel(queue), [body])
            self._add_operation(f"{queue}.receive", "receive", name, BODIES)

    def _add_commands(self, queue: str, kinds: list[type[Message]]) -> None:
        found = [messages.command(queue, kind, self.schemas) for kind in kinds]
        text = COMMANDS.format(limit=settings.MAX_BODY)
        channel = queue_channel(queue) | {"description": text}
        self._add_operation(
            f"{queue}.receive",
            "receive",
            self._add_channel(queue, channel, found),
            COMMAND,
            reply=self._reply(queue, [messages.outcome()]),
        )

    def _add_source(
        self, queue: str, body: dict[str, Any], source: Source, key: str
    ) -> None:
        """Describe what a queue selects of an exchange."""
        channel = exchange_channel(source.exchange, key)
        if source.arguments:
            channel["x-binding-arguments"] = source.arguments
        name = f"{queue}.{source.exchange.name}.{key}".rstrip(".")
        name = self._add_channel(name, channel, [body])
        self._add_operation(f"{name}.receive", "receive", name, BODIES)

    def _body(self, queue: str, body: Any) -> dict[str, Any]:
        """Return the message of a queue that takes bodies of one type."""
        payload: dict[str, Any] = {}
        if body not in (bytes, Any):
            payload = schema_of(body, slug(queue), self.schemas)
        content = messages.TEXT if body is str else messages.JSON
        return {
            "name": "body",
            "contentType": "application/octet-stream" if body is bytes else content,
            "headers": messages.shared("headers"),
            "payload": payload,
            "bindings": binding(),
            "x-amqp-properties": messages.shared("properties"),
        }

    def _add_foreign_event(self, queue: str, message: type[Message]) -> None:
        """Describe an event that another program publishes."""
        event_type = event_type_of(message)
        name = self._add_channel(
            f"{queue}.{event_type}",
            exchange_channel(events_exchange(), event_type),
            [messages.command(queue, message, self.schemas)],
        )
        self._add_operation(f"{name}.receive", "receive", name, BODIES)

    def _add_rows(self, publication: Publication) -> None:
        """Describe the events of a published model."""
        exchange = Exchange(publication.exchange, publication.exchange_type)
        label = publication.model._meta.label
        for action in ACTIONS:
            of_body = publication.event_type and publication.expand(
                publication.event_type, action
            )
            event_type = of_body or publication.expand(DEFAULT_NAME, action)
            key = publication.expand(publication.routing_key, action)
            message = {
                "name": event_type,
                "summary": f"A row of {label} was {action}.",
                **messages.published(
                    event_type,
                    rows_schema(publication.model, publication.fields, of_body),
                ),
                "x-partition-key": gettext_noop("The primary key of the row."),
            }
            self._add_sent(event_type, exchange, key, message)

    def _add_event(self, message: type[Event]) -> None:
        event_type = event_type_of(message)
        if slug(event_type) not in self.channels:  # or else it is a model's
            found = messages.event(message, self.schemas)
            self._add_sent(event_type, events_exchange(), event_type, found)

    def _add_sent(
        self, name: str, exchange: Exchange, key: str, message: dict[str, Any]
    ) -> None:
        """Describe an event that this project publishes."""
        channel = exchange_channel(exchange, key) | {"description": EVENTS}
        key = self._add_channel(name, channel, [message])
        self._add_operation(
            f"{key}.send",
            "send",
            key,
            EVENT,
            bindings=binding(deliveryMode=2, mandatory=False, timestamp=True),
        )

    def _add_function(self, function: Served) -> None:
        queue = queue_channel(function.queue, durable=function.durable)
        name = self._add_channel(
            function.queue, queue, [rpc.call(function, self.schemas)]
        )
        replies = [rpc.result(function, self.schemas), rpc.error(function)]
        self._add_operation(
            f"{function.name}.call",
            "receive",
            name,
            FUNCTION,
            reply=self._reply(name, replies),
        )

    def _reply(self, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Describe what is sent to the queue that a request names in `reply_to`."""
        channel = {
            "address": None,
            "title": "Replies",
            "description": "The queue that a request names in `reply_to`, by the "
            "default exchange.",
        }
        name = self._add_channel(f"{name}.replies", channel, found)
        return {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The property `reply_to`; without it there is no reply.",
            },
            "channel": ref("channels", name),
            "messages": self._refs(name),
        }

    def _add_channel(
        self, name: str, channel: dict[str, Any], found: list[dict[str, Any]]
    ) -> str:
        """Add a channel with messages; return the key by which it is known."""
        key = slug(name)
        while key in self.channels:
            key += "-2"
        named = {slug(one["name"]): one for one in found}
        self.channels[key] = channel | {"messages": named}
        return key

    def _add_operation(
        self, name: str, action: str, channel: str, tag: str, **members: Any
    ) -> None:
        self.operations[slug(name)] = {
            "action": action,
            "channel": ref("channels", channel),
            "messages": self._refs(channel),
            "tags": [{"name": tag}],
            **members,
        }

    def _refs(self, channel: str) -> list[dict[str, str]]:
        names = self.channels[channel]["messages"]
        return [ref("channels", channel, "messages", name) for name in names]


def events() -> list[type[Event]]:
    """Return the events that the installed apps publish, a class for each type."""
    heard = {one.message for types in handlers.values() for one in types.values()}
    found: dict[str, type[Event]] = {}
    # Of two classes of one type, the other one is what a handler reads of it.
    for message in sorted(
        _subclasses(Event), key=lambda one: (one in heard, repr(one))
    ):
        is_installed = apps.get_containing_app_config(message.__module__) is not None
        if is_installed and message.is_ours:
            with suppress(ImproperlyConfigured):  # the base of several
                found.setdefault(event_type_of(message), message)
    return list(found.values())


def _subclasses(parent: type[Event]) -> set[type[Event]]:
    own = set(parent.__subclasses__())
    return own.union(*map(_subclasses, own))


def _sorted(found: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(found.items()))
