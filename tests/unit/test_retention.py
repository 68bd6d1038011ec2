"""`docs/retention.md` names all that is stored, and what removes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands

from messaging.conf import DEFAULTS
from tests.support import BASE
from tests.support.deployment import documented_variables

PAGE = (BASE / "docs" / "retention.md").read_text()
ROTATION = BASE / "deploy" / "logrotate" / "project"


def cells(heading: str, number: int) -> list[str]:
    """Return a column of the table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)[2:]
    return [row.split("|")[number] for row in rows]


def test_every_table_and_collection_is_named_and_each_that_is_named_exists() -> None:
    stored = {
        model._meta.db_table for model in apps.get_models(include_auto_created=True)
    }
    named = re.findall(r"`(\w+)`", "".join(cells("Tables and the collection", 0)))

    assert sorted(named) == sorted(stored)


@pytest.mark.parametrize("heading", ["Tables and the collection", "Files"])
def test_the_settings_that_are_named_exist(heading: str) -> None:
    settings = "".join(cells(heading, 3))
    of_messaging = set(re.findall(r'`MESSAGING\["(\w+)"\]`', settings))

    assert of_messaging <= DEFAULTS.keys()
    assert set(re.findall(r"`([A-Z_]+)`", settings)) <= documented_variables()


def test_the_numbers_are_the_defaults() -> None:
    after, setting = (cells("Tables and the collection", n) for n in (2, 3))
    days = {"RETENTION_DAYS": "30 days", "HISTORY_DAYS": "2 days"}

    for name, text in days.items():
        assert text.split()[0] == str(DEFAULTS[name])
        lines = [a for a, s in zip(after, setting, strict=True) if f'"{name}"' in s]
        assert lines
        assert all(text in one for one in lines)


def test_the_commands_that_are_named_exist() -> None:
    removers = " ".join(cells("Tables and the collection", 1))
    names = {one.split()[0] for one in re.findall(r"`([a-z_]+[ \w]*)`", removers)}

    assert "prune_messages" in names
    assert names <= get_commands().keys()


def test_a_log_file_is_rotated_while_a_process_has_it_open(tmp_path: Path) -> None:
    program = shutil.which("logrotate")
    if not program:
        pytest.skip("logrotate is not installed")
    rules, log = tmp_path / "rules", tmp_path / "logs" / "prune.log"
    log.parent.mkdir(mode=0o700)
    rules.write_text(ROTATION.read_text().replace("/var/log/project", str(log.parent)))
    rules.chmod(0o600)
    command = [program, "--state", str(tmp_path / "state")]

    def rotate(option: str, path: Path) -> str:
        done = subprocess.run(
            [*command, option, str(path)], capture_output=True, text=True, check=True
        )
        return done.stderr

    assert "error" not in rotate("--debug", ROTATION).lower()
    with log.open("a") as open_file:
        for text in ("before\n", "after\n"):
            open_file.write(text)
            open_file.flush()
            if text == "before\n":
                rotate("--force", rules)

    assert log.read_text() == "after\n"
    assert log.with_name("prune.log.1").read_text() == "before\n"
