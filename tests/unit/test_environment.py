"""A setting has the value that was given, and no error shows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pika
import pytest
from pymongo.uri_parser import parse_uri

from project.environment import escaped
from tests.support import BASE
from tests.support.production import KEY, PRODUCTION

SECRET = "$ecret#1%/?:+ñ'x&y=z"
SHOW = """
import json
from django.conf import settings as s
default, reports = s.DATABASES["default"], s.DATABASES["reports"]
print(json.dumps({
    "key": s.SECRET_KEY, "mysql": default.get("PASSWORD"), "user": default.get("USER"),
    "host": default.get("HOST"), "port": default.get("PORT"), "name": default["NAME"],
    "mongodb": reports["HOST"], "reports": reports["NAME"],
    "rabbitmq": s.MESSAGING["URL"], "mail": s.EMAIL_HOST_PASSWORD,
    "from": s.DEFAULT_FROM_EMAIL, "fonts": s.REPORT_FONTS, "media": s.MEDIA_ROOT,
}))
"""


def run(
    folder: Path | None = None, /, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Print settings as on a server; those of a folder have its `.env`."""
    base = {"DJANGO_SETTINGS_MODULE": "project.settings", "SECRET_KEY": KEY}
    return subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=folder or BASE,
        env={"PATH": os.environ["PATH"]} | PRODUCTION | base | environment,
        capture_output=True,
        text=True,
    )


