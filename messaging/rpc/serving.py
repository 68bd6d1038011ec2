"""Functions that are served to callers: filled by `@serves` in `handlers.py`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from messaging.conf import settings
from messaging.exceptions import InvalidCall, Reject
from messaging.registry import Function, refuse_async

from .arguments import Parameters
from .protocol import Answer, is_json, is_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A function, the queue its calls come through, and how it answers."""

    name: str
    queue: str
    function: Callable[..., Any]
    text: bool
    expose_errors: bool
    durable: bool
    parameters: Parameters = field(repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those its queue is declared with; a transient one is classic."""
        return {"x-queue-type": settings.QUEUE_TYPE} if self.durable else {}

    def read(
        self, body: bytes, content_type: str | None, content_encoding: str | None
    ) -> dict[str, Any]:
        """
        Give the checked arguments of a call.

        A body that does not say what it is, is taken as text by functions that
        answer in text, and by others as JSON if it is such. Raises `InvalidCall`.
        """
        if len(body) > settings.MAX_BODY:
            raise InvalidCall({"": [f"More than {settings.MAX_BODY} bytes."]})
        if content_encoding and content_encoding.lower() not in ("utf-8", "utf8"):
            raise InvalidCall({"": [f"Cannot read {content_encoding!r}; use UTF-8."]})
        known = is_json(content_type) or is_text(content_type)
        if is_json(content_type) or not (known or self.text):
            try:
                return self.parameters.from_json(body)
            except ValueError as error:
                if known or not self.parameters.only:
                    raise InvalidCall({"": [f"Not JSON: {error}."]}) from None
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise InvalidCall({"": ["Neither JSON nor text in UTF-8."]}) from None
        return self.parameters.from_text(text)

    def answer(
        self, body: bytes, content_type: str | None, content_encoding: str | None
    ) -> Answer:
        """Run the function for the body of a call; tell its result, or its failure."""
        try:
            arguments = self.read(body, content_type, content_encoding)
        except InvalidCall as error:
            logger.info("%s refused a payload: %s", self.name, error)
            return Answer.refusal(error)
        try:
            return self._result(arguments)
        except Reject as error:
            logger.info("%s refused a call: %s", self.name, error)
            return Answer.failure(error)
        except Exception as error:
            # The caller is told whatever it is, and the server serves on.
            logger.exception("%s failed", self.name)
            return Answer.failure(error, exposed=self.expose_errors)

    def _result(self, arguments: dict[str, Any]) -> Answer:
        answer = Answer.of(self.function(**arguments), text=self.text)
        if len(answer.body) > settings.MAX_BODY:
            raise ValueError(f"The result of {self.name} is too large.")
        return answer


#: By name.
served: dict[str, Served] = {}


def serves(
    name: str,
    *,
    queue: str | None = None,
    text: bool = False,
    expose_errors: bool = False,
    durable: bool = True,
) -> Callable[[Function], Function]:
    """
    Let others call a function by `name`, through a queue (that name, if none is given).

        @serves("price")
        def price(article: str, amount: Annotated[int, Field(ge=1)] = 1) -> Decimal:

    The arguments are checked against the type hints before it runs; it raises `Reject`
    for what it refuses. It may run twice for one call, if a server dies or the
    connection is lost before the answer is out, so it should be idempotent.

    With `text` it answers in plain text rather than JSON. With `expose_errors` callers
    get messages and tracebacks of its exceptions. `durable=False` makes the queue a
    transient classic one, for systems that declare it so.
    """

    if not name or queue == "":
        raise ImproperlyConfigured("What is served needs a name and a queue.")

    def register(function: Function) -> Function:
        refuse_async(function)
        queues = {one.queue: one for one in served.values()}
        other = served.get(name) or queues.get(queue or name)
        if other is not None:
            raise ImproperlyConfigured(
                f"{name!r} is served by two functions: {other.function.__qualname__} "
                f"and {function.__qualname__}. Give each a name and a queue."
            )
        served[name] = Served(
            name=name,
            queue=queue or name,
            function=function,
            text=text,
            expose_errors=expose_errors,
            durable=durable,
            parameters=Parameters(function),
        )
        return function

    return register


def queue_of(name: str) -> str:
    """Give the queue of a name; what is served elsewhere has the queue of its name."""
    return served[name].queue if name in served else name
