from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import CommandError
from django.db import Error as DatabaseFailure

from messaging import topology
from messaging.amqp.client import connect
from messaging.amqp.public_queue import weaknesses
from messaging.cluster.grants import Grant, grants
from messaging.cluster.repartition import Step, apply, differences, plan
from messaging.exceptions import MessagingError
from messaging.management.definitions import definitions
from messaging.management.terminal import TerminalCommand
from messaging.registry import handlers

#: Exit codes of `plan`.
DONE, FORBIDDEN, TO_DO = 0, 1, 2
#: In the order in which `rabbitmqctl set_permissions` takes them.
PERMISSIONS = ("configure", "write", "read")


class Command(TerminalCommand):
    """Show, plan or make the queues and exchanges that the handlers need."""

    help = "Shows or exports what this project needs of the broker, plans, or applies."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add one subcommand for each action."""
        actions = parser.add_subparsers(metavar="ACTION", required=True)

        def add(name: str, text: str, codes: str = "") -> ArgumentParser:
            action: ArgumentParser = actions.add_parser(
                name,
                help=text,
                description=text,
                epilog=codes,
                formatter_class=RawDescriptionHelpFormatter,
            )
            action.set_defaults(act=getattr(self, name))
            return action

        add("show", "Prints exchanges, queues and bindings as they should be.")
        one = add(
            "plan",
            "Prints what `apply` would do, and what forbids it; changes nothing.",
            "Exit codes: 0 nothing to do, 2 something to do, 1 something is forbidden.",
        )
        one.add_argument("--json", action="store_true", help="one JSON array")
        add(
            "apply",
            "Does what is planned and not forbidden.",
            "Exit codes: 0 all is as it should be, 1 something was forbidden.",
        )
        one = add(
            "permissions",
            "Prints what the broker's user of each kind of process must be permitted.",
        )
        one.add_argument("--json", action="store_true", help="one JSON array")

        one = add(
            "export",
            "Prints a file for `rabbitmqctl import_definitions`, which makes the "
            "topology where MESSAGING['DECLARE'] is False.",
        )
        one.add_argument(
            "--user",
            action="append",
            default=[],
            help="a user of the broker, who gets the permissions that this project "
            "needs then; may be repeated",
        )

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Run the action."""
        try:
            act(**options)
        except (MessagingError, DatabaseFailure) as error:
            raise CommandError(str(error)) from error

    def show(self, **_: Any) -> None:
        """Print what is wanted."""
        for item in topology.declared():
            self.stdout.write(str(item))

    def export(self, *, user: list[str], **_: Any) -> None:
        """Print the definitions file."""
        self.stdout.write(json.dumps(definitions(user), indent=2))

    def plan(self, *, json: bool, **_: Any) -> None:
        """Print the steps, and exit with one of the codes above."""
        with connect("topology") as client:
            steps = list(plan(client))
            queues = sorted(handlers)
            weak = [text for queue in queues for text in weaknesses(client, queue)]
            weak += differences(client)
        if json:
            self.print_json(steps)
        elif not steps:
            self.stdout.write(f"{client.address} has all there should be")
        else:
            for step in steps:
                self.print_step(step)
        if not json:
            for text in weak:
                self.stdout.write(f"Note: {text}")
        forbidden = any(step.obstacles for step in steps)
        sys.exit(FORBIDDEN if forbidden else TO_DO if steps else DONE)

    def apply(self, **_: Any) -> None:
        """Take the steps, and print each before it is taken."""
        forbidden = 0
        with connect("topology") as client:
            for step in apply(client):
                self.print_step(step)
                forbidden += bool(step.obstacles)
        if forbidden:
            raise CommandError(f"Left undone, as said above: {forbidden}")
        self.stdout.write(f"{client.address} has all there should be")

    def permissions(self, *, json: bool, **_: Any) -> None:
        """Print a paragraph, with three patterns, for each kind of process."""
        if json:
            self.print_json(grants())
            return
        for grant in grants():
            patterns = (grant.configure, grant.write, grant.read)
            self.stdout.write(f"{grant.role}: {grant.text}")
            for name, pattern in zip(PERMISSIONS, patterns, strict=True):
                self.stdout.write(f"  {name:<9} '{pattern}'")

    def print_json(self, items: Sequence[Step | Grant]) -> None:
        """Print items as one array."""
        self.stdout.write(json.dumps([item.as_dict() for item in items], indent=2))

    def print_step(self, step: Step) -> None:
        """Print what a step does, and what forbids it."""
        self.stdout.write(step.text)
        for obstacle in step.obstacles:
            self.stdout.write(f"  forbidden: {obstacle}")
        if step.obstacles:
            self.stdout.write(f"  what to do: {step.remedy}")
        self.stdout.flush()
