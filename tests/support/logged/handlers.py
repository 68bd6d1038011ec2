"""Handlers that fail, log, and publish."""

from __future__ import annotations

import logging
from typing import ClassVar, Literal

from django.conf import settings
from django.db import connection

from messaging import Event, Message, call, handles, listens, publish, send, serves

logger = logging.getLogger("project.logged")


class Fail(Message):
    """Fail in the way that it names."""

    event_type: Literal["logged.fail"] = "logged.fail"
    queue: ClassVar = "logged_queue"
    way: str
    address: str

    @property
    def partition_key(self) -> str:
        """The address."""
        return f"email:{self.address}"


class Failed(Event):
    """Published by a handler that does not fail."""

    event_type: Literal["logged.failed"] = "logged.failed"
    address: str

    @property
    def partition_key(self) -> str:
        """The address."""
        return self.address


@handles(Fail)
def fail(message: Fail) -> str:
    """Do what the message says."""
    if message.way == "raise":
        raise LookupError(f"No mailbox {message.address}")
    if message.way == "duplicate":
        with connection.cursor() as cursor:
            for _ in range(2):
                cursor.execute(
                    "INSERT INTO users_user (nombre, apellido, email, fecha_creacion, "
                    "calificacion, numero_reportes, url_foto_perfil, biografia) "
                    "VALUES ('x', 'x', %s, NOW(), 5, 0, '', '')",
                    [message.address],
                )
    if message.way == "secrets":
        raise LookupError(f"{settings.SECRET_KEY} {settings.MESSAGING['URL']}")
    logger.info("Nobody is at %s", message.address)
    publish(Failed(address=message.address))
    send({"to": message.address}, routing_key="logged_heard")
    return "1"


@listens("logged_events_queue", Failed)
def hear(event: Failed) -> str:
    """Call a function."""
    logger.info("Nobody was at %s", event.address)
    call("logged_echo", {"address": event.address})
    return "1"


@serves("logged_echo")
def echo(address: str) -> str:
    """Return the address."""
    logger.info("Calling for %s", address)
    return address
