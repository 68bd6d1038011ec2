"""Files for deployment name settings that exist, and pass the linters of their kind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from messaging.conf import DEFAULTS
from tests.support import BASE
from tests.support.deployment import (
    COMPOSE,
    MANIFESTS,
    OVERRIDE,
    UNITS,
    compose_variables,
    documented_variables,
    documents,
    image_variables,
    manifest_variables,
    pods,
    read_variables,
    unit_variables,
)

VARIABLES = {
    "Dockerfile": image_variables(),
    **{path.name: compose_variables(path) for path in (*COMPOSE, OVERRIDE)},
    "kubernetes": manifest_variables(),
    "systemd": unit_variables(),
}
#: Of Python and of the shell.
FOREIGN = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
#: What `systemd-analyze security` calls exposed, in tenths: 10 is no protection.
MOST_EXPOSED = 15


def tool(name: str) -> str:
    """Return the path of a program that `make test-all` installs, or skip."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is missing: `make test-all` installs it")
    return found


def run(*command: str, **environment: str) -> str:
    """Run a linter, and return what it prints; fails the test if it finds something."""
    done = subprocess.run(
        command,
        cwd=BASE,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("where", VARIABLES)
def test_each_variable_is_one_that_the_settings_read(where: str) -> None:
    known = read_variables()
    names = VARIABLES[where].keys() - FOREIGN

    assert names
    assert {name.removesuffix("_FILE") for name in names} <= known


def test_each_variable_that_is_read_is_documented_and_each_documented_is_read() -> None:
    by_run = set(re.findall(r'"(PORT)"', (BASE / "project" / "run.py").read_text()))

    assert documented_variables() == read_variables() | by_run


@pytest.mark.parametrize(
    "where", [name for name, found in VARIABLES.items() if "MESSAGING" in found]
)
def test_the_settings_of_messaging_exist(where: str) -> None:
    given = json.loads(VARIABLES[where]["MESSAGING"])

    assert given.keys() <= DEFAULTS.keys()
    for values in given["QUEUES"].values():
        assert values.keys() <= DEFAULTS.keys()


@pytest.mark.parametrize("where", ["compose.prod.yaml", "kubernetes", "systemd"])
def test_no_secret_is_in_a_variable(where: str) -> None:
    secret = {"SECRET_KEY", "IDEMPOTENCY_KEY", "RABBITMQ_URL", "DATABASE_URL"}
    secret |= {"MONGODB_URL"}

    assert not secret & VARIABLES[where].keys()
    assert {f"{name}_FILE" for name in secret} <= VARIABLES[where].keys()


def services() -> dict[str, dict[str, Any]]:
    """Return the services of compose.prod.yaml."""
    found: dict[str, dict[str, Any]] = documents(BASE / "compose.prod.yaml")[0]
    return found["services"]


@pytest.mark.parametrize("name", services())
def test_a_service_in_production_has_few_rights(name: str) -> None:
    service = services()[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert name == "setup" or service["deploy"]["resources"]["limits"]["memory"]
    if "build" not in service:
        assert re.search(r":\d+\.\d+\.\d+", service["image"])


def test_both_compose_files_try_the_same_servers() -> None:
    trial, production = (documents(path)[0]["services"] for path in COMPOSE)
    for name in ("rabbitmq", "mysql", "mongodb"):
        image = trial[name]["image"].replace("-management", "")

        assert image == production[name]["image"]


def test_every_secret_of_compose_is_made() -> None:
    made = (BASE / "deploy" / "compose" / "make-secrets").read_text()
    for one in documents(BASE / "compose.prod.yaml")[0]["secrets"].values():
        name = one["file"].rpartition("/")[2]

        assert name.partition(".")[0] in made


def test_pods_have_few_rights_and_one_image() -> None:
    found = list(pods(MANIFESTS))

    assert len(found) == 5
    for pod in found:
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
    assert len({pod["containers"][0]["image"] for pod in found}) == 1


def test_there_are_at_most_as_many_consumers_as_partitions() -> None:
    [scaling] = documents(BASE / "deploy" / "kubernetes" / "scaling.yaml")
    queues = json.loads(manifest_variables()["MESSAGING"])["QUEUES"].values()

    assert scaling["spec"]["maxReplicaCount"] <= max(q["PARTITIONS"] for q in queues)


def test_the_metrics_that_scale_consumers_exist(tmp_path: Path) -> None:
    [scaling] = documents(BASE / "deploy" / "kubernetes" / "scaling.yaml")
    [trigger] = scaling["spec"]["triggers"]
    series = {
        'messaging_queue_ready{queue="a.0", instance="1"}': 3000,
        'messaging_queue_ready{queue="a.0", instance="2"}': 3000,
        'messaging_queue_in_hand{queue="a.0", instance="1"}': 500,
        'messaging_queue_ready{queue="b.0", instance="1"}': 70,
        'messaging_queue_in_hand{queue="b.0", instance="1"}': 0,
        'messaging_queue_ready{queue="paused.0", instance="1"}': 9000,
        'messaging_queue_in_hand{queue="paused.0", instance="1"}': 0,
        'messaging_queue_paused{queue="paused.0", instance="1"}': 1,
        'messaging_queue_paused{queue="a.0", instance="1"}': 0,
    }
    expected = {"labels": "{}", "value": 3570}
    query = {"expr": trigger["metadata"]["query"], "eval_time": "0m"}
    test = {
        "interval": "1m",
        "input_series": [{"series": k, "values": str(v)} for k, v in series.items()],
        "promql_expr_test": [query | {"exp_samples": [expected]}],
    }
    path = tmp_path / "scaling.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))

    assert "SUCCESS" in run(tool("promtool"), "test", "rules", str(path))


def test_manifests_are_short_enough_to_read() -> None:
    assert sum(len(path.read_text().splitlines()) for path in MANIFESTS) <= 200


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run(tool("hadolint"), "Dockerfile") == ""


def test_compose_files_have_the_form_of_their_schema() -> None:
    check = tool("check-jsonschema")
    paths = map(str, (*COMPOSE, OVERRIDE))
    run(check, "--builtin-schema", "vendor.compose-spec", *paths)


def test_workflows_have_the_form_of_their_schema() -> None:
    paths = map(str, (BASE / ".github" / "workflows").glob("*.yml"))
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *paths)


def test_the_variables_of_the_shell_are_explained_where_they_are_used() -> None:
    text = (BASE / "compose.prod.yaml").read_text()
    lines = re.findall(r"^#   ([A-Z_, ]+)  ", text, re.MULTILINE)
    explained = {name for line in lines for name in line.strip().split(", ")}

    assert set(re.findall(r"\$\{(\w+)", text)) == explained


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_valid(path: Path) -> None:
    if path.stem == "scaling":
        pytest.skip("KEDA's own resource has no schema in kubernetes-validate")
    assert "passed" in run(tool("kubernetes-validate"), "--strict", str(path))


@pytest.mark.parametrize(
    "path", [path for path in UNITS if path.is_file()], ids=lambda path: path.name
)
def test_systemd_finds_nothing_in_the_units(path: Path, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    folder = tmp_path / "units"
    shutil.copytree(path.parent, folder)
    for one in folder.glob("*.service"):
        # The programs are not on this machine.
        one.write_text(
            re.sub(r"/opt/project/\.venv/bin/\w+", "/bin/true", one.read_text())
        )
    paths = {"SYSTEMD_UNIT_PATH": f"{folder}:/usr/lib/systemd/system"}
    run(analyze, "verify", "--man=no", str(folder / path.name), **paths)
    if path.suffix == ".service":
        run(
            analyze, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}",
            str(folder / path.name), **paths,
        )  # fmt: skip
