"""The commands of a page of `docs/`, run as they are written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

from messaging.lab.servers import RabbitMQ

from . import BASE


def commands(page: str, heading: str, language: str = "sh") -> list[str]:
    """Return the blocks of commands under a heading of a page."""
    text = (BASE / "docs" / page).read_text()
    [section] = re.findall(
        rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL
    )
    found = re.findall(rf"^ *```{language}\n.*?^ *```$", section, re.M | re.S)
    blocks = [textwrap.dedent(one).split("\n", 1)[1] for one in found]
    return [one.removesuffix("```") for one in blocks]


class Shell:
    """A shell with the programs and variables that a page names."""

    def __init__(self, folder: Path, **variables: str) -> None:
        """Use variables in place of those of this process."""
        self.folder = folder
        folder.mkdir(parents=True)
        path = f"{folder}:{os.environ['PATH']}"
        self.environment = os.environ | variables | {"PATH": path}
        self.provide("manage.py", [sys.executable, str(BASE / "manage.py")])

    def provide(self, name: str, command: list[str]) -> None:
        """Let a name stand for a command."""
        script = self.folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o700)

    def provide_mongodb_tools(self) -> None:
        """Let a stand-in do what MongoDB's Database Tools do."""
        for name in ("mongodump", "mongorestore"):
            module = Path(__file__).with_name("mongodb_tools.py")
            self.provide(name, [sys.executable, str(module), name])

    def provide_rabbitmq_tools(self, node: RabbitMQ) -> None:
        """Let RabbitMQ's tools control a private node."""
        own = node.environment.items() - os.environ.items()
        variables = [f"{name}={value}" for name, value in own]
        for name in ("rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-plugins"):
            # Beside rabbitmqctl itself are the others, and not their wrappers.
            program = Path(node.program("rabbitmqctl")).with_name(name)
            self.provide(name, ["env", *variables, str(program)])

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start commands."""
        return subprocess.Popen(
            ["bash", "-euc", script],
            cwd=BASE,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *, code: int | None = 0) -> str:
        """Run commands, which must exit with a code, or any; return what they print."""
        process = self.start(script)
        output, _ = process.communicate(timeout=120)
        assert code in (None, process.returncode), f"{script}\n{output}"
        return output
