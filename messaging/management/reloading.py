"""Start the command that is running anew whenever code changes; for development."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from django.apps import apps
from django.utils.autoreload import StatReloader

from messaging.worker import SIGNALS, on_stop

#: Seconds between two looks.
LOOK = 0.2
#: Seconds between two looks at all files.
SWEEP = 1.0
#: The option that this command has, and its child must not have.
OPTION = "--reload"


def run_reloading() -> int:
    """
    Run this command without `--reload` in a process of its own; give an exit code.

    When a file changes, that process is stopped as SIGTERM does, finishing what it has
    in hand, and started again. If it ends by itself, as it does when the code is
    broken, the next change starts it again.
    """
    asked: list[bool] = []
    files = Files()
    with on_stop(lambda: asked.append(True)):
        while not asked:
            child = _start()
            while not (asked or child.poll() is not None or files.change()):
                time.sleep(LOOK)
            is_over = child.poll() is not None
            code = _stop(child)
            if asked or (is_over and not code):
                return code
            if is_over:
                sys.stderr.write(f"Ended with exit code {code}; waiting for a change\n")
                while not (asked or files.change()):
                    time.sleep(LOOK)
    return 0


class Files:
    """All modules that are loaded, and all there are in the project's own apps."""

    def __init__(self) -> None:
        self._watcher = StatReloader()
        for config in apps.get_app_configs():
            if "site-packages" not in config.path:
                self._watcher.watch_dir(Path(config.path), "**/*.py")
        self._times = self._look()
        self._next = 0.0

    def change(self) -> bool:
        """Whether a file has changed since it was last asked."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + SWEEP
        before, self._times = self._times, self._look()
        changed = {item[0] for item in before.items() ^ self._times.items()}
        for path in sorted(changed):
            sys.stderr.write(f"{path} has changed\n")
        return bool(changed)

    def _look(self) -> dict[Path, float]:
        return dict(self._watcher.snapshot_files())


def _start() -> subprocess.Popen[bytes]:
    arguments = [argument for argument in sys.argv if argument != OPTION]
    return subprocess.Popen([sys.executable, *arguments])  # noqa: S603 itself


def _stop(child: subprocess.Popen[bytes]) -> int:
    """End a process in order; give its exit code."""
    if child.poll() is None:
        # After a terminal's Ctrl-C, which it has had as well, that does no harm.
        child.send_signal(signal.SIGTERM)
    while (code := child.poll()) is None:
        time.sleep(LOOK)
    # It may not have got so far as to wait for signals.
    return 0 if -code in SIGNALS else code
