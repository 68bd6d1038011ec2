"""The parts of an OpenAPI document: schemas and parameters. Answers: `answers.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext as _

from messaging.fields import NO_NUL
from messaging.message import Message
from messaging.text import translated

from .filters import MAX_WORDS, MomentFilter, NumberFilter, WholeNumberField
from .headers import KEY_LENGTH, LONGEST_WAIT, VERSION

JSON, HTML = "application/json", "text/html"
#: A text without NUL that is not blank.
FILLED = r"^[^\x00]*[^\x00\s][^\x00]*$"
#: How a time begins that is not before `messaging.fields.EARLIEST_YEAR`.
YEAR = r"^\s*[1-9][0-9]{3}"
Schema = dict[str, Any]


def ref(name: str, kind: str = "schemas") -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


# Schemas


def schemas() -> dict[str, Schema]:
    """Return the schemas of errors and of operations, by name."""
    text = {"type": "string"}
    error = {
        "code": {**text, "description": _("For programs.")},
        "detail": {**text, "description": _("For people.")},
    }
    texts = {"type": "array", "items": text, "minItems": 1}
    errors = {
        "type": "object",
        "additionalProperties": texts,
        "minProperties": 1,
        "description": _(
            "By field, parameter or header; `non_field_errors` are about the request."
        ),
    }
    return {
        "Error": closed(error),
        "BadRequest": closed(error | {"errors": errors}),
        "Operation": closed(operation_properties()),
    }


def operation_properties() -> dict[str, Schema]:
    """Return the schemas of what is known about an operation."""
    moment = {"type": "string", "format": "date-time"}
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    return {
        "id": text,
        "url": {**text, "format": "uri-reference"},
        "status": {**text, "enum": ["queued", "done", "failed"]},
        "accepted_at": moment,
        "settled_at": {**moment, **maybe},
        "link": {
            **maybe,
            "format": "uri-reference",
            "description": _("Where to read what was written, once it is done."),
        },
        "code": {**maybe, "description": _("Why it failed, for programs.")},
        "reason": {**maybe, "description": _("Why it failed, for people.")},
    }


def closed(properties: dict[str, Schema]) -> Schema:
    """Return the schema of an object that has all of these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def body_schema(message: type[Message], names: list[str]) -> Schema:
    """Return the schema of a body with fields of a message, one of them at least."""
    whole = fields_of(message)
    properties = {name: plain(whole["properties"][name]) for name in names}
    required = [name for name in names if name in whole.get("required", ())]
    schema: Schema = {"type": "object", "properties": properties}
    nothing = {"properties": {name: {"type": "null"} for name in names}}
    schema |= {"required": required} if required else {"not": nothing}
    return schema | {"description": _("Unknown fields are ignored.")}


def form_schema(schema: Schema) -> Schema:
    """Return the schema of a form for the same fields as a body has."""
    fields = schema["properties"].items()
    return schema | {"properties": {name: form_field(one) for name, one in fields}}


def form_field(schema: Schema) -> Schema:
    """Return the schema of a field in a form, where an empty input may mean null."""
    found = not_null(schema)
    is_text = found.get("type") == "string" and found.get("format") != "date-time"
    if found is schema or is_text:
        return found
    about = {"description": found.pop("description")} if "description" in found else {}
    return about | {"anyOf": [found, {"type": "string", "maxLength": 0}]}


def fields_of(message: type[Message]) -> Schema:
    """Return the JSON schema of a message, as pydantic derives it."""
    return message.model_json_schema(ref_template="#/components/schemas/{model}")


def plain(schema: Schema) -> Schema:
    """Return the schema of a field without titles, its description translated."""
    found = nullable(schema)
    about = [translated(found.pop("description", ""))]
    if found.get("format") == "date-time":
        about.append(_("In any form of ISO 8601; without a zone, UTC."))
        found["pattern"] = YEAR
    if found.get("pattern") == NO_NUL and found.get("minLength"):
        found["pattern"] = FILLED
    if found.get("format") == "uri":  # or "": see `messaging.fields.Url`
        found["anyOf"] = [{"format": found.pop("format")}, {"maxLength": 0}]
    text = " ".join(filter(None, about))
    return found | ({"description": text} if text else {})


