"""Messages with the bodies and properties of those that the API publishes."""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pika

from messaging.amqp.encoding import Properties
from messaging.envelope import PARTITION_KEY, Envelope
from messaging.publish import envelope_for
from messaging.topology import partition_for
from users.commands import UserCreate, UserDelete, UserUpdate

from .broker import Post
from .servers import QUEUE

#: The body of a request that creates a user; the e-mail is another one each time.
PERSON = {
    "nombre": "John",
    "apellido": "Doe",
    "email": "EMAIL@example.com",
    "fecha_nacimiento": "1990-01-01T00:00:00",
    "url_foto_perfil": "http://example.com/photo.jpg",
    "biografia": "A test user",
}
#: Users that most updates of a mixed stream are about.
POPULAR = 500


@dataclass(frozen=True)
class Stream:
    """Messages to drain, and by what to know how far they are applied."""

    envelopes: list[Envelope]
    #: How many users there are in the end, if there were `existing` before.
    users: int
    existing: int = 0

    @property
    def last_emails(self) -> dict[str, str]:
        """The e-mail of the last user of each partition."""
        found = (json.loads(e.body) | {"to": e.routing_key} for e in self.envelopes)
        return {one["to"]: one["email"] for one in found if "email" in one}


def email_of(number: int) -> str:
    """Return an e-mail that contains a number, at a random place of an index."""
    return f"{random.getrandbits(48):012x}.{number}@example.com"


def number_of(email: str) -> int:
    """Return the number that `email_of` has put into an e-mail, or -1."""
    found = re.search(r"\.(\d+)@", email)
    return int(found[1]) if found else -1


def creations(emails: Iterable[str]) -> Iterator[Envelope]:
    """Yield a command for each e-mail that creates a user."""
    person = UserCreate.parse(
        PERSON | {"fecha_creacion": datetime.now(UTC).isoformat()}, strict=False
    )
    model = envelope_for(person)
    place, key = PERSON["email"], model.headers[PARTITION_KEY]
    before, after = model.body.split(place.encode())
    for email in emails:
        own_key = key.replace(place.lower(), email)
        yield model.copy(
            body=before + email.encode() + after,
            message_id=str(uuid.uuid4()),
            routing_key=partition_for(QUEUE, own_key),
            headers={PARTITION_KEY: own_key},
        )


def create_only(count: int) -> Stream:
    """Return a stream that creates so many users."""
    return Stream(list(creations(map(email_of, range(count)))), count)


def with_failures(count: int, every: int = 100) -> Stream:
    """Return the same with a taken e-mail in one of `every` messages."""
    emails = [email_of(n) for n in range(count)]
    # Not the last one, by which the end of the stream is known.
    for n in range(every // 2, count - 1, every):
        emails[n] = emails[n - 1]
    return Stream(list(creations(emails)), len(set(emails)))


def mixed(count: int) -> Stream:
    """Return 70 % creations, 20 % updates and 10 % deletions of existing users."""
    deleted = iter(range(POPULAR + 1, POPULAR + count))
    created = creations(email_of(n) for n in range(count))
    envelopes: list[Envelope] = []
    users = existing = POPULAR + count // 5
    for chance in [random.random() for _ in range(count - 1)] + [0]:
        if chance < 0.7:
            envelopes.append(next(created))
            users += 1
        elif chance < 0.9:
            user = random.choice((random.randint(1, POPULAR), existing))
            envelopes.append(envelope_for(UserUpdate(user_id=user, nombre="Ann")))
        else:
            envelopes.append(envelope_for(UserDelete(user_id=next(deleted))))
            users -= 1
    return Stream(envelopes, users, existing)


#: Makes a message of an envelope.
Route = Callable[[Envelope], Post]


def to_partition(envelope: Envelope) -> Post:
    """Return a message as this project publishes it."""
    return Post(
        envelope.exchange, envelope.routing_key, envelope.body, Properties(envelope)
    )


def to_public_queue(envelope: Envelope) -> Post:
    """Return a message as another program publishes it, with no property but one."""
    return Post("", QUEUE, envelope.body, pika.BasicProperties(delivery_mode=2))


def to_queue(name: str) -> Route:
    """Return a route to a queue of another contestant, with the same properties."""

    def route(envelope: Envelope) -> Post:
        return Post("", name, envelope.body, Properties(envelope))

    return route


def row_of(envelope: Envelope) -> tuple[str, dict[str, Any]]:
    """Return the id and the fields of a message."""
    return str(envelope.message_id), json.loads(envelope.body)
