"""Settings that are unsafe outside development are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest

from messaging.lab.variables import shown, started
from project.production import problems
from tests.support import BASE
from tests.support.production import KEY, PRODUCTION


def manage(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `manage.py` with settings as on a server."""
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *command],
        cwd=BASE,
        env=PRODUCTION | environment,
        capture_output=True,
        text=True,
    )


def test_without_a_key_one_line_says_what_to_do() -> None:
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
    assert f"{name} is weak: it has less than 32 bytes" in refused.stderr
    assert short not in refused.stderr


def test_accounts_cannot_refresh_tokens_for_longer_than_revocations_are_kept() -> None:
    refused = manage("check", SECRET_KEY=KEY, REFRESH_DAYS="91")

    assert refused.returncode == 1
    assert refused.stderr == "REFRESH_DAYS must be a number from 1 to 90.\n"


@pytest.mark.parametrize("minutes", ["0", "-10", "129601", "999999999999"])
def test_no_token_is_valid_for_longer_than_revocations_are_kept(minutes: str) -> None:
    refused = manage("check", SECRET_KEY=KEY, TOKEN_MINUTES=minutes)

    assert refused.returncode == 1
    assert refused.stderr == "TOKEN_MINUTES must be a number from 1 to 129600.\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CSRF_TRUSTED_ORIGINS", "https://*"),
        ("CSRF_TRUSTED_ORIGINS", "https://app.example.com,https://*.example.com"),
        ("SECRET_KEY_FALLBACKS", f"{KEY.swapcase()},{'no key ' * 5}"),
        ("SECRET_KEY_FALLBACKS", f" , {KEY}"),
        ("EMAIL_URL", "smtp+tls://mail:mail@smtp.example.com:587"),
        ("EMAIL_URL", "smtp+tls://mail:Mail@smtp.example.com:587"),
        ("EMAIL_URL", "smtp+tls://mail:%6Dail@smtp.example.com:587"),
        ("EMAIL_URL", "smtp+ssl://mail:changeme@smtp.example.com:465"),
    ],
)
def test_what_may_be_left_out_must_not_be_weak(name: str, value: str) -> None:
    refused = manage("check", SECRET_KEY=KEY, **{name: value})

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith(f"{name} is weak: ")
    assert value not in refused.stderr


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("smtp://me:5cret@smtp.example.com:25", True),
        ("smtp://smtp.example.com:25", True),
        ("smtp+tls://me:5cret@smtp.example.com:587", False),
        ("smtp+ssl://me:5cret@smtp.example.com:465", False),
        ("smtp://127.0.0.1:25", False),
    ],
)
def test_e_mails_in_the_clear_to_another_host_are_warned_of(
    url: str, warns: bool
) -> None:
    checked = manage("check", "--deploy", SECRET_KEY=KEY, EMAIL_URL=url)

    assert checked.returncode == 0
    assert ("messaging.W016" in checked.stderr) is warns
    assert "5cret" not in checked.stderr


def test_production_needs_a_key_that_recognises_repeated_requests() -> None:
    refused = manage("check", SECRET_KEY=KEY, IDEMPOTENCY_KEY="")

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "There is no IDEMPOTENCY_KEY" in refused.stderr


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
        SECRET_KEY=KEY, DATABASE_URL="mysql://x:5cret@127.0.0.1/z",
    )  # fmt: skip

    assert checked.returncode == 0, checked.stderr
    assert checked.stdout == "System check identified no issues (2 silenced).\n"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mongodb://u:5cret@127.0.0.1:27017", "reports"),
        ("mongodb+srv://u:5cret@host/", "reports"),
        ("mongodb://u:5cret@a:1,b:2/other?tlsCAFile=/etc/ssl/ca", "other"),
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


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"selection": 3.0, "connect": 3.0, "socket": 15.0, "set": None}),
        (
            # Names of options are the same in any case.
            "?serverselectiontimeoutms=9000&socketTimeoutMS=60000&replicaSet=rs0",
            {"selection": 9.0, "connect": 3.0, "socket": 60.0, "set": "rs0"},
        ),
    ],
)
def test_options_of_the_url_of_mongodb_win_over_the_defaults(
    query: str, expected: dict[str, Any]
) -> None:
    script = """
import json
from django.db import connections
from pymongo import MongoClient
options = connections["reports"].get_connection_params()
found = MongoClient(**options, connect=False).options
pool = found.pool_options
print(json.dumps({
    "selection": found.server_selection_timeout,
    "connect": pool.connect_timeout,
    "socket": pool.socket_timeout,
    "set": found.replica_set_name,
}))
"""

    done = manage(
        "shell", "--no-imports", "-c", script,
        MONGODB_URL=f"mongodb://u:5cret@127.0.0.1:1/reports{query}", SECRET_KEY=KEY,
    )  # fmt: skip

    assert json.loads(done.stdout) == expected, done.stderr