def nullable(schema: Schema) -> Schema:
    """Return the schema of a field with null as one of its types."""
    found = {k: v for k, v in schema.items() if k not in ("title", "default", "anyOf")}
    options = [nullable(one) for one in schema.get("anyOf", ())]
    kinds = [one for one in options if one != {"type": "null"}]
    if len(kinds) == 1 and "type" in kinds[0]:
        types = [kinds[0]["type"], "null"] if len(options) > 1 else kinds[0]["type"]
        found |= kinds[0] | {"type": types}
    elif options:
        found["anyOf"] = options
    return found


def not_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null where it is not."""
    match schema.get("type"):
        case [kind, "null"]:
            return schema | {"type": kind}
    return schema


# Parameters


def parameter(
    name: str, place: str, schema: Schema, text: str, **options: Any
) -> Schema:
    """Return a parameter in "path", "query" or "header"."""
    common = {"name": name, "in": place, "description": text, "schema": schema}
    return common | options


def write_headers(*, exists: bool) -> list[Schema]:
    """
    Return the request headers of a write of something new, or that exists.

    Without examples, which pages for trying requests would send by themselves.
    """
    plain_text: Schema = {"type": "string"}
    found = [
        parameter(
            "Prefer",
            "header",
            plain_text,
            _(
                "`wait=N` (RFC 7240) waits N seconds for the outcome, %d at most, and "
                "answers with it. Without, or if it is not known by then, the answer "
                "is 202."
            )
            % LONGEST_WAIT,
        ),
        parameter(
            "Idempotency-Key",
            "header",
            {**plain_text, "minLength": 1, "maxLength": KEY_LENGTH},
            _(
                "Requests with the same key, caller, method, path and body are one "
                "operation; one with another body fails with 422."
            ),
        ),
        parameter("traceparent", "header", plain_text, _("The trace (W3C) it is in.")),
    ]
    if exists:
        text = _("The write is applied only to this version, else it fails with 412.")
        schema = {**plain_text, "pattern": rf"^({VERSION.pattern}|\*)$"}
        found.append(parameter("If-Match", "header", schema, text))
    return found


def filter_parameters(filterset: Any) -> list[Schema]:
    """Return the parameters of a set of filters; an empty value filters nothing."""
    texts = {"gte": _("At least this value."), "lte": _("At most this value.")}
    return [
        parameter(
            name,
            "query",
            filter_schema(one),
            texts.get(one.lookup_expr, _("Exactly this value.")),
            allowEmptyValue=True,
        )
        for name, one in getattr(filterset, "base_filters", {}).items()
    ]


def filter_schema(one: Any) -> Schema:
    """Return the schema of the value of a filter."""
    if issubclass(one.field_class, WholeNumberField):
        field = one.field_class()
        bounds = {"minimum": field.min_value, "maximum": field.max_value}
        return {"type": "integer", "format": "int64"} | bounds
    if isinstance(one, NumberFilter):
        return {"type": "number", "maximum": one.get_max_validator().limit_value}
    if isinstance(one, MomentFilter):
        return plain({"type": "string", "format": "date-time"})
    return {"type": "string", "pattern": NO_NUL}


def search_parameter(name: str) -> Schema:
    """Return the parameter of a search."""
    text = _("Words that must all be found, %d at most.") % MAX_WORDS
    schema = {"type": "string", "pattern": NO_NUL}
    return parameter(name, "query", schema, text, allowEmptyValue=True)


def ordering_parameter(name: str, fields: Iterable[str]) -> Schema:
    """Return the parameter of an ordering."""
    names = [sign + field for sign in ("", "-") for field in fields]
    schema = {"type": "array", "items": {"type": "string", "enum": names}}
    text = _("One or more fields, separated by commas; a minus is for descending.")
    style = {"style": "form", "explode": False, "allowEmptyValue": True}
    return parameter(name, "query", schema, text, **style)
