"""Which packages may import which."""

from __future__ import annotations

import ast
import re
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


def test_only_programs_for_development_import_the_lab() -> None:
    """It needs psutil, which is not in requirements.lock."""
    allowed = {"project/run.py", "users/lab.py", "reports/lab.py"}
    allowed |= {"messaging/management/commands/crash_lab.py"}
    # Only if servers of `make run` are there.
    allowed |= {"project/settings/base.py"}
    found = {
        path.relative_to(BASE).as_posix()
        for folder in ("messaging", "project", "users", "reports")
        for path, name in imports(folder)
        if name.startswith("messaging.lab") and "lab" not in path.parent.parts
    }

    assert found == allowed


def test_only_its_own_folder_imports_rest_framework() -> None:
    users = {
        path.relative_to(BASE / "messaging").parts[0]
        for path, name in imports("messaging")
        if name.split(".")[0] == "rest_framework"
    }

    assert users == {"rest_framework"}


def modules() -> dict[str, Path]:
    """Return the modules of `messaging` by dotted name."""
    found = {}
    for path in (BASE / "messaging").rglob("*.py"):
        if "migrations" not in path.parts:
            parts = path.relative_to(BASE).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def internal_imports(name: str) -> Iterator[tuple[str, bool]]:
    """Yield what a module imports of `messaging`, and whether inside a function."""
    path = MODULES[name]
    tree = ast.parse(path.read_text())
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    hints = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in hints:
            source = f"{package}.{node.module or ''}" if node.level else node.module
            for alias in node.names:
                whole = f"{source}.{alias.name}".replace("..", ".")
                target = whole if whole in MODULES else str(source).strip(".")
                if target in MODULES and target != name:
                    yield target, id(node) in inner


def room(name: str) -> str:
    """Return the folder of a module, or a module at the top by its own name."""
    return ".".join(name.split(".")[:2])


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes that are part of a cycle, or lead from one to another."""
    left = {node: set(targets) for node, targets in graph.items()}
    while free := [node for node, targets in left.items() if not targets & left.keys()]:
        for node in free:
            del left[node]
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {target for target, is_inner in internal_imports(name) if not is_inner}
        for name in MODULES
    }

    assert find_cycle(graph) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {room(name): set() for name in MODULES}
    del graph["messaging"]  # the package only lists what is public
    for name in MODULES:
        if room(name) in graph:
            targets = {room(target) for target, _ in internal_imports(name)}
            graph[room(name)] |= targets - {room(name), "messaging"}

    # Only the package itself loads them, when Django's models can be loaded.
    for deferred in DEFERRED:
        importer, target = deferred
        graph[room(importer)].discard(room(target))
    assert find_cycle(graph) == []


#: Imports inside functions: importer and imported.
DEFERRED = {
    # `from messaging import publish` works before Django has loaded its models.
    ("messaging.publish", "messaging.models"),
    ("messaging.outbox.publication", "messaging.models"),
    # Checks read handlers and models, which are loaded when the app is ready.
    ("messaging.apps", "messaging.checks"),
    # pytest loads its plugins before Django is set up.
    ("messaging.pytest_plugin", "messaging.testing"),
}


def test_each_import_inside_a_function_has_a_reason() -> None:
    found = {
        (name, target)
        for name in MODULES
        for target, is_inner in internal_imports(name)
        if is_inner
    }

    assert found == DEFERRED


def test_messaging_has_few_modules_beside_its_folders() -> None:
    assert len(list((BASE / "messaging").glob("*.py"))) <= 20


def length(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_is_too_long_to_read(name: str) -> None:
    assert length(MODULES[name]) <= 350


def test_the_folder_that_applies_messages_stays_small() -> None:
    files = (BASE / "messaging" / "consumer").glob("*.py")

    assert sum(map(length, files)) <= 1800


def documented_path(title: str) -> list[tuple[Path, int]]:
    """Return the files of a path in docs/architecture.md, and their lengths there."""
    text = (BASE / "docs" / "architecture.md").read_text()
    chunks = text.partition(title)[2].split("\n\n")
    table = next(chunk for chunk in chunks if chunk.startswith("|"))
    rows = re.findall(r"^\| \d+ \| `([^`]+)` \| (\d+) \|", table, re.MULTILINE)
    return [(BASE / file, int(lines)) for file, lines in rows]


@pytest.mark.parametrize(
    ("title", "files", "lines"),
    [
        ("## The path of a message", 12, 1500),
        ("From a handler that fails to the dead letter:", 8, 1200),
    ],
)
def test_the_path_of_a_message_is_short_and_documented(
    title: str, files: int, lines: int
) -> None:
    path = documented_path(title)

    assert 5 < len(path) <= files
    assert sum(length(file) for file, _ in path) <= lines
    wrong = {
        str(file.relative_to(BASE)): length(file)
        for file, documented in path
        if abs(length(file) - documented) > 10
    }
    assert wrong == {}
