"""Running an experiment of the crash lab with a script in place of random faults."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace

from messaging.lab.experiment import Experiment, Options
from messaging.lab.faults import Faults
from messaging.lab.report import report
from messaging.lab.system import Plan, api_command, restart_in


class Script(Faults):
    """Acts once, in the order of `act`, in place of random faults."""

    def act(self) -> None:
        """Do what the experiment is about, while the clients write."""
        raise NotImplementedError

    def pause(self, seconds: float = 4.0) -> None:
        """Let the clients write."""
        time.sleep(seconds)

    def _run(self) -> None:
        try:
            self.act()
        except Exception as error:  # noqa: BLE001 raised again in the main thread
            self.error = error


def run(experiment: type[Experiment], plan_class: type[Plan], options: Options) -> int:
    """Run an experiment with private servers; print its report, return 0 or 1."""
    plan = plan_class.current()
    if plan is None:
        restart_in(None, 1, 1, seed=options.seed, partitions=2)
    if not options.api:
        options = replace(options, api=api_command())
    one = experiment(plan, options, lambda line: print(line, flush=True))  # noqa: T201
    try:
        verdict = one.run()
    finally:
        one.stop()
    for line in report(one, verdict):
        print(line)  # noqa: T201
    if not verdict:
        print(f"Logs are in {plan.directory}")  # noqa: T201
        return 1
    shutil.rmtree(plan.directory)
    sys.stdout.flush()
    return 0
