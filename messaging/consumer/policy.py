"""
The failure policy at work: who is at fault when messages fail together.

Users' code runs in every step of a batch: validators, keys, handlers, projections. Here
is the one place that catches what it raises, and the one that asks `decide`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from messaging.database import is_out_of_space
from messaging.dead_letters.letters import Failure
from messaging.exceptions import SERVER_FAILURES
from messaging.models.lease import LeaseLost
from messaging.text import describe

from .circuit_breaker import CircuitOpen
from .context import Context
from .retry import Decision, decide

logger = logging.getLogger(__name__)

Part = list[Context]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a batch, and what tells a server's failure in it from a message's."""

    #: Called with messages and None, or with a single one and what was decided of it
    #: after it has failed. Returns those that need another call.
    run: Callable[[Part, Decision | None], Part | None]
    servers_answer: Callable[[], bool]
    server_failures: tuple[type[Exception], ...] = SERVER_FAILURES
    #: The kind of a dead letter that has failed too often.
    kind: str = "exhausted"


class FailurePolicy:
    """Takes steps with messages of one queue, whatever some of them do."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        #: How often in a row the batch has had to wait for a server.
        self.failures = 0
        #: The message whose own handler was running, if that is known.
        self.suspect: Context | None = None

    def take(self, step: Step, contexts: Part) -> None:
        """
        Take one step with all messages; raise if it has to wait for a server.

        What fails together is tried in ever smaller parts, until the message at fault
        is alone. The step is then repeated with what was decided of that message.
        """
        parts = [contexts] if contexts else []
        while parts:
            part, decision = parts.pop(), None
            while part:
                self.suspect = None
                try:
                    part = step.run(part, decision) or []
                    decision = None
                except (LeaseLost, CircuitOpen):
                    raise
                except Exception as error:  # whatever users' code raises
                    judged = self._judge(error, part, step)
                    # A full disk takes some rows and not others.
                    is_full = decision is not None and is_out_of_space(error)
                    if judged is None or decision == UNSTORABLE or is_full:
                        self.failures += 1
                        raise
                    if len(part) > 1:
                        part, *others = split(part, self.suspect)
                        parts += reversed(others)
                    else:
                        decision = judged if decision is None else UNSTORABLE

    def _judge(self, error: Exception, part: Part, step: Step) -> Decision | None:
        """Return what becomes of the first message; None to wait for a server."""
        first = part[0]
        decision = decide(
            error,
            self._queue,
            max(context.attempts for context in part),
            waited=first.waited,
            failures=self.failures,
            server_failures=step.server_failures,
            servers_answer=step.servers_answer,
            kind=step.kind,
        )
        if decision is not None and len(part) == 1:
            logger.warning(
                "Attempt %d of message %s failed: %s",
                first.attempts + 1,
                first.id,
                describe(error),
                # Where it failed is logged once, and when it is given up.
                exc_info=first.attempts == 0 or isinstance(decision, Failure),
            )
        return decision


#: What is recorded of a message whose failure could not be: nothing that it contains
#: but its body.
UNSTORABLE = Failure(
    "exhausted",
    "The message, or the reason of its failure, could not be stored.",
    code="failed",
    is_unstorable=True,
)


def split(part: Part, suspect: Context | None) -> list[Part]:
    """Return the parts before, of and after the suspect; two halves without one."""
    if suspect is None:
        middle = (len(part) + 1) // 2
        return [part[:middle], part[middle:]]
    place = part.index(suspect)
    parts = [part[:place], [suspect], part[place + 1 :]]
    return [one for one in parts if one]
