"""`--profile`: samples where the time of the measured programs goes, with py-spy."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

#: Set by `--profile`.
is_enabled = False
#: Samples a second.
RATE = 200
#: Functions that a profile lists.
LISTED = 25


class Profile:
    """
    A program that is sampled, which takes the right to trace it.

    Does nothing without `--profile`.
    """

    def __init__(self, title: str, pid: int) -> None:
        self.title = title
        self._sampler: subprocess.Popen[bytes] | None = None
        if is_enabled:
            self._file = Path(tempfile.mkstemp(suffix=".profile")[1])
            options = ["--nonblocking", "--subprocesses", "--function", "--format=raw"]
            options += [f"--rate={RATE}", f"--output={self._file}", f"--pid={pid}"]
            self._sampler = subprocess.Popen(
                [str(Path(sys.executable).parent / "py-spy"), "record", *options],
                stdout=subprocess.DEVNULL,
            )

    def finish(self) -> None:
        """End sampling, and print what was found."""
        if self._sampler:
            self._sampler.send_signal(signal.SIGINT)
            self._sampler.wait()
            sys.stdout.write(f"\n{self.title}\n{summary(self._file.read_text())}\n")
            self._file.unlink()


def summary(stacks: str) -> str:
    """Return the functions of collapsed stacks by share of time, own and with calls."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for frames, count in re.findall(r"^(.*) (\d+)$", stacks, re.MULTILINE):
        functions = frames.split(";")
        own[functions[-1]] += int(count)
        for function in set(functions):
            whole[function] += int(count)
    total = own.total() or 1
    lines = ["    own  with calls  function"]
    for function, count in own.most_common(LISTED):
        lines.append(
            f"{count / total:7.1%} {whole[function] / total:11.1%}  {function}"
        )
    return "\n".join(lines)