WEAK_KEYS = [
    "a" * 100,
    "short",
    "insecure-development-key-of-at-least-32-bytes",
    f"Django-INSECURE-{KEY}",
    "0123456789" * 4,
    "no-key" * 6,
    "please-Change-Me-before-production-starts",
]
WEAK = {
    "SECRET_KEY": ["", *WEAK_KEYS],
    "IDEMPOTENCY_KEY": ["", *WEAK_KEYS, KEY, f" {KEY}\n"],
    "ALLOWED_HOSTS": [
        "",
        " , ",
        "*",
        "api.example.com,*",
        "['*']",
        "*.example.com",
        ".com",
    ],
    "RABBITMQ_URL": [
        "",
        "amqp://127.0.0.1/",
        "amqp://guest:guest@broker.example.com:5672/",
        "amqp://guest:guest@127.0.0.1:5672/",
        "amqp://shop:shop@broker.example.com/",
        "amqp://shop:@broker.example.com/",
        "amqp://guest:guest@broker.example.com/?x=external",
        "amqp://shop:5cret@mq-1/,amqp://guest:guest@mq-2/",
        "amqp://shop:5cret@mq-1/, amqp://guest:guest@mq-2/",
        "amqp://shop:5cret@mq-1/;amqp://guest:guest@mq-2/",
        "  AMQP://guest:guest@mq-1/",
        "amqp://guest:%67ue%73t@broker.example.com/",
        "amqp://guest:guest%20@broker.example.com/",
        "amqp://shop:%20@broker.example.com/",
        "amqp://shop:SHOP@broker.example.com/",
        "amqp://shop:dragon@broker.example.com/",
        # As this program itself writes the example.
        "amqps://project:<password>@broker.example.com:5671/",
        "amqp://guest:guest@h/?auth_mechanism=external&auth_mechanism=plain",
        # It shows a certificate, and still logs in as guest.
        "amqps://broker.example.com/?cacertfile=/ca.pem&certfile=/own.pem",
    ],
    "DATABASE_URL": [
        "",
        "mysql://root@127.0.0.1:3306/messaging",
        "mysql://root:root@db.example.com/messaging",
        "mysql://shop:PASSWORD@db.example.com/messaging",
        "mysql://root:MariaDB@db.example.com/messaging",
        "mysql://root@db.example.com/messaging?ssl_cert=",
    ],
    "MONGODB_URL": [
        "",
        "mongodb://127.0.0.1:27017/reports",
        "mongodb://a.example.com,b.example.com/reports",
        "mongodb+srv://shop@mongo.example.com/reports",
        "mongodb://shop:mongodb@a.example.com,b.example.com/reports",
        "mongodb://%2Frun%2Fmongodb.sock,mongo.example.com/reports",
    ],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, one) for name, values in WEAK.items() for one in values]
)
def test_each_missing_or_weak_setting_is_named_in_one_line(
    name: str, value: str
) -> None:
    environment = PRODUCTION | {"SECRET_KEY": KEY}
    assert list(problems(environment)) == []

    [line] = problems(environment | {name: value})

    assert line.startswith(
        (f"{name} is missing: ", f"{name} is weak: ", "There is no ")
    )
    assert name in line
    assert "\n" not in line
    assert not value or value not in line
    assert list(problems(environment | {name: ""}))


