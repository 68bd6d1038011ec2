"""Settings that are unsafe outside development are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from tests.support import BASE


def manage(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `manage.py` with settings as on a server."""
    servers = {"DATABASE_URL": "sqlite://:memory:", "MONGODB_URL": "mongodb://x/y"}
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *command],
        cwd=BASE,
        env={"DEBUG": "0", "OPEN_ACCESS": "0", "IDEMPOTENCY_KEY": KEY}
        | servers
        | environment,
        capture_output=True,
        text=True,
    )


KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_without_settings_one_line_says_what_to_do() -> None:
    """An empty key is that of `.env.example`, and hides one in a developer's `.env`."""
    for command in ("check", "migrate", "run_consumer"):
        refused = manage(command, SECRET_KEY="")

        assert refused.returncode == 1
        assert refused.stdout == ""
        assert refused.stderr.count("\n") == 1
        assert "make run" in refused.stderr
        assert ".env.example" in refused.stderr


def test_a_python_without_django_is_refused_in_one_line() -> None:
    # Without the modules that are installed.
    refused = subprocess.run(
        [sys.executable, "-S", "-I", "manage.py", "check"],
        cwd=BASE,
        capture_output=True,
        text=True,
    )

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "make run" in refused.stderr


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    mistake = (
        "from django.core.exceptions import ImproperlyConfigured; "
        "raise ImproperlyConfigured('mistake')"
    )
    failed = manage("shell", "--no-imports", "-c", mistake, SECRET_KEY=KEY)

    assert failed.returncode == 1
    assert "Traceback" in failed.stderr


def test_the_command_describes_the_token_and_refuses_unknown_roles() -> None:
    both = manage(
        "issue_token", "Ana", "--role", "moderator", "--role", "editor", SECRET_KEY=KEY
    )
    nothing = manage("issue_token", "Ana", SECRET_KEY=KEY)
    other = manage("issue_token", "Ana", "--role", "rey", SECRET_KEY=KEY)

    claims = jwt.decode(both.stdout.strip(), options={"verify_signature": False})
    assert (claims["sub"], claims["roles"]) == ("Ana", ["editor", "moderator"])
    assert claims["iss"] == claims["aud"] == "usuarios-y-reportes"
    assert 599 < claims["exp"] - claims["iat"] <= 600
    assert both.stderr.startswith("Token for Ana, valid until ")
    assert both.stderr.endswith("UTC; roles: editor, moderator.\n")
    assert nothing.stderr.endswith("roles: none, it allows nothing.\n")
    assert other.returncode != 0
    assert "invalid choice: 'rey'" in other.stderr


def test_a_token_for_a_program_lasts_days_and_one_for_a_user_names_him() -> None:
    made = manage(
        "issue_token", "Ana", "--days", "90", "--user-id", "5", SECRET_KEY=KEY
    )
    longer = manage("issue_token", "Ana", "--days", "91", SECRET_KEY=KEY)

    claims = jwt.decode(made.stdout.strip(), options={"verify_signature": False})
    assert claims["user_id"] == 5
    assert round(claims["exp"] - claims["iat"], -1) == 90 * 24 * 3600
    assert longer.returncode != 0


@pytest.mark.parametrize(
    "name", ["SECRET_KEY", "SECRET_KEY_FALLBACKS", "IDEMPOTENCY_KEY"]
)
def test_a_short_key_is_refused_in_one_line_that_does_not_show_it(name: str) -> None:
    short = KEY[:31]

    refused = manage("check", **{"SECRET_KEY": KEY, name: short})

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"{name} must be set to a random text of 32 bytes" in refused.stderr
    assert short not in refused.stderr


def test_accounts_cannot_refresh_tokens_for_longer_than_revocations_are_kept() -> None:
    refused = manage("check", SECRET_KEY=KEY, REFRESH_DAYS="91")

    assert refused.returncode == 1
    assert refused.stderr == "REFRESH_DAYS must be a number from 1 to 90.\n"


def test_production_needs_a_key_that_recognises_repeated_requests() -> None:
    refused = manage("check", SECRET_KEY=KEY, IDEMPOTENCY_KEY="")

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "IDEMPOTENCY_KEY must be set" in refused.stderr


