"""Load on an API, from the compiled generator `wrk`."""

from __future__ import annotations

import random
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "load.lua"


@dataclass(frozen=True)
class Load:
    """What `wrk` counted."""

    seconds: float
    #: By HTTP status.
    answers: dict[str, int]
    #: Connections that failed and answers that did not come, by kind.
    errors: dict[str, int]
    #: Milliseconds, by percentile.
    latency: dict[str, float]

    @property
    def accepted(self) -> int:
        """The number of answers with 202."""
        return self.answers.get("202", 0)

    @property
    def others(self) -> int:
        """The number of requests without such an answer."""
        total = sum(self.answers.values()) + sum(self.errors.values())
        return total - self.accepted


def post_users(port: int, connections: int, seconds: int, token: str) -> Load:
    """Create users from so many connections, another e-mail with each request."""
    return run(port, connections, seconds, token)


def read(port: int, connections: int, seconds: int, token: str, path: str) -> Load:
    """Read a path from so many connections."""
    return run(port, connections, seconds, token, path)


def run(port: int, connections: int, seconds: int, token: str, *path: str) -> Load:
    """Run the script, and return what it counted."""
    output = subprocess.run(
        [
            "wrk", "--threads=1", f"--connections={connections}",
            f"--duration={seconds}s", "--timeout=10s", f"--script={SCRIPT}",
            f"http://127.0.0.1:{port}/users/",
            "--", f"{random.getrandbits(48):012x}", token or "-", *path,
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout  # fmt: skip
    return parse(output)


def parse(output: str) -> Load:
    """Return what the script has printed."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for line in output.splitlines():
        match line.split("\t"):
            case [kind, name, value]:
                found[kind][name] = float(value)
    counts = [
        {name: int(value) for name, value in found[kind].items()}
        for kind in ("answer", "errors")
    ]
    return Load(found["seconds"]["all"], *counts, found["latency"])
