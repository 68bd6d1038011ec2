"""The app `messaging` in projects other than this one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from packaging.requirements import Requirement

from messaging.lab.servers import PostgreSQL, Server
from tests.support import BASE
from tests.support.broker import virtual_host


@pytest.mark.slow
def test_committed_rows_survive_a_killed_postgresql(postgresql: PostgreSQL) -> None:
    address = postgresql.url.replace("postgres:", "postgresql:")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

    postgresql.kill()
    postgresql.start()

    with psycopg.connect(address, autocommit=True) as connection:
        assert connection.execute("TABLE kept").fetchall() == [(7,)]
        connection.execute("DROP TABLE kept")


def run_suite(*files: str, **environment: str) -> None:
    """Run modules of tests/shop on a given database, where no server is started."""
    command = [sys.executable, "-m", "pytest", "-q", "--create-db", "--noconftest"]
    command += ["--ds=tests.support.shop.settings", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "-p", "messaging.pytest_plugin", "--color=no"]
    done = subprocess.run(
        [*command, *(f"tests/shop/test_{name}.py" for name in files)],
        cwd=BASE,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


def shop(url: str) -> str:
    """Return the URL of a database beside that of this project's own tests."""
    return f"{url.rpartition('/')[0]}/shop"


def test_published_models_emit_events_for_every_change_on_sqlite() -> None:
    run_suite("publishing", "counting", DATABASE_URL="sqlite://:memory:")


@pytest.mark.slow
def test_published_models_emit_events_for_every_change_on_postgresql(
    postgresql: PostgreSQL,
) -> None:
    run_suite("publishing", "counting", DATABASE_URL=shop(postgresql.url))


@pytest.mark.slow
def test_consumers_on_sqlite_do_what_the_broker_in_memory_does(
    servers: SimpleNamespace, tmp_path: Path
) -> None:
    run_suite(
        "twins",
        "memory",
        "delivery",
        DATABASE_URL=f"sqlite:///{tmp_path}/database",
        RABBITMQ_URL=virtual_host("twins-sqlite"),
    )


