"""What is installed is what was locked, and what was locked is what is listed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import BASE

#: Each list of packages, and the file with their hashes.
LOCKS = {
    "requirements.txt": "requirements.lock",
    "requirements-dev.txt": "requirements-dev.lock",
}


def lines(name: str) -> list[str]:
    """Return the requirements in a file, with those of a file that it includes."""
    found = []
    for line in (BASE / name).read_text().splitlines():
        given = re.sub(r"(^|\s)#.*", "", line).strip()
        if given.startswith("-r "):
            found += lines(given.removeprefix("-r "))
        elif given:
            found.append(given)
    return found


def locked(name: str) -> dict[str, Requirement]:
    """Return the requirements in a lock by name; fails if one has no hash."""
    text = (BASE / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        requirement, *hashes = line.split("--hash=sha256:")
        assert hashes, requirement
        assert all(re.fullmatch(r"[0-9a-f]{64}\s*", one) for one in hashes)
        parsed = Requirement(requirement)
        found[canonicalize_name(parsed.name)] = parsed
    return found


@pytest.mark.parametrize(("listed", "lock"), LOCKS.items())
def test_a_lock_has_the_listed_versions(listed: str, lock: str) -> None:
    """If not, run `make lock`."""
    found = locked(lock)
    for line in lines(listed):
        wanted = Requirement(line)

        assert len(wanted.specifier) == 1, f"{line} names no version"
        assert found[canonicalize_name(wanted.name)].specifier == wanted.specifier


@pytest.mark.parametrize("lock", LOCKS.values())
def test_a_lock_has_all_that_its_packages_need(lock: str) -> None:
    found = locked(lock)
    names = [name for name, one in found.items() if not one.marker]
    for name in names:
        for line in distribution(name).requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                version = found[canonicalize_name(needed.name)].specifier

                assert needed.specifier.contains(str(version).lstrip("="), True)


def test_the_locks_agree() -> None:
    application, development = map(locked, LOCKS.values())

    assert application.items() <= development.items()


def test_what_is_locked_is_within_the_ranges_of_the_wheel() -> None:
    project = tomllib.loads((BASE / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = locked("requirements-dev.lock")
    for line in [
        *project["dependencies"],
        *(one for e in extras.values() for one in e),
    ]:
        needed = Requirement(line)
        version = found[canonicalize_name(needed.name)].specifier

        assert needed.specifier.contains(str(version).lstrip("=")), line


def test_only_what_is_locked_gets_to_production() -> None:
    docker = (BASE / "Dockerfile").read_text()
    setup = (BASE / "project" / "setup.sh").read_text()

    assert "pip install --no-cache-dir --require-hashes -r requirements.lock" in docker
    assert re.search(r"--require-hashes \\\n\s+-r requirements-dev\.lock", setup)
