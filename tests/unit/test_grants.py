"""The documented permissions at the broker are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support import BASE


def test_the_documented_patterns_are_those_that_the_command_prints() -> None:
    """In a process of its own: other tests have registered other queues here."""
    printed = subprocess.run(
        [sys.executable, "manage.py", "topology", "permissions"],
        cwd=BASE,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "project.settings"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = (BASE / "docs" / "operations.md").read_text()
    section = text.partition("## Rights at the broker")[2]

    assert re.findall(r"```text\n(.*?)```", section, re.DOTALL)[:1] == [printed]