@pytest.mark.slow
def test_consumers_on_postgresql_do_what_the_broker_in_memory_does(
    servers: SimpleNamespace, postgresql: PostgreSQL
) -> None:
    run_suite(
        "twins",
        "memory",
        "delivery",
        DATABASE_URL=shop(postgresql.url),
        RABBITMQ_URL=virtual_host("twins-postgresql"),
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` builds and installs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(BASE))
    (built,) = folder.glob("*.whl")
    return built


def pip(*arguments: str) -> None:
    """Run pip without a network."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *arguments, "--no-index", "-q"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_contains_all_of_messaging_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tracked = subprocess.run(
        ["git", "ls-files", "messaging"], cwd=BASE, capture_output=True, text=True
    ).stdout.split()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside >= set(tracked)
    assert {name.split("/")[0] for name in inside} == {"messaging"}


class Project:
    """A new project, in an environment with the wheel and its dependencies."""

    def __init__(self, folder: Path, wheel: Path, *drivers: str) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        environment = folder / "venv"
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(environment)],
            check=True,
        )
        self.python = str(environment / "bin" / "python")
        pip("--python", self.python, "install", "--no-deps", str(wheel))
        (packages,) = environment.glob("lib/python*/site-packages")
        for name in requirements(wheel, *drivers):
            link(name, packages)
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("DJANGO_SETTINGS_MODULE", "PYTHONPATH", "DATABASE_URL")
        } | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}

    def command(self, line: str) -> list[str]:
        """Return a command of the documents, for this environment."""
        words = split(line)
        if words[0] == "django-admin":
            return [self.python, "-m", "django", *words[1:]]
        assert words[0] == "python"
        return [self.python, *words[1:]]

    def run(self, line: str) -> str:
        """Run a command of the documents, and return its output."""
        done = subprocess.run(
            self.command(line),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def shell(self, code: str) -> str:
        """Run Python in the project, and return its output."""
        prelude = "from django.db import transaction\nfrom shop.models import *\n"
        command = ["python", "manage.py", "shell", "-v", "0", "-c", prelude + code]
        return self.run(json.dumps(command)).strip()

    @contextmanager
    def running(self, *lines: str) -> Iterator[None]:
        """Run commands in the background while the block runs."""
        processes = [
            subprocess.Popen(self.command(line), cwd=self.folder, env=self.environment)
            for line in lines
        ]
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            codes = [process.wait(15) for process in processes]
        assert codes == [0] * len(lines)

    def write(self, blocks: list[tuple[str, bool, str]]) -> None:
        """Write files of the documents, or append to them."""
        for name, continued, text in blocks:
            path = self.folder / name
            before = path.read_text() if continued else ""
            path.write_text(f"{before}\n{text}" if before else text)


def split(line: str) -> list[str]:
    """Split a command into words."""
    if line.startswith("["):
        words: list[str] = json.loads(line)
        return words
    return [
        word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line.removeprefix("$ "))
    ]


def requirements(wheel: Path, *names: str) -> set[str]:
    """Return all dependencies of a wheel and of `names`, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    found: set[str] = set()
    wanted = [*re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE), *names]
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            found.add(requirement.name)
            wanted += distribution(requirement.name).requires or []
    return found


def link(name: str, packages: Path) -> None:
    """Link an installed distribution into another environment."""
    found = distribution(name)
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        target = packages / top
        if not target.exists():
            target.symlink_to(str(found.locate_file(top)))


BLOCK = re.compile(
    r"^```python\n# (\S+?)(, continued)?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"^\$ ((?:python|django-admin) .*)$", re.MULTILINE)


def files_of(text: str) -> list[tuple[str, bool, str]]:
    """Return the files that a document tells the reader to write."""
    return [(name, bool(more), body) for name, more, body in BLOCK.findall(text)]


@pytest.fixture
def database(
    request: pytest.FixtureRequest, servers: SimpleNamespace
) -> tuple[str, tuple[str, ...]]:
    """Settings that name a database, and the driver it needs."""
    match request.param:
        case "sqlite":
            return "", ()
        case "mariadb":
            return engine("mysql", "root", servers.mariadb), ("mysqlclient",)
        case _:
            server = request.getfixturevalue("postgresql")
            drivers = ("psycopg", "psycopg-binary")
            return engine("postgresql", "postgres", server), drivers


#: What happens in the new project: one more order, and one that is rolled back.
STORY = """
import json, time
with transaction.atomic():
    Order.objects.create(reference="never", total=1)
    transaction.set_rollback(True)
Order.objects.create(reference="A-2", total=1)
deadline = time.monotonic() + 20
while Invoice.objects.count() < 2 and time.monotonic() < deadline:
    time.sleep(0.1)
time.sleep(0.5)  # for events that should not come
published = Invoice.objects.order_by("order_id").values_list("order_id", flat=True)
made = Order.objects.order_by("pk").values_list("pk", flat=True)
print(json.dumps([list(published), list(made)]))
"""


def engine(kind: str, user: str, server: Server) -> str:
    """Return the settings of a database."""
    return (
        f'DATABASES = {{"default": {{"ENGINE": "django.db.backends.{kind}", '
        f'"NAME": "messaging", "USER": "{user}", "PASSWORD": "{server.password}", '
        f'"HOST": "127.0.0.1", "PORT": {server.port}, '
        # Not that of the tests around.
        f'"TEST": {{"NAME": "test_of_document"}}}}}}\n'
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "mariadb", "postgresql"], indirect=True)
def test_a_new_project_does_what_the_document_says(
    tmp_path: Path,
    wheel: Path,
    database: tuple[str, tuple[str, ...]],
    request: pytest.FixtureRequest,
) -> None:
    settings, drivers = database
    text = (BASE / "docs" / "app.md").read_text()
    first = text.partition("## Two files")[2].partition("\n## ")[0]
    project = Project(tmp_path, wheel, *drivers)
    url = virtual_host(request.node.callspec.id)

    *start, migrations, migrate, topology, relay, consumer, save = COMMAND.findall(
        first
    )
    for line in start:
        project.run(line)
    project.write(files_of(first))
    path = project.folder / "mysite" / "settings.py"
    path.write_text(
        path.read_text().replace("amqp://guest:guest@127.0.0.1:5672/", url) + settings
    )
    for line in (migrations, migrate, topology):
        project.run(line)
    assert "no issues" in project.run("python manage.py check")
    with project.running(relay, consumer):
        project.run(save)
        published, made = json.loads(project.shell(STORY))
    assert len(made) == 2
    assert published == made

    project.write(files_of(text.replace(first, "")))
    assert "no issues" in project.run("python manage.py check")
    project.run("python manage.py topology apply")
    project.run("python manage.py test")


@pytest.mark.slow
def test_modules_with_optional_dependencies_name_what_is_missing(
    tmp_path: Path, wheel: Path
) -> None:
    project = Project(tmp_path, wheel)

    for module, extra in (
        ("rest_framework", "rest"),
        ("lab.servers", "lab"),
        ("logs.json_lines", "json-logs"),
    ):
        code = (
            "import django.conf, sys\n"
            "django.conf.settings.configure()\n"
            f"try: import messaging.{module}\n"
            "except ImportError as error: print(error)"
        )
        said = project.run(json.dumps(["python", "-c", code]))
        assert f"[{extra}]" in said


FIXTURE_USED = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="none",
    INSTALLED_APPS=["messaging"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


def test_it(memory_broker):
    from messaging.envelope import Envelope
    from messaging.amqp.publisher import publisher

    publisher().publish(Envelope(b"", "any", "events", mandatory=False))
    assert len(memory_broker.published) == 1
"""


@pytest.mark.slow
def test_installing_the_package_provides_the_pytest_fixture(
    tmp_path: Path, wheel: Path
) -> None:
    project = Project(tmp_path, wheel, "pytest")
    project.write([("test_it.py", False, FIXTURE_USED)])

    assert "1 passed" in project.run("python -m pytest -q")
