"""How much memory a process takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def peak(process: subprocess.Popen[bytes]) -> float:
    """Return the peak memory of a process, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1000
