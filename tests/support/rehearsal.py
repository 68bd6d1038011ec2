"""
Replaces a release by a later one while clients write, and goes back.

    manage.py shell -c "from tests.support.rehearsal import main; main()"
    manage.py shell -c "from tests.support.rehearsal import to_next; to_next()"

The first replaces 0.2.0 by the code of this working tree, and the second one that code
by a next release. Old consumers take what new publishers send, and new ones what old
publishers send.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

from django.db import connection

from messaging.lab.experiment import Experiment, Options
from messaging.lab.program import Program
from messaging.lab.system import Plan, System, api_command
from messaging.lab.verdict import DeadLetter
from messaging.models.parked import Parked

from . import BASE
from .experiments import Script, run
from .next_release import NEW_TYPE, write

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
    """A system whose programs, tables and queues are those of the older release."""

    def __init__(self, plan: Plan, processes: int, manage: str, api: str) -> None:
        #: The working trees.
        self.old, self.new = self.releases(plan.directory)
        at = f"env -C {self.old} {sys.executable}"
        api = api.replace("python", at, 1)
        super().__init__(plan, processes, f"{at} manage.py", api)

    def releases(self, directory: Path) -> tuple[Path, Path]:
        """Return the working trees of 0.2.0 and of today."""
        unpack(directory / "0.2.0")
        return directory / "0.2.0", BASE

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
        """Make tables and queues as the older release does."""
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
        self.check()
        self.replace(system.consumers, system.new)
        self.pause()

    def check(self) -> None:
        """Check what old consumers do with the messages of new publishers."""

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
    """The experiment with 0.2.0."""

    system_class = OldSystem
    faults_class = Upgrade


class TodaysSystem(OldSystem):
    """A system of this working tree, which the next release replaces."""

    def releases(self, directory: Path) -> tuple[Path, Path]:
        """Return the working trees of today and of the next release."""
        write(directory / "next")
        return BASE, directory / "next"


class NextUpgrade(Upgrade):
    """Checks that old consumers let wait what they do not know."""

    def check(self) -> None:
        """Check that the new type waits, and that the new column is filled."""
        try:
            assert Parked.objects.filter(event_type=NEW_TYPE).exists()
            with connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM users_user WHERE canal = 'web'")
                assert cursor.fetchone() > (0,)
        finally:
            connection.close()


class NextRehearsal(Experiment):
    """The experiment with the next release."""

    system_class = TodaysSystem
    faults_class = NextUpgrade

    def dead_letters(self) -> list[DeadLetter]:
        """Return them under the type that the clients know."""
        return [
            replace(one, event_type="user.update")
            if one.event_type == NEW_TYPE
            else one
            for one in super().dead_letters()
        ]


def main() -> None:
    """Run the first one, and exit with its code."""
    rehearse(Rehearsal)


def to_next() -> None:
    """Run the second one, and exit with its code."""
    rehearse(NextRehearsal)


def rehearse(experiment: type[Experiment]) -> None:
    """Run an experiment, and exit with its code."""
    given = Options(seconds=50, processes=2, rate=50, api=api_command())
    sys.exit(run(experiment, Plan, given))
