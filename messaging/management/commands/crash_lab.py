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
from messaging.lab.node_faults import NODE_FAULTS, RESTARTS
from messaging.lab.report import report
from messaging.lab.server import ServerError
from messaging.lab.system import Plan, api_command, end_leftovers, restart_in
from messaging.management.terminal import TerminalCommand
from messaging.worker import SIGNALS

#: Exit code after Ctrl-C.
INTERRUPTED = 130
FAILURES = "share of the messages that fail one to five times before they succeed"
KEYS = "repeat requests that got no answer"
#: By the number of the broker's nodes: kinds of faults, and those that are usual.
KINDS = {1: (*WEIGHTS,), 3: (*NODE_FAULTS, *RESTARTS)}
USUAL = {1: KINDS[1], 3: NODE_FAULTS}
FAULTS = f"only these kinds of {'; with --nodes 3 '.join(map(str, KINDS.values()))}"
NODES = "of the broker; with 3, the faults are theirs, for 15 s each, in their order"
APIS = "processes that serve HTTP, behind a proxy if there are several"


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
        add("--nodes", type=int, default=1, choices=KINDS, help=NODES)
        add("--apis", type=int, default=1, help=APIS)
        add("--faults", nargs="+", metavar="FAULT", help=FAULTS)
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
        possible = KINDS[options["nodes"]]
        if unknown := {*(options["faults"] or ())} - {*possible}:
            raise CommandError(
                f"There is no fault {', '.join(sorted(unknown))} with --nodes "
                f"{options['nodes']}: choose from {', '.join(possible)}."
            )
        if "restart programs" in (options["faults"] or ()) and options["apis"] < 2:
            raise CommandError("One process alone would be missed: --apis 2.")
        try:
            restart_in(
                options["directory"],
                options["nodes"],
                options["apis"],
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
        faults=tuple(options["faults"] or USUAL[options["nodes"]]),
        processes=options["processes"],
        rate=options["rate"],
        manage=options["manage"],
        api=api_command() if options["api"] is None else options["api"],
        idempotency_keys=options["idempotency_keys"],
    )
