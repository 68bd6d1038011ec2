"""
The failure policy at work: which message is at fault when several fail together.

Application code runs in every step of a batch: validators, keys, handlers, projections.
What it raises is caught here, except by `Context.decode` and for a named `Reject`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from messaging.cluster.time_limit import Abandoned
from messaging.database import is_out_of_space
from messaging.dead_letters.letters import Failure
from messaging.exceptions import SERVER_FAILURES
from messaging.models.lease import LeaseLost

from .circuit_breaker import CircuitOpen
from .context import Context, Part
from .retry import Decision, decide


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a batch, and how to tell a server's failure from a message's."""

    #: Called with messages and None, or with one message and the decision about its
    #: failure. Returns the messages that need another call.
    act: Callable[[Part, Decision | None], Part | None]
    servers_answer: Callable[[], bool]
    server_failures: tuple[type[Exception], ...] = SERVER_FAILURES
    #: The kind of a dead letter that has failed too often.
    kind: str = "exhausted"
    #: Whether it runs within another step, which judges the failures of servers and
    #: those after which the transaction does not survive.
    is_nested: bool = False
    transaction_survives: Callable[[], bool] = lambda: True


class FailurePolicy:
    """Runs steps with the messages of one queue, and isolates those that fail."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        #: How often in a row a batch has had to wait for a server.
        self.server_waits = 0
        #: The message whose own handler was running, if that is known.
        self.in_call: Context | None = None

    def run(self, step: Step, contexts: Part) -> None:
        """
        Run a step with all messages; raise if it has to wait for a server.

        A part that fails is split until the message at fault is alone. The step is then
        repeated with the decision about it, and if that fails with `UNSTORABLE`.
        """
        parts = [contexts] if contexts else []
        while parts:
            part, decision = parts.pop(), None
            while part:
                self.in_call = None
                try:
                    part = step.act(part, decision) or []
                    decision = None
                except (LeaseLost, CircuitOpen, Abandoned):
                    raise
                except BaseException as error:  # users' code may even call sys.exit()
                    if not step.transaction_survives():
                        raise
                    judged = self._judge(error, part, step, decision)
                    unstorable = replace(UNSTORABLE, kind=step.kind, error=error)
                    if judged is None or decision == unstorable:
                        if not step.is_nested:
                            self.server_waits += 1
                        raise
                    if len(part) > 1:
                        part, *others = split(part, self.in_call)
                        parts += reversed(others)  # a stack: the first comes last
                    else:
                        decision = judged if decision is None else unstorable

    def _judge(
        self, error: BaseException, part: Part, step: Step, earlier: Decision | None
    ) -> Decision | None:
        """
        Return what becomes of a single message; None to wait for a server.

        Of several messages it only says whether to wait.
        """
        if earlier is not None and is_out_of_space(error):
            return None  # a full disk takes some rows and not others
        first = part[0]
        return decide(
            error,
            self._queue,
            # With a decision it is not the handler that fails, but the recording.
            0 if earlier else max(context.attempts for context in part),
            parked_for=first.parked_for,
            server_waits=self.server_waits,
            server_failures=step.server_failures,
            servers_answer=step.servers_answer,
            kind=step.kind,
        )


#: Recorded if a message's own failure cannot be stored, with none of its content but
#: the body.
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
    return [one for one in (part[:place], [suspect], part[place + 1 :]) if one]


def portions(contexts: Part) -> Iterator[Part]:
    """Divide messages into transactions: a body that is too large goes alone."""
    for is_large, some in groupby(contexts, key=lambda c: c.is_large):
        if is_large:
            yield from ([context] for context in some)
        else:
            yield list(some)
