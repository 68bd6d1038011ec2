"""
How long users' code may run, and the takeover of a partition from a thread that hangs.

A thread of Python cannot be killed. One in which a call exceeds its limit is abandoned:
its database session is ended, and another thread takes over the partition, under a new
epoch of the lease. `Abandoned` is raised in the old thread when it next executes Python
code, which may be never. The messages are delivered again, and the call fails at once,
so that the failure policy does the rest.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging.amqp.backoff import Backoff
from messaging.conf import settings
from messaging.database import balanced
from messaging.envelope import Delivery
from messaging.exceptions import TimeLimitExceeded
from messaging.logs.context import Handling, fields_of_all, work
from messaging.logs.repetition import RepeatingLogger
from messaging.traces.spans import processing

if TYPE_CHECKING:
    from .leases import HeldLease

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)

#: Seconds after which a call is reported.
LONG = 10.0
#: Seconds between two looks at a thread.
LOOK = 0.5
#: Abandoned threads with which a process goes on; each keeps its batch in memory.
MAX_ABANDONED = 8

Result = TypeVar("Result")


class Abandoned(BaseException):
    """Ends a thread from which another one has taken over."""


class Call:
    """A call of users' code that is running."""

    def __init__(self, messages: Sequence[Delivery]) -> None:
        self.messages = messages
        self.thread = threading.get_ident()
        self.is_reported = False
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._started

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of log lines about it."""
        duration = round(self.seconds * 1000, 1)
        return fields_of_all(self.messages) | {"duration": duration}


class Watch:
    """Knows which call of users' code is running in the thread of one partition."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._call: Call | None = None
        #: The thread that works; unknown without `supervise`.
        self._thread: int | None = None
        #: Messages whose call exceeded its limit, until they are decided.
        self._overdue: set[str] = set()
        #: The same for a call with several, of which one is at fault.
        self._overdue_together: set[str] = set()
        #: What is left of the hooks of the last transaction, in Django's own list.
        self.hooks: list[Any] = []

    def begin(self) -> None:
        """Make this thread the one that works, and run the hooks left by another."""
        self._thread = threading.get_ident()
        while self.hooks:
            self.hooks.pop(0)[1]()

    def check(self) -> None:
        """Raise `Abandoned` in a thread from which another one has taken over."""
        thread = threading.get_ident()
        if self._thread not in (None, thread):
            _raise_in(thread, None)  # it is raised here
            raise Abandoned

    def call(
        self,
        function: Callable[[Any], Result],
        argument: Any,
        messages: Sequence[Delivery],
    ) -> Result:
        """
        Call a function for messages, and return its result.

        Raises `TimeLimitExceeded` for a message whose last call exceeded its limit. If
        that was a call with several, it is raised until they are tried one by one.
        """
        several = len(messages) > 1
        refused = self._overdue | self._overdue_together if several else self._overdue
        if refused and not refused.isdisjoint(one.mark for one in messages):
            raise TimeLimitExceeded
        with self.timed(messages), processing(messages):
            return function(argument)

    @contextmanager
    def timed(self, messages: Sequence[Delivery]) -> Iterator[None]:
        """
        Limit the time of a `with` block of users' code.

        Raises `Abandoned` if it was exceeded, whatever else the code raises, and what
        `balanced` raises.
        """
        self.check()
        self._call = Call(messages)
        token = work.set(Handling(messages))
        try:
            with balanced(settings.DATABASE):
                yield
        finally:
            work.reset(token)
            with self._lock:
                self.check()
                self._call = None

    def portion(self, ids: Sequence[str]) -> int:
        """Return how many messages to process together, up to the first overdue one."""
        return next((n for n, pk in enumerate(ids, 1) if pk in self._overdue), len(ids))

    def settled(self, ids: Sequence[str]) -> None:
        """Forget the calls of messages that are decided."""
        self._overdue.difference_update(ids)
        self._overdue_together.difference_update(ids)

    def warning(self) -> tuple[str, str] | None:
        """Return what a call that takes long is for, and what to do."""
        call = self._call  # read once: it may end meanwhile
        if call is None or call.seconds < LONG:
            return None
        text = f"has been processing {named(call.messages)} for {call.seconds:.0f} s"
        return text, "See what its handler waits for; TIME_LIMIT is the longest."

    def report(self) -> None:
        """Log a call that takes long, once."""
        call = self._call
        if call and not call.is_reported and call.seconds >= LONG:
            call.is_reported = True
            text = "The call for %s of %s has been running for %d s"
            extra = call.fields
            values = (named(call.messages), self._queue, call.seconds)
            logger.warning(text, *values, extra=extra)

    def abandon(self) -> bool:
        """Abandon the thread if its call exceeds the limit; return whether it does."""
        limit = settings.of(self._queue, "TIME_LIMIT")
        with self._lock:
            call = self._call
            if call is None or limit is None or call.seconds < limit:
                return False
            self._call, self._thread = None, 0
            marks = [one.mark for one in call.messages]
            (self._overdue_together if len(marks) > 1 else self._overdue).update(marks)
            frame = sys._current_frames().get(call.thread)
            _raise_in(call.thread, Abandoned)
        stack = "".join(traceback.format_stack(frame))
        logger.error(
            "The call for %s of %s has not returned within %g s",
            named(call.messages),
            self._queue,
            limit,
            extra=call.fields | {"traceback": stack},
        )
        return True