def test_a_replica_needs_a_strong_password_as_its_primary_does() -> None:
    environment = PRODUCTION | {"SECRET_KEY": KEY}
    url = "mysql://shop:5cret@replica-1/x,mysql://root:root@replica-2/x"

    [line] = problems(environment | {"DATABASE_REPLICA_URL": url})

    assert line == "DATABASE_REPLICA_URL is weak: everybody knows its password."
    refused = manage("check", SECRET_KEY=KEY, DATABASE_REPLICA_URL=url)
    assert (refused.returncode, refused.stderr.splitlines()) == (1, [line])


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_REPLICA_URL", "mysql://shop:5cret@r-1/x,mysql://shop:a,b@r-2/x"),
        ("DATABASE_URL", "mysql://shop@%2Frun%2Fmysqld%2Fmysqld.sock/messaging"),
        ("DATABASE_URL", "mysql://shop@db/x?ssl_cert=/etc/ssl/shop.pem"),
        ("MONGODB_URL", "mongodb://%2Frun%2Fmongodb.sock/reports"),
        ("MONGODB_URL", "mongodb://shop@host/x?authMechanism=MONGODB-X509"),
        ("MONGODB_URL", "mongodb://host/x?tlsCertificateKeyFile=/etc/ssl/shop.pem"),
        ("RABBITMQ_URL", "amqps://shop:p%40ss%2Fword@host/%2F"),
        ("RABBITMQ_URL", "amqp://shop:5cret@mq-1:1/,amqp://shop:a,b@c@mq-2:2/"),
        ("RABBITMQ_URL", "amqps://host/?auth_mechanism=external&certfile=/own.pem"),
    ],
)
def test_other_ways_to_keep_strangers_out_are_strong(name: str, url: str) -> None:
    assert list(problems(PRODUCTION | {"SECRET_KEY": KEY, name: url})) == []


def test_a_former_key_does_not_recognise_repeated_requests() -> None:
    environment = PRODUCTION | {"SECRET_KEY": KEY}
    former = f"{KEY.swapcase()}, {environment['IDEMPOTENCY_KEY']}"

    [line] = problems(environment | {"SECRET_KEY_FALLBACKS": former})

    assert line.startswith("IDEMPOTENCY_KEY is weak: ")


@pytest.mark.parametrize(("folder", "mode"), [("", "448"), ("/srv/static", "None")])
def test_only_the_static_files_for_a_proxy_may_be_read_by_others(
    folder: str, mode: str
) -> None:
    """`.local` may be made by `collectstatic`."""
    script = (
        "from django.contrib.staticfiles.storage import staticfiles_storage as one; "
        "print(one.directory_permissions_mode)"
    )

    done = manage(
        "shell", "--no-imports", "-c", script, SECRET_KEY=KEY, STATIC_ROOT=folder
    )

    assert done.stdout.strip().splitlines()[-1] == mode, done.stderr


@pytest.mark.parametrize("command", ["check", "migrate", "run_consumer"])
def test_nothing_starts_without_its_own_settings(command: str) -> None:
    missing = dict.fromkeys([*WEAK], "")

    refused = manage(command, **missing)

    assert refused.returncode == 1
    assert refused.stdout == ""
    lines = refused.stderr.splitlines()
    assert len(lines) == len(WEAK)
    for name, line in zip(WEAK, lines, strict=True):
        assert name in line


@pytest.mark.parametrize("name", ["URL", "IDEMPOTENCY_KEY"])
def test_what_must_be_strong_has_one_place(name: str) -> None:
    given = json.dumps({name: "amqp://guest:guest@broker.example.com/"})

    refused = manage("check", SECRET_KEY=KEY, MESSAGING=given)

    assert refused.returncode == 1
    assert refused.stderr.startswith("MESSAGING has URL, IDEMPOTENCY_KEY or REPLICAS: ")


