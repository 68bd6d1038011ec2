"""Functions that are served: their registration, and what one call of them does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from messaging.conf import settings
from messaging.exceptions import InvalidCall, Reject
from messaging.registry import Function, refuse_deferred
from messaging.topology import REJECT, Queue, limits

from .arguments import Parameters
from .protocol import Reply

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A function, the queue of its calls, and how it replies."""

    name: str
    queue: str
    function: Callable[..., Any]
    text: bool
    expose_errors: bool
    durable: bool
    parameters: Parameters = field(repr=False)
    #: Whether a durable queue is declared with a limit of its length.
    limited: bool = True

    @property
    def declaration(self) -> Queue:
        """The queue as it is declared if it does not exist."""
        # A transient queue must be a classic one.
        arguments = {"x-queue-type": settings.QUEUE_TYPE} if self.durable else {}
        if self.has_limit and (limit := limits(self.queue)):
            arguments |= limit | {"x-overflow": REJECT}
        return Queue(self.queue, arguments, self.durable)

    @property
    def has_limit(self) -> bool:
        """Whether the declaration limits the length of the queue."""
        return self.limited and self.durable

    def reply(self, body: bytes, properties: Any) -> Reply:
        """Run the function with the arguments in `body`; return its result or error."""
        try:
            arguments = self.parameters.read(body, properties, text=self.text)
        except InvalidCall as error:
            logger.info("%s refused a payload: %s", self.name, error)
            return Reply.refusal(error)
        except Exception as error:  # noqa: BLE001 a validator may raise anything
            return self._failure(error)
        try:
            return self._result(arguments)
        except Reject as error:
            logger.info("%s refused a call: %s", self.name, error.reason)
            return Reply.failure(error)
        except Exception as error:  # noqa: BLE001 as a function may
            return self._failure(error)

    def _failure(self, error: Exception) -> Reply:
        """Log any other error and return it as a reply, so that the server goes on."""
        logger.exception("%s failed", self.name)
        return Reply.failure(error, exposed=self.expose_errors)

    def _result(self, arguments: dict[str, Any]) -> Reply:
        reply = Reply.of(self.function(**arguments), text=self.text)
        if len(reply.body) > settings.MAX_BODY:
            raise ValueError(f"The result of {self.name} is too large.")
        return reply


#: By name; filled by `@serves` in the `handlers.py` of each app.
served: dict[str, Served] = {}


def serves(
    name: str,
    *,
    queue: str | None = None,
    text: bool = False,
    expose_errors: bool = False,
    durable: bool = True,
    limited: bool = True,
) -> Callable[[Function], Function]:
    """
    Serve a function under `name`, through the queue `queue` (by default `name`).

        @serves("price")
        def price(article: str, amount: Annotated[int, Field(ge=1)] = 1) -> Decimal:

    The arguments are checked against the type hints before it runs; it raises `Reject`
    for what it refuses. It may run twice for one call, if a server dies or loses its
    connection before the reply is confirmed, so it should be idempotent.

    With `text` it replies in plain text instead of JSON. With `expose_errors` callers
    get the messages and tracebacks of its exceptions.

    A queue that is missing is declared as a durable one, whose length is limited by
    `MESSAGING["MAX_QUEUE_BYTES"]`. For other programs that declare the same queue,
    `limited=False` leaves out the limit, and `durable=False` makes it a transient
    classic one without arguments.
    """
    if not name or queue == "":
        raise ImproperlyConfigured("@serves needs a name and a queue.")

    def register(function: Function) -> Function:
        refuse_deferred(function)
        queues = {one.queue: one for one in served.values()}
        other = served.get(name) or queues.get(queue or name)
        if other is not None:
            raise ImproperlyConfigured(
                f"{name!r} is served by two functions: {other.function.__qualname__} "
                f"and {function.__qualname__}. Each needs its own name and queue."
            )
        served[name] = Served(
            name=name,
            queue=queue or name,
            function=function,
            text=text,
            expose_errors=expose_errors,
            durable=durable,
            parameters=Parameters(function),
            limited=limited,
        )
        return function

    return register


def queue_of(name: str) -> str:
    """Return the queue of a name; that of a function served elsewhere is its name."""
    return served[name].queue if name in served else name
