"""
What a change of the document breaks in programs that were written from the old one.

Of what this project receives, the new document must accept whatever the old one did; of
what it sends, the old one must describe whatever the new one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

#: Keywords that are compared in a way of their own, or that validate nothing.
VALUES = ("type", "enum", "const", "anyOf", "oneOf", "$ref")
PARTS = ("properties", "required", "additionalProperties", "items", "additionalItems")
WORDS = ("title", "description", "default", "examples", "deprecated")
OTHERS = {*VALUES, *PARTS, *WORDS}
LOWEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
HIGHEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
#: Members of bindings that depend on where the project runs.
LOCAL = ("vhost", "bindingVersion")


def breaking_changes(old: Json, new: Json) -> Iterator[str]:
    """Yield a line for each change that breaks other programs, with its path."""
    for name, operation in sorted(old.get("operations", {}).items()):
        if name in new.get("operations", {}):
            comparison = Comparison(old, new, operation["action"] == "send")
            other = new["operations"][name]
            yield from comparison.operations(operation, other, f"operations/{name}")
        else:
            yield f"operations/{name}: removed"


class Comparison:
    """Compares what one operation receives or sends in two documents."""

    def __init__(self, old: Json, new: Json, is_sent: bool) -> None:
        self._old = old
        self._new = new
        self._is_sent = is_sent
        #: Schemas that are being compared, by id: models may contain themselves.
        self._open: set[tuple[int, int]] = set()

    def operations(self, old: Json, new: Json, path: str) -> Iterator[str]:
        """Yield what breaks in an operation."""
        yield from _changed("action", old, new, path)
        yield from self._messages(old, new, path)
        if "reply" in old and "reply" not in new:
            yield f"{path}/reply: removed"
        elif "reply" in old:
            replies = Comparison(self._old, self._new, not self._is_sent)
            yield from replies._messages(old["reply"], new["reply"], f"{path}/reply")

    def _messages(self, old: Json, new: Json, path: str) -> Iterator[str]:
        """Yield what breaks in the channel and messages of an operation or reply."""
        before = resolved(old["channel"], self._old)
        after = resolved(new["channel"], self._new)
        yield from _changed("address", before, after, path)
        yield from _changed("x-binding-arguments", before, after, path)
        yield from _bindings(before, after, path)
        for name, message in before["messages"].items():
            if name in after["messages"]:
                found = after["messages"][name]
                yield from self._message(message, found, f"{path}/{name}")
            else:
                yield f"{path}/{name}: removed"

    def _message(self, old: Json, new: Json, path: str) -> Iterator[str]:
        yield from _changed("contentType", old, new, path)
        for part in ("headers", "x-amqp-properties", "payload"):
            yield from self.schemas(
                old.get(part, {}), new.get(part, {}), f"{path}/{part}"
            )

    def schemas(self, old: Json, new: Json, path: str) -> Iterator[str]:
        """Yield why some value that was right before is not right any more."""
        pair = id(old), id(new)
        if pair in self._open:
            return
        self._open.add(pair)
        before = list(_branches(old, self._old))
        after = list(_branches(new, self._new))
        given, wanted = (after, before) if self._is_sent else (before, after)
        for branch in given:
            candidates = [one for one in wanted if _is_of_type(branch, one)]
            if not candidates:
                yield f"{path}: was {_types(before)}, is {_types(after)}"
                break
            problems = [list(self._misfits(branch, one, path)) for one in candidates]
            yield from min(problems, key=len)
        self._open.discard(pair)

    def _misfits(self, given: Json, wanted: Json, path: str) -> Iterator[str]:
        """Yield why some value of the schema `given` does not match `wanted`."""
        yield from self._values(given, wanted, path)
        for name in sorted(wanted.keys() - OTHERS):
            if not name.startswith("x-") and not _is_within(name, given, wanted):
                yield self._was(path, name, given, wanted)
        yield from self._objects(given, wanted, path)
        yield from self._arrays(given, wanted, path)

    def _values(self, given: Json, wanted: Json, path: str) -> Iterator[str]:
        right, found = values(wanted), values(given)
        if right is not None and (found is None or not _all_in(found, right)):
            before, after = (right, found) if self._is_sent else (found, right)
            yield f"{path}: values were {_listed(before)}, are {_listed(after)}"

    def _objects(self, given: Json, wanted: Json, path: str) -> Iterator[str]:
        """Yield what breaks in the fields of an object."""
        old, new = (wanted, given) if self._is_sent else (given, wanted)
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            if name in after:
                yield from self.schemas(schema, after[name], f"{path}/{name}")
            else:
                yield f"{path}/{name}: removed"
        needed = set(wanted.get("required", ())) - set(given.get("required", ()))
        for name in sorted(needed & after.keys()):
            text = "may be missing now" if self._is_sent else "is required now"
            yield f"{path}/{name}: {text}"
        others, rest = given.get("additionalProperties"), "additionalProperties"
        if wanted.get(rest) is False and others is not False:
            yield self._was(path, rest, given, wanted)
        elif isinstance(wanted.get(rest), dict):
            yield from self.schemas(old.get(rest, {}), new.get(rest, {}), f"{path}/*")

    def _arrays(self, given: Json, wanted: Json, path: str) -> Iterator[str]:
        """Yield what breaks in the items of an array."""
        old, new = (wanted, given) if self._is_sent else (given, wanted)
        before, after = old.get("items", {}), new.get("items", {})
        if isinstance(before, dict) and isinstance(after, dict):
            if before or after:
                yield from self.schemas(before, after, f"{path}/items")
        elif before != after:
            yield f"{path}/items: changed"

    def _was(self, path: str, name: str, given: Json, wanted: Json) -> str:
        old, new = (wanted, given) if self._is_sent else (given, wanted)
        before, after = old.get(name, "none"), new.get(name, "none")
        return f"{path}: {name} was {before}, is {after}"


def resolved(schema: Json, document: Json) -> Json:
    """Return what a reference stands for."""
    while "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _branches(schema: Json, document: Json) -> Iterator[Json]:
    """Yield the alternatives of a schema, each of one type."""
    schema = resolved(schema, document)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            for one in schema[union]:
                yield from _branches(one, document)
            return
    types = schema.get("type")
    for kind in types if isinstance(types, list) else [types]:
        yield schema | {"type": kind} if kind else schema


def _is_of_type(given: Json, wanted: Json) -> bool:
    """Return whether all values of one schema have the type of another."""
    kind, found = wanted.get("type"), given.get("type")
    if not kind:
        return True
    if not found and (listed := values(given)):
        return all(_type_of(value) == kind for value in listed)
    return kind == found or (kind, found) == ("number", "integer")


def _type_of(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return names.get(type(value), "null")


def _types(branches: list[Json]) -> str:
    kinds = [
        one.get("type") or ("a constant" if values(one) else "any") for one in branches
    ]
    return " or ".join(dict.fromkeys(kinds))


def values(schema: Json) -> list[Any] | None:
    """Return the values that a schema lists, or None if it lists none."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _all_in(values: list[Any], others: list[Any]) -> bool:
    return all(value in others for value in values)


