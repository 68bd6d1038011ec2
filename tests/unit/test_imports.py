"""What a process imports before it does anything, which delays every command."""

from __future__ import annotations

import subprocess
import sys

from tests.support import BASE

#: What only the API, its documentation, the tests or some handlers need.
LATER = (
    "rest_framework.serializers",
    "drf_spectacular.plumbing",
    "django.test",
    "project.urls",
    "project.access",
    "prometheus_client",
    "fpdf",
    "messaging.rest_framework",
    "messaging.doctor",
    "messaging.lab.system",
)


def test_a_command_imports_no_api_before_it_starts() -> None:
    program = (
        "import sys, django; django.setup(); "
        f"print([name for name in {LATER!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=BASE,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "[]\n"
