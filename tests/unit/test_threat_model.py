"""What docs/threat-model.md says is tested is tested."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support import BASE

PAGE = (BASE / "docs" / "threat-model.md").read_text()
ROWS = re.findall(r"^\| (API\d+) [^|]+\|[^|]+\|([^|]+)\|$", PAGE, re.MULTILINE)
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
#: Modules by which a program fetches what an address names.
FETCHING = {"urllib.request", "requests", "http.client", "httpx", "aiohttp", "urllib3"}
#: Those that fetch what a setting names, or ask what they have started themselves.
TRUSTED = {
    "messaging/doctor/disk.py",
    "messaging/doctor/limits.py",
    "messaging/lab/sender.py",
    "project/run.py",
}


def test_each_of_the_ten_risks_has_a_test() -> None:
    assert [name for name, _ in ROWS] == [f"API{number}" for number in range(1, 11)]
    assert all("::test_" in tests for _, tests in ROWS)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((BASE / file).read_text())

    assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


def test_nothing_fetches_an_address() -> None:
    """No address that a client gives is one that a server asks (API7)."""
    found = set()
    for folder in ("messaging", "project", "users", "reports"):
        for path in (BASE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    inner = {f"{node.module}.{alias.name}" for alias in node.names}
                    names = {node.module or "", *inner}
                else:
                    continue
                if names & FETCHING:
                    found.add(str(path.relative_to(BASE)))

    assert found == TRUSTED