def _listed(values: list[Any] | None) -> str:
    return "any" if values is None else ", ".join(map(str, values))


def _is_within(name: str, given: Json, wanted: Json) -> bool:
    """Return whether a keyword of a schema is at least as strict as that of another."""
    limit, found = wanted[name], given.get(name)
    if found is None:
        # What is listed needs no further keyword.
        return values(given) is not None and values(given) == values(wanted)
    if name in LOWEST:
        return bool(found >= limit)
    if name in HIGHEST:
        return bool(found <= limit)
    return bool(found == limit)


def _changed(name: str, old: Json, new: Json, path: str) -> Iterator[str]:
    if old.get(name) != new.get(name):
        yield f"{path}: {name} was {old.get(name)}, is {new.get(name)}"


def _bindings(old: Json, new: Json, path: str) -> Iterator[str]:
    """Yield what has changed of a queue or an exchange."""
    before, after = _flat(old.get("bindings", {})), _flat(new.get("bindings", {}))
    for name in sorted(before.keys() | after.keys()):
        yield from _changed(name, before, after, path)


def _flat(members: Json, prefix: str = "") -> Json:
    found: Json = {}
    for name, value in members.items():
        if isinstance(value, dict):
            found |= _flat(
                value, f"{prefix}{name}." if prefix or name != "amqp" else ""
            )
        elif name not in LOCAL:
            found[f"{prefix}{name}"] = value
    return found
