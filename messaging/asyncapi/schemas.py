"""JSON schemas of bodies, in the draft of AsyncAPI 3 (07)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Model
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaMode,
    JsonSchemaValue,
    JsonSchemaWarningKind,
)
from pydantic_core import core_schema

from messaging.message import Message

#: A character that is not trimmed. `\S` means other ones to each regex engine.
VISIBLE = r"[^\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
#: What clients should send for a time. Other forms of ISO 8601 are understood as well.
TIME = (
    r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?)?$"
)
#: Where the schemas of nested models are in the document.
DEFINITIONS = "#/components/schemas/"

#: Schemas of nested models by name.
Definitions = dict[str, JsonSchemaValue]


class Schemas(GenerateJsonSchema):
    """Describes what is accepted (mode "validation") or sent ("serialization")."""

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Describe a time; one that is received needs no time zone."""
        if self.mode == "serialization":
            return super().datetime_schema(schema)
        return {"type": "string", "pattern": TIME}

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """Describe a text; one that is trimmed counts without the spaces around it."""
        found = super().str_schema(schema)
        if schema.get("strip_whitespace") and (least := found.get("minLength", 0)):
            between = rf"[\s\S]{{{least - 2},}}{VISIBLE}" if least > 1 else ""
            found["allOf"] = [{"pattern": f"{VISIBLE}{between}"}]
        return found

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """Describe a tuple, as draft 07 does."""
        found = super().tuple_schema(schema)
        if "prefixItems" in found:
            rest = found.pop("items", None)
            found["items"] = found.pop("prefixItems")
            if rest is not None:
                found["additionalItems"] = rest
        return found

    def tagged_union_schema(
        self, schema: core_schema.TaggedUnionSchema
    ) -> JsonSchemaValue:
        """Describe a union, without OpenAPI's form of a discriminator."""
        found = super().tagged_union_schema(schema)
        found.pop("discriminator", None)
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles, which repeat the names of fields."""
        return False

    def handle_invalid_for_json_schema(
        self, schema: Any, error_info: str
    ) -> JsonSchemaValue:
        """Describe what JSON schema has no words for as any value."""
        return {}

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Say nothing of what cannot be described."""


def schema_of(
    kind: Any, name: str, definitions: Definitions, mode: JsonSchemaMode = "validation"
) -> JsonSchemaValue:
    """
    Return the schema of a type, as pydantic validates or serializes it.

    Those of nested models are added to `definitions`, under names that begin with
    `name`.
    """
    template = f"{DEFINITIONS}{name}.{{model}}"
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    describe = kind.model_json_schema if is_model else TypeAdapter(kind).json_schema
    found: JsonSchemaValue = describe(
        mode=mode, ref_template=template, schema_generator=Schemas
    )
    for nested, schema in found.pop("$defs", {}).items():
        definitions[f"{name}.{nested}"] = schema
    return found


def command_schema(
    message: type[Message], name: str, definitions: Definitions
) -> JsonSchemaValue:
    """Return the schema of the bodies that are accepted as a message."""
    found = schema_of(message, name, definitions)
    # A queue with one type takes bodies without it, until it has another one.
    return _with_required(found, ["event_type", *found.get("required", ())])


def event_schema(
    message: type[Message], name: str, definitions: Definitions
) -> JsonSchemaValue:
    """Return the schema of the bodies with which an event is published."""
    found = schema_of(message, name, definitions, "serialization")
    required = []
    for field, schema in found.get("properties", {}).items():
        if schema.get("default", ...) is None:
            _without_null(schema)  # it is left out while it is None
        else:
            required.append(field)
    return _with_required(found, required)


def _with_required(schema: JsonSchemaValue, names: Iterable[str]) -> JsonSchemaValue:
    schema.pop("title", None)
    schema.pop("description", None)  # the message has it
    if "properties" in schema:
        schema["required"] = [*dict.fromkeys(names)]
        schema["properties"]["event_type"].pop("default", None)
    return schema


def _without_null(schema: JsonSchemaValue) -> None:
    del schema["default"]
    options = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        schema.update(options[0])
    elif options:
        schema["anyOf"] = options


def rows_schema(
    model: type[Model], fields: Iterable[str], event_type: str | None
) -> JsonSchemaValue:
    """Return the schema of the events of a published model."""
    found: dict[str, JsonSchemaValue] = {}
    if event_type:
        found["event_type"] = {"type": "string", "const": event_type}
    for name in fields:
        found[name] = _column(model._meta.get_field(name))
    return {"type": "object", "properties": found, "required": [*found]}


#: What a column becomes in JSON, by Django's internal types. Others are any value.
COLUMNS: list[tuple[str, JsonSchemaValue]] = [
    ("AutoField BigAutoField SmallAutoField", {"type": "integer"}),
    ("IntegerField BigIntegerField SmallIntegerField", {"type": "integer"}),
    ("PositiveIntegerField PositiveBigIntegerField", {"type": "integer"}),
    ("PositiveSmallIntegerField", {"type": "integer"}),
    ("CharField SlugField TextField", {"type": "string"}),
    ("FileField FilePathField GenericIPAddressField", {"type": "string"}),
    ("DecimalField TimeField", {"type": "string"}),
    ("BinaryField", {"type": "string", "contentEncoding": "base64"}),
    ("BooleanField", {"type": "boolean"}),
    ("FloatField", {"type": "number"}),
    ("DateField", {"type": "string", "format": "date"}),
    ("DateTimeField", {"type": "string", "format": "date-time"}),
    ("UUIDField", {"type": "string", "format": "uuid"}),
]


def _column(field: Any) -> JsonSchemaValue:
    """Return the schema of the value of a column."""
    target = field
    while target.remote_field:  # the key of a related row
        target = target.target_field
    kind = target.get_internal_type()
    found = dict(next((one for names, one in COLUMNS if kind in names.split()), {}))
    if field.null and found:
        found = {"anyOf": [found, {"type": "null"}]}
    if field.help_text:
        found["description"] = str(field.help_text)
    return found