def values(found: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return what was printed."""
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    return dict(json.loads(found.stdout))


@pytest.mark.parametrize(
    "secret", ["$" * 50 + "abcd", "$SECRET_KEY" * 5, r"\$xYz" + KEY, SECRET * 3]
)
def test_a_secret_key_may_have_any_characters(secret: str) -> None:
    assert values(run(SECRET_KEY=secret))["key"] == secret


@pytest.mark.parametrize(
    "password",
    [
        "$ecret",
        "a#b",
        "100%",
        "a?b",
        "a/b",
        "a:b",
        "a@b",
        "a+b",
        "a b",
        "ñandú",
        SECRET,
    ],
)
def test_a_password_in_a_url_may_be_written_as_it_is(password: str) -> None:
    found = values(
        run(
            DATABASE_URL=f"mysql://me:{password}@db.example.com:3307/shop",
            MONGODB_URL=f"mongodb://me:{password}@a.example.com,b:2/store?w=1",
            RABBITMQ_URL=f"amqp://me:{password}@mq.example.com:5673/v,"
            f"amqp://me:{password}@mq-2.example.com:5673/v",
            EMAIL_URL=f"smtp://me:{password}@mail.example.com:26",
        )
    )

    assert found["mysql"] == found["mail"] == password
    shown = [found[name] for name in ("user", "host", "port", "name", "reports")]
    assert shown == ["me", "db.example.com", 3307, "shop", "store"]
    nodes = [pika.URLParameters(url) for url in str(found["rabbitmq"]).split(",")]
    assert [one.credentials.password for one in nodes] == [password] * 2
    assert [one.host for one in nodes] == ["mq.example.com", "mq-2.example.com"]
    assert {(one.port, one.virtual_host) for one in nodes} == {(5673, "v")}
    assert parse_uri(str(found["mongodb"]))["password"] == password


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root@127.0.0.1:3306/messaging",
        "amqp://guest:guest@127.0.0.1:5672/%2f",
        "mongodb://127.0.0.1:27017/reports",
        "mongodb://a:1,b:2/other?tlsCAFile=/etc/ssl/a@b.pem",
        "mongodb://h/other?appName=a@b",
        "mongodb://%2Ftmp%2Fmongodb.sock/reports",
        "mongodb://me:pa%40ss@[::1]:27017/reports",
        "amqps://me:100%25@broker.example.com",
        "filemail:////srv/mail@home",
        "sqlite://:memory:",
        "smtp://localhost:25",
        "amqp:///shop",
        "",
    ],
)
def test_what_is_written_as_it_should_be_stays_so(url: str) -> None:
    assert escaped(url) == url


def test_other_settings_may_begin_with_a_dollar_sign() -> None:
    found = values(
        run(DEFAULT_FROM_EMAIL="$a@b.c", MEDIA_ROOT="$HOME/x", REPORT_FONTS="$x,y")
    )

    assert (found["from"], found["media"]) == ("$a@b.c", "$HOME/x")
    assert found["fonts"] == ["$x", "y"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://me:hidden-one@host:port/x"),
        ("DATABASE_URL", "//me:hidden-one@host/x"),
        ("DATABASE_URL", "mysql://me:hidden-one@[::1/x"),
        ("EMAIL_URL", "hidden-one://me:hidden-one@host"),
        ("EMAIL_URL", "smtp://me:hidden-one@host:port"),
        ("MESSAGING", '{"URL": "amqp://me:hidden-one@host'),
        ("MONGODB_URL", "mongodb://me:hidden-one@[::1/x"),
        ("EMAIL_TIMEOUT", "hidden-one"),
        ("AUTHOR_PENALTY", "hidden-one"),
        ("OPEN_ACCESS", "1"),
        ("LOG_LEVEL", "hidden-one"),
    ],
)
def test_an_error_names_the_setting_and_not_its_value(name: str, value: str) -> None:
    found = run(**{name: value})

    assert found.returncode != 0
    assert name in found.stderr
    assert "hidden" not in found.stdout + found.stderr


def test_a_file_may_have_any_value_and_its_mistakes_are_not_shown(
    tmp_path: Path,
) -> None:
    shutil.copytree(BASE / "project", tmp_path / "project")
    for name in ("messaging", "users", "reports", "examples"):
        (tmp_path / name).symlink_to(BASE / name)
    (tmp_path / ".env").write_text(
        f"# a comment\n\nSECRET_KEY={SECRET}{SECRET}{SECRET}\n"
        "DATABASE_URL = mysql://me:hidden-one@host/x\n"
        "export MEDIA_ROOT='$x'\nhidden-two\n"
    )

    found = run(tmp_path, SECRET_KEY="")
    assert "There is no SECRET_KEY" in found.stderr  # the environment wins
    environment = {"PATH": os.environ["PATH"]} | PRODUCTION
    read = subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=tmp_path,
        env=environment | {"DJANGO_SETTINGS_MODULE": "project.settings"},
        capture_output=True,
        text=True,
    )

    shown = json.loads(read.stdout)
    assert (shown["key"], shown["media"]) == (SECRET * 3, "$x")
    assert "Line 4 of" in read.stderr
    assert "Line 6 of" in read.stderr
    assert "hidden" not in found.stderr + read.stderr


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file_that_a_variable_names(
    end: str, tmp_path: Path
) -> None:
    secrets = {
        "SECRET_KEY": SECRET * 3,
        "DATABASE_URL": "mysql://me:pa#ss@db.example.com/shop",
        "MONGODB_URL": "mongodb://me:5cret@a.example.com/store",
        "RABBITMQ_URL": "amqps://me:5cret@mq.example.com/v",
        "EMAIL_URL": "smtp://me:5cret@mail.example.com:26",
    }
    environment = dict.fromkeys(secrets, "")
    for name, secret in secrets.items():
        (tmp_path / name).write_bytes((secret + end).encode())
        environment[f"{name}_FILE"] = str(tmp_path / name)

    found = values(run(**environment))

    assert found["key"] == SECRET * 3
    assert (found["mysql"], found["mail"]) == ("pa#ss", "5cret")
    assert found["mongodb"] == secrets["MONGODB_URL"]
    assert found["rabbitmq"] == secrets["RABBITMQ_URL"]


@pytest.mark.parametrize("name", ["SECRET_KEY", "RABBITMQ_URL", "EMAIL_URL"])
def test_a_secret_is_not_taken_from_two_places(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden-one")

    found = run(**{name: "hidden-two", f"{name}_FILE": str(tmp_path / "secret")})

    assert found.returncode != 0
    last = found.stderr.splitlines()[-1]
    assert last.endswith(f"{name} and {name}_FILE are both set: unset one.")
    assert "hidden" not in found.stderr


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"hidden-\xff")

    missing = run(SECRET_KEY="", SECRET_KEY_FILE=str(tmp_path / "none"))
    binary = run(SECRET_KEY="", SECRET_KEY_FILE=str(tmp_path / "binary"))

    assert "SECRET_KEY_FILE cannot be read: No such file" in missing.stderr
    assert "SECRET_KEY_FILE cannot be read: it is not UTF-8." in binary.stderr
    assert "hidden" not in binary.stderr


def test_a_weak_key_in_a_file_is_weak(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")

    found = run(SECRET_KEY="", SECRET_KEY_FILE=str(tmp_path / "key"))

    assert "SECRET_KEY is weak" in found.stderr


def test_files_of_certificates_make_mysqlclient_verify_the_server() -> None:
    script = (
        "import json; from django.conf import settings as s; "
        "print(json.dumps(s.DATABASES['default']['OPTIONS']))"
    )
    url = "mysql://me:5cret@db.example.com/x?ssl_ca=/ca.pem"
    shown = {}
    for query in ("", "&ssl_cert=/c.pem&ssl_key=/k.pem", "&ssl_mode=REQUIRED"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=BASE,
            env={"PATH": os.environ["PATH"], "SECRET_KEY": KEY}
            | PRODUCTION
            | {"DJANGO_SETTINGS_MODULE": "project.settings"}
            | {"DATABASE_URL": url + query},
            check=True,
            capture_output=True,
        )
        shown[query] = json.loads(done.stdout)

    assert [one["ssl_mode"] for one in shown.values()] == [
        "VERIFY_IDENTITY",
        "VERIFY_IDENTITY",
        "REQUIRED",
    ]
    pair = {"ca": "/ca.pem", "cert": "/c.pem", "key": "/k.pem"}
    assert shown["&ssl_cert=/c.pem&ssl_key=/k.pem"]["ssl"] == pair
