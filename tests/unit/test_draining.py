"""A process that is about to be stopped says so before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.test import RequestFactory

from project.health import live, ready


def test_a_process_is_not_ready_while_its_draining_file_exists(
    settings: Any, tmp_path: Path, rf: RequestFactory
) -> None:
    file = tmp_path / "draining"
    settings.DRAINING_FILE = str(file)
    file.touch()

    answer = ready(rf.get("/health/ready"))

    assert (answer.status_code, json.loads(answer.content)) == (
        503,
        {"status": "draining"},
    )
    assert live(rf.get("/health/live")).status_code == 200
