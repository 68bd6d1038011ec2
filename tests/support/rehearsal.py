"""
Replaces 0.2.0 by the code of this working tree while clients write, and goes back.

    manage.py shell -c "from tests.support.rehearsal import main; main()"

Old consumers take what new publishers send, and new ones what old publishers send.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from messaging.lab.experiment import Experiment, Options
from messaging.lab.program import Program
from messaging.lab.system import Plan, System, api_command

from . import BASE
from .experiments import Script, run

#: The commit that is released as 0.2.0.
RELEASED = "922003e"


def is_known() -> bool:
    """Return whether this clone has that commit."""
    command = ["git", "-C", str(BASE), "cat-file", "-e", f"{RELEASED}^{{commit}}"]
    return subprocess.run(command, capture_output=True).returncode == 0


def unpack(directory: Path) -> None:
    """Write the files of that commit into a directory."""
    command = ["git", "-C", str(BASE), "archive", RELEASED]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")


class OldSystem(System):
    """A system whose programs, tables and queues are those of 0.2.0."""

    def __init__(self, plan: Plan, processes: int, manage: str, api: str) -> None:
        #: The working trees.
        self.old, self.new = plan.directory / "0.2.0", BASE
        unpack(self.old)
        at = f"env -C {self.old} {sys.executable}"
        api = api.replace("python", at, 1)
        super().__init__(plan, processes, f"{at} manage.py", api)

    def manage(self, tree: Path, *command: str) -> None:
        """Run a command of `manage.py` of one of the two."""
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=tree,
            env=os.environ | self.plan.environment(proxied=False),
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def prepare(self) -> None:
        """Make tables and queues as 0.2.0 does."""
        for alias in ("default", "reports"):
            self.manage(self.old, "migrate", "--database", alias)
        self.manage(self.old, "topology", "apply")


class Upgrade(Script):
    """Upgrades, goes back, and upgrades again."""

    system: OldSystem

    def act(self) -> None:
        """Replace one process after the other, consumers first."""
        system = self.system
        publishers = [one for one in system.programs if one not in system.consumers]
        self.pause()
        system.manage(system.new, "upgrade")
        self.pause(2)
        self.replace(system.consumers, system.new)
        self.pause()
        self.replace(publishers, system.new)
        self.pause()
        self.replace(system.consumers, system.old)
        self.pause()
        self.replace(system.consumers, system.new)
        self.pause()

    def replace(self, programs: list[Program], tree: Path) -> None:
        """Stop each program, and start it from another working tree."""
        for program in programs:

            def change(name: str, share: float, program: Program = program) -> None:
                program.stop()
                program.command = ["env", "-C", str(tree), *program.command[3:]]
                program.start()

            self._begin(f"replace {program.name}", program.name, change)
            self.pause(3)


class Rehearsal(Experiment):
    """The experiment."""

    system_class = OldSystem
    faults_class = Upgrade


def main() -> None:
    """Run it, and exit with its code."""
    given = Options(seconds=50, processes=2, rate=50, api=api_command())
    sys.exit(run(Rehearsal, Plan, given))
