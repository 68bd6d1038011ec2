"""A script of the tutorial: its name, its options and the function to run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from messaging import Client, Queue
from messaging.management.listening import listening_client
from messaging.management.options import add_limits

#: Prints a line and flushes it.
Say = Callable[[str], None]
Run = Callable[[Client, Say, Namespace], None]

WAITING = " [*] Waiting for messages. To exit press CTRL+C"


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of a script: the arguments of `add_argument`."""

    names: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Script:
    """One subcommand of `manage.py tutorial`."""

    name: str
    help: str
    add_arguments: Callable[[ArgumentParser], None]
    #: Runs the script and returns the exit code.
    main: Callable[[Say, Namespace], int]


def option(*names: str, **settings: Any) -> Option:
    """Return an option; takes the arguments of `add_argument`."""
    return Option(names, settings)


def script(*options: Option, receives: bool = False) -> Callable[[Run], Script]:
    """
    Turn a function into a script; its docstring is the help text.

    A script that `receives` runs until it is stopped or reaches --count or --timeout.
    """

    def add_arguments(parser: ArgumentParser) -> None:
        for one in options:
            parser.add_argument(*one.names, **one.settings)
        if receives:
            add_limits(parser)

    def make(run: Run) -> Script:
        name = run.__name__

        def main(say: Say, given: Namespace) -> int:
            limits = (given.count, given.timeout) if receives else ()
            with listening_client(f"tutorial-{name}", *limits) as client:
                run(client, say, given)
            return 0

        return Script(name, (run.__doc__ or "").strip(), add_arguments, main)

    return make


def queue_options(default: str) -> tuple[Option, ...]:
    """Return the options that name the queue and say how it is declared."""
    return (
        option("--queue", default=default, help=f"default: {default}"),
        option("--classic", action="store_true", help="classic, not quorum"),
        option(
            "--not-durable",
            action="store_true",
            help="classic; lost when the broker restarts (RabbitMQ 4 may refuse it)",
        ),
    )


def chosen_queue(options: Namespace) -> Queue:
    """Return the queue to declare, by default as RabbitMQ's own tutorials do."""
    if options.classic or options.not_durable:
        return Queue(options.queue, durable=not options.not_durable)
    return Queue(options.queue, {"x-queue-type": "quorum"})


def text(words: list[str], default: str) -> str:
    """Return the words of a message as one text."""
    return " ".join(words) or default


#: The words of a message; quotes are not needed.
MESSAGE = option("message", nargs="*", help="one word or more")
