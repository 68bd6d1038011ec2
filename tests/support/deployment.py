"""The files that say how the project is deployed, as data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from project.production import EXAMINED
from tests.support import BASE

COMPOSE = [BASE / "compose.yaml", BASE / "compose.prod.yaml"]
#: What `make containers` adds to both.
OVERRIDE = BASE / "tests" / "containers" / "mongodb.yaml"
MANIFESTS = sorted((BASE / "deploy" / "kubernetes").glob("*.yaml"))
UNITS = sorted((BASE / "deploy" / "systemd").glob("project-*.*"))
COMMON = BASE / "deploy" / "systemd" / "project-.service.d" / "all.conf"
ENVIRONMENT = BASE / "deploy" / "systemd" / "environment.example"


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def image_variables() -> dict[str, str]:
    """Return the variables that the image sets."""
    text = (BASE / "Dockerfile").read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV (.*)", text, re.MULTILINE)
    return dict(one.split("=", 1) for line in lines for one in line.split())


def compose_variables(path: Path) -> dict[str, str]:
    """Return the variables of services that run the project."""
    services = documents(path)[0]["services"].values()
    mine = [
        one["environment"] for one in services if "build" in one or path == OVERRIDE
    ]
    return {name: value for one in mine for name, value in one.items()}


def manifest_variables() -> dict[str, str]:
    """Return the variables of the pods."""
    every = [one for path in MANIFESTS for one in documents(path)]
    maps = [one["data"] for one in every if one["kind"] == "ConfigMap"]
    return {name: value for one in maps for name, value in one.items()}


def unit_variables() -> dict[str, str]:
    """Return the variables of the systemd units, and of their file of settings."""
    lines = [path.read_text() for path in (*UNITS, COMMON) if path.is_file()]
    given = re.findall(r"^Environment=(.*)", "\n".join(lines), re.MULTILINE)
    pairs = [one for line in given for one in line.split()]
    pairs += re.findall(r"^\w+=.*", ENVIRONMENT.read_text(), re.MULTILINE)
    return dict(one.split("=", 1) for one in pairs)


def read_variables() -> set[str]:
    """Return the variables that the settings read."""
    folder = BASE / "project" / "settings"
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    return {*EXAMINED, *re.findall(r"env\.\w+\(\s*\"(\w+)\"", text)}


def documented_variables() -> set[str]:
    """Return the variables that `.env.example` explains."""
    text = (BASE / ".env.example").read_text()
    return set(re.findall(r"^#?([A-Z][A-Z_]+)=", text, re.MULTILINE))


def pods(manifests: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the specification of each kind of pod."""
    for path in manifests:
        for one in documents(path):
            if one["kind"] == "CronJob":
                yield one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            elif "template" in one.get("spec", {}):
                yield one["spec"]["template"]["spec"]
