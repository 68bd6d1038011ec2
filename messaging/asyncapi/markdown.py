"""The page of the docs about messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.utils.translation import override

from .reference import Body, Field, Section, reference

HEAD = """\
# Reference of the messages

Made by `manage.py asyncapi --markdown` from the definitions of the messages, like
[asyncapi.json](asyncapi.json), which is for programs. [Messages](messages.md) explains
properties, order and repetitions.

A program publishes commands to the default exchange, with the name of the queue as
routing key. It receives events from a queue of its own, which it binds to the exchange.
It calls a function by sending to its queue, with `reply_to` and `correlation_id`.

Texts are trimmed before their length counts. A field that is null counts as absent,
unless its type says that it may be null, and unknown fields are ignored. Whole numbers
have no decimal point. Times are in ISO 8601, and in UTC without a time zone.
"""
#: What an address is, by the title of its chapter.
WHERE = {
    "Events": "Exchange and routing key",
    "Messages of other programs": "Taken from",
}


def markdown(document: dict[str, Any]) -> str:
    """Return a document as a page, in English."""
    with override("en"):
        return "".join(_lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    found = reference(document)
    yield HEAD
    for title, sections in (
        ("Commands", found.queues),
        ("Events", found.events),
        ("Functions", found.functions),
        ("Messages of other programs", found.listeners),
    ):
        if sections:
            yield f"\n## {title}\n"
        for section in sections:
            yield from _section(section, title)


def _section(section: Section, title: str) -> Iterator[str]:
    yield f"\n### {section.name}\n"
    yield f"\n{WHERE.get(title, 'Queue')}: `{section.address}`.\n"
    for body in section.bodies:
        yield from _body(body, is_alone=len(section.bodies) == 1)
    for body in section.replies:
        yield f"\nReply: {body.name}. {body.text}\n"
        yield from _table(body.fields)


def _body(body: Body, is_alone: bool) -> Iterator[str]:
    if not is_alone:
        yield f"\n#### {body.name}\n"
    if body.text:
        yield f"\n{body.text}\n"
    if body.key:
        yield f"\nPartition key: {body.key}\n"
    yield from _table(body.fields)
    for example in body.examples:
        yield f"\n```json\n{example}\n```\n"


def _table(fields: list[Field]) -> Iterator[str]:
    if not fields:
        return
    yield "\n| Field | Type | Limits | Required | Meaning |\n|---|---|---|---|---|\n"
    for field in fields:
        name = f"`{field.name}`" if field.name else "the body"
        required = "yes" if field.is_required else ""
        cells = (name, field.kind, field.limits, required, field.meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