def test_a_server_is_refused_like_a_command() -> None:
    refused = subprocess.run(
        [sys.executable, "-c", "import project.asgi"],
        cwd=BASE,
        env=PRODUCTION | {"SECRET_KEY": KEY, "RABBITMQ_URL": ""},
        capture_output=True,
        text=True,
    )

    assert refused.returncode == 1
    assert "RABBITMQ_URL is missing" in refused.stderr.splitlines()[-1]


RUN = {
    "RABBITMQ_URL": "amqp://guest:5cret@127.0.0.1:1/",
    "DATABASE_URL": "mysql://root:5cret@127.0.0.1:2/messaging",
    "MONGODB_URL": "mongodb://127.0.0.1:3/reports",
    "MONGODB_ENGINE": "messaging.lab.nx_mongodb",
    "DEBUG": "1",
    "OPEN_ACCESS": "1",
    "SECRET_KEY": "a key of make run that is long enough for HMAC-SHA256",
}
SHOW = """
import sys
sys.path.insert(0, sys.argv[1])
from project import settings
found = vars(settings)
broker, databases = found["MESSAGING"]["URL"], found["DATABASES"]
print(broker, databases["reports"]["HOST"], databases["default"]["PORT"])
print(databases["reports"]["ENGINE"], found["DEBUG"], found["OPEN_ACCESS"])
print(found["SECRET_KEY"].split()[0])
"""
REAL = "mongodb://mongodb.example.com/reports"
OF_RUN = f"{RUN['RABBITMQ_URL']} {RUN['MONGODB_URL']} 2 {RUN['MONGODB_ENGINE']}"
DEFAULTS = (
    "amqp://guest:guest@127.0.0.1:5672/ {} 3306 django_mongodb_backend True False"
    " insecure-development-key-of-at-least-32-bytes"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A directory with the settings, which is not that of a developer."""
    for path in (BASE / "project").rglob("*.py"):
        copied = tmp_path / path.relative_to(BASE)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)
    (tmp_path / ".local").mkdir()
    return tmp_path


def show(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process that prints the servers of settings."""
    return subprocess.Popen(
        [sys.executable, "-c", SHOW, folder],
        cwd=BASE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("environment", "shown_servers"),
    [
        ({}, f"{OF_RUN} True True a"),
        # The same server, as for the processes of the run itself.
        ({"MONGODB_URL": RUN["MONGODB_URL"]}, f"{OF_RUN} True True a"),
        ({"OPEN_ACCESS": "0"}, f"{OF_RUN} True False a"),
        ({"SECRET_KEY": ""}, f"{OF_RUN} True True a"),
        ({"SECRET_KEY": KEY}, f"{OF_RUN} True True {KEY}"),
        # Another server takes nothing from the run, above all no open access.
        ({"MONGODB_URL": REAL, "DEBUG": "1"}, DEFAULTS.format(REAL)),
        (
            {"MONGODB_ENGINE": "django_mongodb_backend", "DEBUG": "1"},
            DEFAULTS.format("mongodb://127.0.0.1:27017/reports"),
        ),
        # Nor does production, which has no defaults.
        ({"MONGODB_URL": REAL}, None),
        ({"DEBUG": "0"}, None),
    ],
)
def test_the_servers_of_make_run_are_taken_all_or_none(
    environment: dict[str, str], shown_servers: str | None, copy: Path
) -> None:
    with shown(copy / ".local" / "servers.env", RUN):
        output, errors = show(copy, environment).communicate()

    if shown_servers is None:
        assert "RABBITMQ_URL is missing" in errors
    else:
        assert output.split() == shown_servers.split(), errors


def test_what_a_killed_run_has_left_is_not_believed(copy: Path) -> None:
    """Not even if a process of the same id lives: this one."""
    file = copy / ".local" / "servers.env"
    with shown(file, RUN):
        text = file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
    assert not file.exists()
    file.write_text(f"# pid {os.getpid()}\n{text}")

    output, _ = show(copy, {"DEBUG": "1"}).communicate()

    assert output.startswith("amqp://guest:guest@127.0.0.1:5672/ ")
    assert started(file) == {}