def test_open_access_is_refused_outside_development() -> None:
    refused = manage("check", OPEN_ACCESS="1", SECRET_KEY=KEY)

    assert refused.returncode != 0
    assert "OPEN_ACCESS=1 lets anyone write; it needs DEBUG=1." in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["LOG_FORMAT", "LOG_LEVEL"])
def test_an_unknown_way_to_log_is_refused_in_one_line(name: str) -> None:
    refused = manage("check", SECRET_KEY=KEY, **{name: "xml"})

    assert refused.returncode == 1
    assert f"{name} must be " in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_check_for_deployment_finds_nothing() -> None:
    checked = manage(
        "check", "--deploy", "--fail-level", "WARNING",
        SECRET_KEY=KEY, DATABASE_URL="mysql://x:y@127.0.0.1/z",
    )  # fmt: skip

    assert checked.returncode == 0, checked.stderr
    assert checked.stdout == "System check identified no issues (2 silenced).\n"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mongodb://127.0.0.1:27017", "reports"),
        ("mongodb+srv://u:secret@host/", "reports"),
        ("mongodb://a:1,b:2/other?tlsCAFile=/etc/ssl/ca", "other"),
    ],
)
def test_the_database_of_reports_is_taken_from_its_url(url: str, name: str) -> None:
    script = (
        "from django.conf import settings as s; print(s.DATABASES['reports']['NAME'])"
    )

    done = manage(
        "shell", "--no-imports", "-c", script, MONGODB_URL=url, SECRET_KEY=KEY
    )

    assert done.stdout.strip().splitlines()[-1] == name


RUN = {
    "RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:1/",
    "DATABASE_URL": "mysql://root@127.0.0.1:2/messaging",
    "MONGODB_URL": "mongodb://127.0.0.1:3/reports",
    "MONGODB_ENGINE": "messaging.lab.nx_mongodb",
    "DEBUG": "1",
    "OPEN_ACCESS": "1",
}
SHOW = """
import runpy, sys
found = runpy.run_path(sys.argv[1])
broker, databases = found["MESSAGING"]["URL"], found["DATABASES"]
print(broker, databases["reports"]["HOST"], databases["default"]["PORT"])
print(databases["reports"]["ENGINE"], found["DEBUG"], found["OPEN_ACCESS"])
"""
REAL = "mongodb://mongodb.example.com/reports"
OF_RUN = f"{RUN['RABBITMQ_URL']} {RUN['MONGODB_URL']} 2 {RUN['MONGODB_ENGINE']}"
DEFAULTS = "amqp://guest:guest@127.0.0.1:5672/ {} 3306 django_mongodb_backend"


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, f"{OF_RUN} True True"),
        # The same server, as for the processes of the run itself.
        ({"MONGODB_URL": RUN["MONGODB_URL"]}, f"{OF_RUN} True True"),
        ({"OPEN_ACCESS": "0"}, f"{OF_RUN} True False"),
        # Another server takes nothing from the run, above all no open access.
        ({"MONGODB_URL": REAL}, f"{DEFAULTS.format(REAL)} False False"),
        (
            {"MONGODB_ENGINE": "django_mongodb_backend"},
            f"{DEFAULTS.format('mongodb://127.0.0.1:27017/reports')} False False",
        ),
    ],
)
def test_the_servers_of_make_run_are_taken_all_or_none(
    environment: dict[str, str], shown: str, tmp_path: Path
) -> None:
    settings = tmp_path / "project" / "settings.py"
    settings.parent.mkdir()
    shutil.copy(BASE / "project" / "settings.py", settings)
    lines = [f"# pid {os.getpid()}", *(f"{k}='{v}'" for k, v in RUN.items())]
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local" / "servers.env").write_text("\n".join(lines))

    done = subprocess.run(
        [sys.executable, "-c", SHOW, settings],
        env={"SECRET_KEY": KEY, "IDEMPOTENCY_KEY": KEY} | environment,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == shown.split(), done.stderr
