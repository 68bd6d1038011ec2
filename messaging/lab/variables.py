"""The file in which `make run` shows its servers to other commands, while it runs."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def shown(path: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Show variables to this user's other commands, until the end of the block."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    with path.open("w") as file:
        # Ends with this process, however that ends. Its id may be another's then.
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.writelines(f"{name}='{value}'\n" for name, value in variables.items())
        file.flush()
        try:
            yield
        finally:
            path.unlink()


def started(path: Path) -> dict[str, str]:
    """Return the variables that a living `make run` shows; none if there is none."""
    with suppress(OSError), path.open() as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # somebody holds the lock
            return dict(re.findall(r"^(\w+)='(.*)'$", file.read(), re.MULTILINE))
    return {}