class WatchedConsumer(Protocol):
    """What `supervise` needs of the consumer of a partition."""

    #: The broker's name of the partition.
    name: str
    watch: Watch
    #: Called when it has released its lease, or has lost it.
    on_release: Callable[[], None]

    @property
    def lease(self) -> HeldLease | None:
        """The lease under which it works now."""

    def run(self) -> None:
        """Process batches until it is stopped."""

    def drop_lease(self) -> None:
        """Stop consuming the partition, until a lease is granted."""


class _Thread(threading.Thread):
    """Runs a consumer, and keeps what it raises."""

    error: BaseException | None = None

    def __init__(self, consumer: WatchedConsumer) -> None:
        super().__init__(name=consumer.name, daemon=True)
        self._consumer = consumer
        self.start()

    def run(self) -> None:
        """Run the consumer."""
        try:
            self._consumer.watch.begin()
            self._consumer.run()
        except BaseException as error:  # noqa: BLE001 `supervise` raises it
            self.error = error
        finally:
            connections.close_all()


#: Threads of this process that were abandoned and have not ended.
_abandoned: list[threading.Thread] = []


def supervise(consumer: WatchedConsumer) -> None:
    """
    Run a consumer in a thread, and in another one whenever it hangs.

    Raises what the consumer raises, and `TimeLimitExceeded` if too many threads hang:
    the process should then end.
    """
    thread = _Thread(consumer)
    while thread.is_alive():
        thread.join(LOOK)
        consumer.watch.report()
        if consumer.watch.abandon():
            _abandoned[:] = [one for one in (*_abandoned, thread) if one.is_alive()]
            if len(_abandoned) > MAX_ABANDONED:
                raise TimeLimitExceeded(f"{len(_abandoned)} calls do not return.")
            _end_session(consumer)
            consumer.drop_lease()
            consumer.on_release()
            thread = _Thread(consumer)
    if thread.error is not None:
        raise thread.error


def _end_session(consumer: WatchedConsumer) -> None:
    """End the session of the thread that hangs, which has locked the lease."""
    lease, pause = consumer.lease, Backoff()
    while lease is not None:
        try:
            lease.end_session()
            break
        except DatabaseFailure as error:
            text = "The session of %s remains: %s"
            repeating.warning(text, consumer.name, error, about=consumer.name)
            connections.close_all()
            time.sleep(pause())
    connections.close_all()


def named(messages: Sequence[Delivery]) -> str:
    """Return a text that names messages by their ids."""
    others = f" and {len(messages) - 1} others" if len(messages) > 1 else ""
    return f"message {messages[0].message_id}{others}"


def _raise_in(thread: int, exception: type[BaseException] | None) -> None:
    """Raise an exception in another thread; with None, take a pending one back."""
    raised = ctypes.py_object(exception) if exception else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
