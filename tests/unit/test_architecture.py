"""Which packages may import which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import BASE


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Yield each absolute import of the modules below a folder."""
    for path in sorted((BASE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield path, node.module or ""


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        # A reusable app knows no app of this project.
        ("messaging", {"users", "reports", "project", "tests"}),
        # Reports are about users, not the other way round.
        ("users", {"reports", "pika"}),
        ("reports", {"pika"}),
        ("project", {"pika"}),
        ("examples", {"users", "reports", "project", "pika"}),
    ],
)
def test_imports_point_downwards(folder: str, forbidden: set[str]) -> None:
    wrong = [
        f"{path.relative_to(BASE)} imports {name}"
        for path, name in imports(folder)
        if name.split(".")[0] in forbidden
    ]

    assert wrong == []


def test_only_amqp_and_the_lab_import_pika() -> None:
    users = {
        path.relative_to(BASE / "messaging").parts[0]
        for path, name in imports("messaging")
        if name.split(".")[0] == "pika"
    }

    assert users == {"amqp", "lab"}


def test_only_its_own_folder_imports_rest_framework() -> None:
    users = {
        path.relative_to(BASE / "messaging").parts[0]
        for path, name in imports("messaging")
        if name.split(".")[0] == "rest_framework"
    }

    assert users == {"rest_framework"}
