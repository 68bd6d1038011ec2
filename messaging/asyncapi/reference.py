"""The document as people read it, in the active language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from messaging.fields import NO_NUL
from messaging.text import translated

from .compatibility import resolved, values
from .document import BODIES, COMMAND, EVENT, FUNCTION
from .schemas import TIME

Json = dict[str, Any]

#: Models inside models that are shown: a model may contain itself.
DEEPEST = 2


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a body; that of a body which is no object has no name."""

    name: str
    kind: str
    limits: str
    is_required: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Body:
    """A message: what it is for, its fields and examples."""

    name: str
    text: str
    #: What messages have in common that take effect in their order.
    key: str
    fields: list[Field]
    examples: list[str]


@dataclass(frozen=True, slots=True)
class Section:
    """A queue, an event, a function or an exchange that is listened to."""

    name: str
    #: The queue, or exchange and routing key.
    address: str
    bodies: list[Body]
    replies: list[Body]


@dataclass(frozen=True, slots=True)
class Reference:
    """All sections, by what a program does with them."""

    title: str
    queues: list[Section]
    events: list[Section]
    functions: list[Section]
    listeners: list[Section]


def reference(document: Json) -> Reference:
    """Return what a document says."""
    reader = Reader(document)
    return Reference(
        translated(document["info"]["title"]),
        *(list(reader.sections(tag)) for tag in (COMMAND, EVENT, FUNCTION, BODIES)),
    )


class Reader:
    """Reads a document."""

    def __init__(self, document: Json) -> None:
        self._document = document

    def sections(self, tag: str) -> Iterator[Section]:
        """Yield the operations with a tag."""
        for operation in self._document["operations"].values():
            if operation["tags"] == [{"name": tag}]:
                channel = resolved(operation["channel"], self._document)
                replies = operation.get("reply", {}).get("messages", [])
                yield Section(
                    operation["channel"]["$ref"].rpartition("/")[2],
                    _address(channel),
                    [self._body(one) for one in operation["messages"]],
                    [self._body(one) for one in replies],
                )

    def _body(self, reference: Json) -> Body:
        message = resolved(reference, self._document)
        payload = resolved(message["payload"], self._document)
        options = [resolved(one, self._document) for one in payload.get("anyOf", ())]
        objects = [one for one in options if one.get("type") == "object"]
        return Body(
            message["name"],
            translated(message.get("description") or message.get("summary", "")),
            translated(message.get("x-partition-key", "")),
            list(self._fields(objects[0] if objects else payload)),
            [as_json(one["payload"]) for one in message.get("examples", ())],
        )

    def _fields(
        self, schema: Json, prefix: str = "", depth: int = 0
    ) -> Iterator[Field]:
        """Yield the fields of an object, and those of objects inside it."""
        if schema.get("type") != "object":
            yield self._field(prefix, schema, True)
            yield from self._inside(schema, prefix, depth)
            return
        required = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            yield self._field(f"{prefix}{name}", field, name in required)
            yield from self._inside(field, f"{prefix}{name}", depth)

    def _inside(self, schema: Json, name: str, depth: int) -> Iterator[Field]:
        for inner, suffix in self._inner(schema):
            if depth < DEEPEST:
                yield from self._fields(inner, f"{name}{suffix}.", depth + 1)

    def _inner(self, schema: Json) -> Iterator[tuple[Json, str]]:
        """Yield the objects in a value, and what follows its name in theirs."""
        for option in self._options(schema):
            if "properties" in option:
                yield option, ""
            elif isinstance(option.get("items"), dict):
                yield from (
                    (one, f"{end}[]") for one, end in self._inner(option["items"])
                )

    def _field(self, name: str, schema: Json, is_required: bool) -> Field:
        options = [one for one in self._options(schema) if one.get("type") != "null"]
        kinds = dict.fromkeys(self._kind(one) for one in options)
        is_nullable = len(options) < len(self._options(schema))
        if is_nullable and is_required:
            kinds |= {_("null"): None}
        limits = dict.fromkeys(filter(None, map(_limits, options)))
        return Field(
            name,
            _(" or ").join(kinds),
            "; ".join(limits),
            is_required,
            translated(schema.get("description", "")),
        )

    def _options(self, schema: Json) -> list[Json]:
        found = resolved(schema, self._document)
        options = found.get("anyOf") or found.get("oneOf")
        if not options:
            return [found]
        return [inner for one in options for inner in self._options(one)]

    def _kind(self, schema: Json) -> str:
        """Return what kind of value a schema describes."""
        if (listed := values(schema)) is not None:
            return ", ".join(f"`{value}`" for value in listed)
        match schema.get("type"), schema.get("format"):
            case "string", "date-time":
                return _("time")
            case "string", "email":
                return _("e-mail address")
            case "string", "uri":
                return _("URL")
            case "string", "date":
                return _("date")
            case "string", _format:
                return _("time") if schema.get("pattern") == TIME else _("text")
            case "integer", _format:
                return _("whole number")
            case "number", _format:
                return _("number")
            case "boolean", _format:
                return _("true or false")
            case "object", _format:
                return _("object")
            case "array", _format:
                items = schema.get("items", {})
                several = items if isinstance(items, list) else [items]
                kinds = [self._field("", one, True).kind for one in several]
                return _("list of: %s") % ", ".join(kinds)
        return _("any value")


def as_json(value: Any) -> str:
    """Return a value as JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _address(channel: Json) -> str:
    binding = channel["bindings"]["amqp"]
    if "queue" in binding:
        return str(channel["address"])
    name = f"{binding['exchange']['name']} ({binding['exchange']['type']})"
    arguments = channel.get("x-binding-arguments", {}).items()
    keys = [channel["address"], *(f"{key}={value}" for key, value in arguments)]
    return ", ".join([name, *filter(None, keys)])


def _limits(schema: Json) -> str:
    """Return the limits of a value, or ""."""
    found = []
    low, high = schema.get("minLength"), schema.get("maxLength")
    if high is not None:
        found.append(
            _("%(low)s to %(high)s characters") % {"low": low, "high": high}
            if low
            else _("up to %s characters") % high
        )
    elif low == 1:
        found.append(_("not empty"))
    elif low:
        found.append(_("at least %s characters") % low)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        found.append(_("%(low)s to %(high)s") % {"low": low, "high": high})
    elif low is not None:
        found.append(_("at least %s") % low)
    elif high is not None:
        found.append(_("at most %s") % high)
    pattern = schema.get("pattern")
    if pattern not in (None, TIME, NO_NUL):
        found.append(f"`{pattern}`")
    return ", ".join(found)
