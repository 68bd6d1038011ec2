from __future__ import annotations

import shutil
import signal
import sys
from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import CommandError

from messaging.lab.experiment import Experiment, LabError, Options
from messaging.lab.faults import WEIGHTS
from messaging.lab.report import report
from messaging.lab.server import ServerError
from messaging.lab.system import Plan, api_command, end_leftovers, restart_in
from messaging.management.terminal import TerminalCommand
from messaging.worker import SIGNALS

#: Exit code after Ctrl-C.
INTERRUPTED = 130
FAILURES = "share of the messages that fail one to five times before they succeed"
KEYS = "repeat requests that got no answer"
KINDS = f"only these kinds of {', '.join(map(repr, WEIGHTS))}"


class Command(TerminalCommand):
    """Test under faults that nothing is lost, doubled or reordered."""

    help = (
        "Starts private servers and a full set of processes, sends a random but seeded "
        "stream of operations while it kills processes and cuts connections, then "
        "compares what is stored with what was requested. Exits with 1 on a difference."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of the run."""
        add = parser.add_argument
        add("--seed", type=int, default=1, help="of everything random")
        add("--seconds", type=float, default=60, help="during which faults happen")
        add("--kill-every", type=float, default=3, metavar="SECONDS", help="on average")
        add("--faults", nargs="+", choices=WEIGHTS, metavar="FAULT", help=KINDS)
        add("--processes", type=int, default=4, help="that consume")
        add("--partitions", type=int, help="of each queue; else as in the settings")
        add("--failures", type=float, default=0.0, metavar="SHARE", help=FAILURES)
        add("--rate", type=float, default=80, help="operations per second at most")
        add("--manage", default="python manage.py", help="what runs the commands")
        add("--api", metavar="COMMAND", help='serves HTTP on {port}; "" for none')
        add("--directory", type=Path, help="for logs and data, which stay there")
        add("--idempotency-keys", action=BooleanOptionalAction, default=True, help=KEYS)

    def handle(self, *args: Any, **options: Any) -> None:
        """Restart with settings of the private servers, run, and print the report."""
        plan = Plan.current()
        if plan is None:
            end_leftovers()
            self.restart(options)
        experiment = Experiment(plan, options_of(options), self.say)
        for number in SIGNALS:
            # A program that a shell runs in the background ignores SIGINT at first.
            signal.signal(number, signal.default_int_handler)
        try:
            verdict = experiment.run()
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except (LabError, ServerError) as error:
            raise CommandError(str(error)) from error
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            experiment.stop()
            if options["directory"] is None:
                plan.remove_data()
        for line in report(experiment, verdict):
            self.say(line)
        if not verdict:
            self.say(f"Logs are in {plan.directory}")
            sys.exit(1)
        if options["directory"] is None:
            shutil.rmtree(plan.directory)

    def restart(self, options: dict[str, Any]) -> NoReturn:
        """Check the options, and restart with the settings of private servers."""
        if options["partitions"] is not None and options["partitions"] < 1:
            raise CommandError("A queue has at least one partition: --partitions 1.")
        if not 0 <= options["failures"] <= 1:
            raise CommandError("A share lies between 0 and 1: --failures 0.05.")
        try:
            restart_in(
                options["directory"],
                seed=options["seed"],
                partitions=options["partitions"],
                failures=options["failures"],
            )
        except ServerError as error:
            raise CommandError(str(error)) from error

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.stdout.write(line)
        self.stdout.flush()


def options_of(options: dict[str, Any]) -> Options:
    """Return the options of the run that the command line names."""
    return Options(
        seed=options["seed"],
        seconds=options["seconds"],
        kill_every=options["kill_every"],
        faults=tuple(options["faults"] or WEIGHTS),
        processes=options["processes"],
        rate=options["rate"],
        manage=options["manage"],
        api=api_command() if options["api"] is None else options["api"],
        idempotency_keys=options["idempotency_keys"],
    )
